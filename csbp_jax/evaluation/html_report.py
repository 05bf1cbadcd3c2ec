"""HTML report of runs or of a sweep, as one file without network access and scripts, with its figures embedded."""

import base64
import csv
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jinja2

from csbp_jax import __version__
from csbp_jax.config import ConfigError, flatten
from csbp_jax.evaluation import captions, compare
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.reporting import plots_runs
from csbp_jax.reporting.format import fields_text, option_text, value_text
from csbp_jax.runs.run import EPOCHS, Run
from csbp_jax.runs.table import TABLE, RunTable
from csbp_jax.runtime import files
from csbp_jax.sweep import tables
from csbp_jax.sweep.grid import fields as sweep_fields
from csbp_jax.training import run_json

Parsed = TypeVar("Parsed")

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
"""Caption, columns and rows."""


class Section(NamedTuple):
    """A part of the page, all of it text.

    figures: name, caption and PNG, in base64.
    details: tables that the reader opens.
    """

    heading: str
    notes: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[tuple[str, str, str]]
    details: Sequence[Table]


def write(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    out: str | pathlib.Path | None = None,
    *,
    control: str | pathlib.Path | None = None,
    margin: float | None = None,
) -> pathlib.Path:
    """Write the report of finished runs, a sweep or an experiment, completely or not at all, and return its path.

    Args:
      runs: folders of runs, or one, compared with each other if there are several; or of a sweep.
      out: the file; by default ``report.html`` in the first folder, or in ``evaluation/RUN`` if that cannot be written.
      control: directory of a run, which is compared as well, and whose setting is the control, or an arm of the
        experiment (:func:`csbp_jax.evaluation.compare.controls`).
      margin: largest difference without importance, in percentage points.

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
        title, sections = f"Sweep {first.resolve().name}", [_sweep_section(first)]
    elif len(paths) == 1 and (first / TABLE).exists():
        title, sections = f"Experiment {first.resolve().name}", [_experiment_section(first, control, margin)]
    else:
        finished, control_run = compare.read_with_control(paths, control)
        if len(finished) == 1 and (control is not None or margin is not None):
            raise ConfigError("RUN: --control and --margin are for two or more runs; write csbp_jax report RUN RUN ...")
        names = ", ".join(run.name for run in finished[:3])
        more = f" and {len(finished) - 3} more" if len(finished) > 3 else ""
        title = f"{'Run' if len(finished) == 1 else 'Runs'} {names}{more}"
        sections = list(_run_sections(finished, control_run, margin))
    file = pathlib.Path(out) if out else output_folder(first) / "report.html"
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("csbp_jax.evaluation", ""),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["unbroken"] = _unbroken
    page = templates.get_template("report.html.jinja").render(title=title, sections=sections, version=__version__)
    files.write_bytes(file, page.encode(errors="backslashreplace"))  # paths may not be UTF-8
    return file


def _unbroken(cell: Any) -> str:
    """Return the text of a cell, in which no line ends within an interval."""
    return re.sub(r"\[[^]\[]*\]", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), str(cell))


def _figures(folder: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """Yield the PNGs in the ``figures`` of a run or sweep, including subfolders: name, caption and content.

    What is a link out of the folder is left out.
    """
    for file in sorted((folder / "figures").rglob("*.png"), key=lambda file: (len(file.parts), file.name)):
        # A link would put any file of this machine on the page.
        if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
            name = file.relative_to(folder / "figures").with_suffix("").as_posix()
            yield name, captions.caption(folder, name), base64.b64encode(files.read_bytes(file)).decode()


def _is_sweep(folder: pathlib.Path) -> bool:
    return (folder / "config.json").exists() and "grid" in run_json.read_config(folder, run_json.REPAIR)["config"]


def _run_sections(runs: Sequence[Run], control: Run | None, margin: float | None) -> Iterator[Section]:
    if len(runs) > 1:
        table = RunTable.of(runs)
        compared = compare.comparison(table, compare.controls(table, control), margin)
        of_runs = ("Test accuracy of each run", *compare.runs_table(table))
        yield _comparison(compared, compare.versions_that_differ(runs), [of_runs])
    columns = ["weights of", "test accuracy", "validation accuracy", "epoch", "test loss", "test examples"]
    for run in runs:
        result = run.result or {}
        rows = [_accuracies(label, result[key]) for key, label in EPOCHS.items() if key in result]
        caption = f"seed {run.fields['seed']}, {result['seconds']:.0f} s of training"
        yield Section(
            run.name,
            [],
            [(caption, columns, rows)],
            list(_figures(run.folder)),
            _details(run.content, run.fields),
        )


def _comparison(compared: compare.Comparison, notes: Sequence[str], others: Sequence[Table]) -> Section:
    """Return the section of a table of runs: differences first, then settings, other tables, and the figure."""
    tables: list[Table] = [
        (of.heading()[:1].upper() + of.heading()[1:], list(of.cells().columns), of.cells().to_numpy().tolist())
        for of in compared.contrasts
        if len(of.frame)
    ]
    table = compared.table
    tables += [(compare.SETTINGS.capitalize(), *compare.settings_table(table)), *others]
    drawn = base64.b64encode(plots_runs.png(table.plot())).decode()
    figures = [("comparison", captions.of_table(table), drawn)]
    return Section("Comparison", [*notes, *compared.notes], tables, figures, [])


def _experiment_section(folder: pathlib.Path, control: str | pathlib.Path | None, margin: float | None) -> Section:
    content, table = run_json.read_config(folder, run_json.REPAIR), RunTable.read(folder)
    pairs = compare.controls(table, None if control is None else str(control))
    section = _comparison(compare.comparison(table, pairs, margin), [], [])
    runs = ("Runs", list(table.frame.columns), table.frame.to_numpy().tolist())
    figures = [*section.figures, *_figures(folder)]
    return section._replace(figures=figures, details=[runs, *_details(content, flatten(content["config"]))])


def _accuracies(label: str, epoch: dict[str, Any]) -> list[Any]:
    """Return the row of an epoch, whose loss may be missing."""
    loss = f"{epoch['test_loss']:.4g}" if "test_loss" in epoch else ""
    accuracies = f"{epoch['test_accuracy']:.2%}", f"{epoch['validation_accuracy']:.2%}"
    return [label, *accuracies, epoch["epoch"], loss, epoch["test_count"]]


def _sweep_section(folder: pathlib.Path) -> Section:
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
    result = [("Settings: mean test accuracy over seeds, % [95 % interval]", ["setting", *columns], rows)]
    compared = [setting for setting in settings if setting.differences]
    columns, cells = tables.difference_cells(compared)
    rows = [[fields_text(s.point), *row, s.control or ""] for s, row in zip(compared, cells, strict=True)]
    if rows:
        caption = "Difference from the control, paired over seeds, percentage points [95 % interval]"
        result.append((caption, ["setting", *columns, "control"], rows))
    values = [[field, option_text([value_text(value) for value in values])] for field, values in grid.items()]
    result += [("Grid", ["field", "values"], values), ("Members: accuracies, epochs and losses", *members)]
    return Section("", [], result, list(_figures(folder)), _details(content, flatten(content["config"])))


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


def _details(content: dict[str, Any], fields: dict[str, Any]) -> list[Table]:
    versions = content.get("versions", {}) | {"python": content.get("python", "")}
    return [
        ("Config", ["field", "value"], [(name, option_text(value)) for name, value in fields.items()]),
        ("Versions", ["package", "version"], list(versions.items())),
    ]
