"""HTML report of runs or of a sweep, as one file without network access and scripts, with its figures embedded."""

import base64
import csv
import html
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from csbp_jax import __version__
from csbp_jax.config import ConfigError, flatten
from csbp_jax.evaluation import captions, compare
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.reporting.format import fields_text, option_text, value_text
from csbp_jax.runtime import files
from csbp_jax.sweep import tables
from csbp_jax.sweep.grid import fields as sweep_fields
from csbp_jax.training import run_json

Parsed = TypeVar("Parsed")

# A browser may load only what the page itself contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --rule: #ccc; --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181b; --rule: #444; --soft: #23262a; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: auto; padding: 1rem; overflow-wrap: anywhere; }
h2 { border-top: 1px solid var(--rule); padding-top: 1rem; }
.scroll, figure { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--rule); }
th, td { text-align: right; vertical-align: top; white-space: pre; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; }
@media (max-width: 40rem) {
  h1 { font-size: 1.4rem; }
  table { font-size: .9rem; }
  th, td { padding-right: .5rem; white-space: pre-line; }
  img { max-width: none; width: auto; height: 16rem; }
}
summary { cursor: pointer; }
"""


def write(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    out: str | pathlib.Path | None = None,
    *,
    control: str | pathlib.Path | None = None,
    margin: float | None = None,
) -> pathlib.Path:
    """Write the report of finished runs, or of one sweep, completely or not at all, and return its path.

    Args:
      runs: folders of runs, or one, compared with each other if there are several; or of a sweep.
      out: the file; by default ``report.html`` in the first folder, or in ``evaluation/RUN`` if that cannot be written.
      control: directory of a run, which is compared as well; see :func:`csbp_jax.evaluation.compare.settings`.
      margin: see there.

    Raises:
      ConfigError: no folder, one is not a finished run or sweep, a sweep is among several, or a control or margin has
        no two runs to compare.
    """
    paths = files.as_paths(runs)
    if not paths:
        raise ConfigError("RUN: missing; write csbp_jax report RUN ..., or csbp_jax report SWEEP")
    first = paths[0]
    if len(paths) == 1 and _is_sweep(first):
        if control is not None or margin is not None:
            raise ConfigError(
                f"{first}: is a sweep, which is reported with the control and margin of its own command; leave out "
                "--control and --margin"
            )
        title, sections = f"Sweep {first.resolve().name}", _sweep_sections(first)
    else:
        finished, control_run = compare.read_with_control(paths, control)
        if len(finished) == 1 and (control is not None or margin is not None):
            raise ConfigError("RUN: --control and --margin are for two or more runs; write csbp_jax report RUN RUN ...")
        names = ", ".join(run.folder.resolve().name for run in finished[:3])
        more = f" and {len(finished) - 3} more" if len(finished) > 3 else ""
        title, sections = (
            f"{'Run' if len(finished) == 1 else 'Runs'} {names}{more}",
            _run_sections(finished, control_run, margin),
        )
    file = pathlib.Path(out) if out else output_folder(first) / "report.html"
    files.write_bytes(file, page(title, sections).encode(errors="backslashreplace"))  # paths may not be UTF-8
    return file


def page(title: str, sections: Iterable[str]) -> str:
    """Return a complete document; the title is text, the sections are HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        + "\n".join(sections)
        + f"\n<p>csbp_jax {__version__}</p>\n</main>\n</body>\n</html>\n"
    )


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table that scrolls by itself if it is too wide; all cells are text."""

    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_without_breaks(html.escape(str(cell)))}</{tag}>" for cell in cells) + "</tr>"

    head, body = line(columns, "th"), "\n".join(line(row, "td") for row in rows)
    # Above the table, not in it, so that it does not scroll away.
    paragraph = f"<p>{html.escape(caption)}</p>\n" if caption else ""
    return f'{paragraph}<div class="scroll"><table><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'


def _without_breaks(text: str) -> str:
    """Return a text in which no line ends within an interval."""
    return re.sub(r"\[[^]\[]*\]", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def figures(folder: pathlib.Path) -> list[str]:
    """Embed the PNGs in the ``figures`` of a run or sweep, including subfolders, with their captions.

    What is a link out of the folder is left out.
    """
    elements = []
    for file in sorted((folder / "figures").rglob("*.png"), key=lambda file: (len(file.parts), file.name)):
        if not (file.is_file() and file.resolve().is_relative_to(folder.resolve())):
            continue  # a link would put any file of this machine on the page
        name = file.relative_to(folder / "figures").with_suffix("").as_posix()
        alt, text = html.escape(name), html.escape(captions.caption(folder, name))
        data = base64.b64encode(files.read_bytes(file)).decode()
        elements.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )
    return elements


def _is_sweep(folder: pathlib.Path) -> bool:
    return (folder / "config.json").exists() and "grid" in run_json.read_config(folder, run_json.REPAIR)["config"]


def _run_sections(
    runs: Sequence[compare.FinishedRun], control: compare.FinishedRun | None, margin: float | None
) -> Iterator[str]:
    if len(runs) > 1:
        compared = compare.settings(runs, control, margin)
        yield "<h2>Comparison</h2>"
        notes = compare.warnings(runs, compared)
        yield from (f"<p><strong>Note:</strong> {html.escape(line)}</p>" for line in notes)
        yield table("Test accuracy, and fields of the configs that differ", *compare.run_table(runs))
        yield from (table(*arguments) for arguments in compare.setting_tables(compared))
    for run in runs:
        yield f"<h2>{html.escape(run.folder.resolve().name)}</h2>"
        columns = ["weights of", "test accuracy", "validation accuracy", "epoch", "test loss", "test examples"]
        labels = compare.EPOCHS | {"ema": "moving average"}
        rows = [_accuracies(label, run.result[key]) for key, label in labels.items() if key in run.result]
        yield table(f"seed {run.fields['seed']}, {run.result['seconds']:.0f} s of training", columns, rows)
        yield from figures(run.folder)
        yield _details(run.content, run.fields)


def _accuracies(label: str, epoch: dict[str, Any]) -> list[Any]:
    """Return the row of an epoch, whose loss may be missing."""
    loss = f"{epoch['test_loss']:.4g}" if "test_loss" in epoch else ""
    accuracies = f"{epoch['test_accuracy']:.2%}", f"{epoch['validation_accuracy']:.2%}"
    return [label, *accuracies, epoch["epoch"], loss, epoch["test_count"]]


def _sweep_sections(folder: pathlib.Path) -> Iterator[str]:
    if not (folder / "members.csv").exists():
        raise ConfigError(f"{folder}: is not a finished sweep; repeat the command that started it to resume it")
    content = run_json.read_config(folder, run_json.REPAIR)
    grid = content["config"].pop("grid")
    fields = sweep_fields(grid)
    of_settings = [field for field in fields if field != "seed"]
    settings = _parsed(folder / "settings.csv", lambda rows: [tables.from_flat(row, of_settings) for row in rows])
    members = _parsed(folder / "members.csv", lambda rows: _members(rows, fields))
    columns, cells = tables.accuracy_cells(settings)
    rows = [[fields_text(s.point) or "all", *row] for s, row in zip(settings, cells, strict=True)]
    yield table("Settings: mean test accuracy over seeds, % [95 % interval]", ["setting", *columns], rows)
    compared = [setting for setting in settings if setting.differences]
    columns, cells = tables.difference_cells(compared)
    rows = [[fields_text(s.point), *row, s.control or ""] for s, row in zip(compared, cells, strict=True)]
    if rows:
        caption = "Difference from the control, paired over seeds, percentage points [95 % interval]"
        yield table(caption, ["setting", *columns, "control"], rows)
    values = [[field, option_text([value_text(value) for value in values])] for field, values in grid.items()]
    yield table("Grid", ["field", "values"], values)
    yield table("Members: accuracies, epochs and losses", *members)
    yield from figures(folder)
    yield _details(content, flatten(content["config"]))


def _parsed(file: pathlib.Path, parse: Callable[[list[dict[str, str]]], Parsed]) -> Parsed:
    """Parse the rows of a table of a sweep.

    Raises:
      ConfigError: it cannot be read, as after another program has saved it in its own form, or is not a regular file.
    """
    files.check_regular(file, files.MAX_SMALL_BYTES)
    try:
        with open(file, newline="") as opened:
            rows = list(csv.DictReader(opened))
        if not rows or any(None in (*row, *row.values()) for row in rows):
            raise ValueError("no rows, or rows of another length")
        return parse(rows)
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); repeat the command of the sweep, which writes "
            "it again"
        ) from None


def _members(rows: Sequence[dict[str, str]], fields: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the members: fields, test accuracies, and all other columns of the file."""
    others = [column for column in rows[0] if column not in ("member", *fields, *tables.SHOWN)]
    cells = []
    for row in rows:
        accuracies = [f"{float(row[name]):.2%}" if row[name] else "diverged" for name in tables.SHOWN]
        cells.append(
            [fields_text({f: row[f] for f in fields}), *accuracies, *(_shown(name, row[name]) for name in others)]
        )
    return ["member", *(column.replace("_", " ") for column in [*tables.SHOWN, *others])], cells


def _shown(column: str, cell: str) -> str:
    """Write an accuracy in %, and other numbers with five digits; return integers and other text unchanged."""
    try:
        if column.endswith("accuracy"):
            return f"{float(cell):.2%}"
        return cell if cell.lstrip("-").isdecimal() else f"{float(cell):.5g}"
    except ValueError:
        return cell


def _details(content: dict[str, Any], fields: dict[str, Any]) -> str:
    versions = content.get("versions", {}) | {"python": content.get("python", "")}
    config = table("", ["field", "value"], [[name, option_text(value)] for name, value in fields.items()])
    return (
        f"<details><summary>Config</summary>{config}</details>\n"
        f"<details><summary>Versions</summary>{table('', ['package', 'version'], versions.items())}</details>"
    )
