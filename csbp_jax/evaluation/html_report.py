"""HTML report of runs or an experiment, as one file without network access and scripts, with its figures embedded."""

import base64
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2

from csbp_jax import __version__
from csbp_jax.config import ConfigError, flatten
from csbp_jax.evaluation import compare
from csbp_jax.evaluation.compare import Table
from csbp_jax.evaluation.outputs import check_file, output_folder
from csbp_jax.reporting import measures, plots, plots_training
from csbp_jax.reporting.format import value_text
from csbp_jax.runs.reading import TABLE
from csbp_jax.runs.run import EPOCHS, Run
from csbp_jax.runs.table import RunTable
from csbp_jax.runtime import files
from csbp_jax.training import run_json

Figure = tuple[str, str, str]
"""Name, caption, and PNG in base64."""


class Section(NamedTuple):
    """A part of the page, all of it text; ``answers`` come first, ``details`` are tables that the reader opens."""

    heading: str
    answers: Sequence[str]
    notes: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    details: Sequence[Table]


def write(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    out: str | pathlib.Path | None = None,
    *,
    control: str | pathlib.Path | None = None,
    margin: float | None = None,
) -> pathlib.Path:
    """Write the report of runs, or of an experiment, completely or not at all, and return its path.

    Of a run that is not finished it has the figures so far, and no comparison.

    Args:
      runs: folders of runs, or one, compared with each other if there are several; or of an experiment.
      out: the file, whose folder is created; by default ``report.html`` in the first folder, of several runs
        ``report-OTHERS.html``, with the others' names; or in ``evaluation/RUN`` if that cannot be written.
      control: directory of a run, which is compared as well, and whose setting is the control, or an arm of the
        experiment (:func:`csbp_jax.evaluation.compare.controls`).
      margin: as of :func:`csbp_jax.evaluation.compare.compare`.

    Raises:
      ConfigError: no folder, one is not a run or a finished experiment, an experiment is among several, or a control or
        margin has no two runs to compare.
    """
    paths = files.as_paths(runs)
    if not paths:
        raise ConfigError("RUN: missing; write csbp_jax report RUN ..., or csbp_jax report EXPERIMENT")
    if out:
        check_file(out)
    first = paths[0]
    if len(paths) == 1 and (first / TABLE).exists():
        title, sections = f"Experiment {first.resolve().name}", [_experiment_section(first, control, margin)]
        name = "report.html"
    else:
        read, control_run = compare.read_with_control(paths, control, unfinished=True)
        if len(read) == 1 and (control is not None or margin is not None):
            raise ConfigError("RUN: --control and --margin are for two or more runs; write csbp_jax report RUN RUN ...")
        names = ", ".join(run.name for run in read[:3])
        more = f" and {len(read) - 3} more" if len(read) > 3 else ""
        title = f"{'Run' if len(read) == 1 else 'Runs'} {names}{more}"
        sections = list(_run_sections(read, control_run, margin))
        others = "-".join(run.name for run in read[1:])
        short = others if len(others) < 60 else hashlib.sha256(os.fsencode(others)).hexdigest()[:8]
        name = f"report-{short}.html" if others else "report.html"
    file = pathlib.Path(out) if out else output_folder(first) / name
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


def _figures(folder: pathlib.Path, result: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Figure]:
    """Yield the PNGs in the ``figures`` of a run or experiment, including subfolders, that of training first.

    What is a link out of the folder is left out. The caption of a figure says if it is of another epoch than the
    result of the run.
    """
    files_of_figures = (folder / "figures").rglob("*.png")
    for file in sorted(files_of_figures, key=lambda file: (len(file.parts), file.stem != "training", file.name)):
        # A link would put any file of this machine on the page.
        if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
            name = file.relative_to(folder / "figures").with_suffix("").as_posix()
            png = files.read_bytes(file)
            caption = f"{plots.caption_of(png) or name}{_of_another_epoch(folder, name, result)}"
            yield name, caption, base64.b64encode(png).decode()


def _of_another_epoch(folder: pathlib.Path, name: str, result: Mapping[str, Any]) -> str:
    """Return a sentence on a figure whose numbers are from before the run went on."""
    file = folder / f"{name.partition('/')[0]}.json"
    if not file.exists():
        return ""
    remedy = "repeat the command that wrote it, or delete it"
    content = run_json.read_json(file, lambda content: run_json.fits(content.get("runs", []), [{"run": str}]), remedy)
    measured = next((of for of in content.get("runs", []) if of["run"] == folder.resolve().name), content)
    kind, epoch = measured.get("weights_of"), measured.get("epoch")
    if not isinstance(kind, str) or kind not in result or epoch == result[kind]["epoch"]:
        return ""
    return f" This is of epoch {epoch}, before the run went on; repeat the command that drew it."


def _drawn(name: str, figure: Any, caption: str) -> Figure:
    return name, caption, base64.b64encode(plots.png(figure)).decode()


def _run_sections(runs: Sequence[Run], control: Run | None, margin: float | None) -> Iterator[Section]:
    finished = [run for run in runs if run.result]
    if len(finished) > 1:
        compared = compare.of_runs(finished, control, margin)
        title = f"Test {measures.MEASURES[compared.table.primary].label} of each run"
        yield _comparison(compared, [(title, *compare.runs_table(compared.table))])
    for run in runs:
        heading, details = run.name if len(runs) > 1 else "", _details(run.content, run.fields)
        yield (_finished_run if run.result else _unfinished_run)(run)._replace(heading=heading, details=details)


def _finished_run(run: Run) -> Section:
    result = run.result or {}
    tested = [f"{split}_{name}" for name in measures.names(result["last"]) for split in ("test", "validation")]
    columns = ["weights of", *map(measures.words, tested), "epoch", "test loss", "test examples"]
    rows = [_tested(label, tested, result[key]) for key, label in EPOCHS.items() if key in result]
    caption = f"seed {run.fields['seed']}, {result['seconds']:.0f} s of training"
    return Section("", [], [], [(caption, columns, rows)], list(_figures(run.folder, result)), [])


def _unfinished_run(run: Run) -> Section:
    rows = run.rows()
    ended = [row for row in rows if row["kind"] == "epoch"]
    column = f"validation_{measures.primary(ended[-1], 'validation_')}" if ended else ""
    so_far = f", {measures.words(column)} {measures.of(column).text(ended[-1][column])}" if ended else ""
    note = f"not finished: {len(ended)} of {run.fields['epochs']} epochs{so_far}"
    drawn = plots_training.figures(run.name, rows)
    return Section("", [], [note], [], [_drawn(name, *figure) for name, figure in drawn.items()], [])


def _comparison(compared: compare.Comparison, others: Sequence[Table] = ()) -> Section:
    """Return the section of a table of runs: differences first, then settings, other tables, and the figure."""
    tables: list[Table] = []
    for of in compared.contrasts:
        if len(of.frame):
            heading = of.heading().replace(of.measure, measures.words(of.measure), 1)
            heading = heading[:1].upper() + heading[1:]
            tables.append((heading, list(of.cells().columns), of.cells().to_numpy().tolist()))
    table = compared.table
    title, columns, rows = compare.settings_table(table)
    tables += [(title[:1].upper() + title[1:], columns, rows), *others]
    figures = [_drawn("comparison", table.plot(), table.caption())]
    if curves := table.plot_curves():
        figures.append(_drawn("curves", curves, table.curves_caption()))
    return Section("Comparison", list(_answers(compared)), compared.notes, tables, figures, [])


def _answers(compared: compare.Comparison) -> Iterator[str]:
    """Yield a sentence for each difference, with its verdict."""
    for of in compared.contrasts:
        kind = of.measure.removesuffix(f"_test_{compared.table.primary}")
        label = compare.EPOCHS.get(kind, measures.words(of.measure))
        for line in of.lines():
            yield f"{label[:1].upper()}{label[1:]}: {line}."


def _experiment_section(folder: pathlib.Path, control: str | pathlib.Path | None, margin: float | None) -> Section:
    content, table = run_json.read_config(folder, run_json.REPAIR), RunTable.read(folder)
    pairs = compare.controls(table, None if control is None else str(control))
    section = _comparison(compare.comparison(table, pairs, margin))
    runs = ("Runs", list(table.frame.columns), table.frame.to_numpy().tolist())
    figures = [*section.figures, *_figures(folder)]
    details = [_plan(table), runs, *_details(content, flatten(content["config"]))]
    return section._replace(figures=figures, details=details)


def _plan(table: RunTable) -> Table:
    """Return the plan of an experiment: what each arm sets, how it was tuned, and on which seeds it was tested."""
    columns = ["arm", "tries", "tuned on seeds", "draws", "tested on seeds", "fields of its tests"]
    rows, has_cases = [], table.frame["case"].nunique() > 1
    for (case, arm), runs in table.frame.groupby(["case", "arm"], sort=False):
        tunes, tests = runs[runs["role"] == "tune"], runs[runs["role"] == "test"]
        fields = []
        for name in table.fields:
            values = list(dict.fromkeys(value_text(value, " ") for value in tests[name]))
            fields.append(f"{name} {' or '.join(values)}")
        tries = int(tunes.groupby("draw")["try"].nunique().max()) if len(tunes) else 1
        of_arm = [arm, tries, _seeds(tunes["seed"]), runs["draw"].nunique(), _seeds(tests["seed"]), ", ".join(fields)]
        rows.append([case, *of_arm] if has_cases else of_arm)
    return "Plan", ["case", *columns] if has_cases else columns, rows


def _seeds(seeds: Iterable[int]) -> str:
    """Return seeds as text, of which neighbours are a range.

    >>> _seeds([0, 1, 2, 3, 10, 1])
    '0 to 3, 10'
    """
    ranges: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges)


def _tested(label: str, columns: Sequence[str], epoch: dict[str, Any]) -> list[Any]:
    """Return the row of an epoch, whose loss may be missing."""
    loss = f"{epoch['test_loss']:.4g}" if "test_loss" in epoch else ""
    tested = [measures.of(column).text(epoch[column]) for column in columns]
    return [label, *tested, epoch["epoch"], loss, epoch["test_count"]]


def _details(content: dict[str, Any], fields: dict[str, Any]) -> list[Table]:
    versions = content.get("versions", {}) | {"python": content.get("python", "")}
    return [
        ("Config", ["field", "value"], [(name, value_text(value, " ")) for name, value in fields.items()]),
        ("Versions", ["package", "version"], list(versions.items())),
    ]
