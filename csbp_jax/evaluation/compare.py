"""Comparison of finished runs: tests of their settings, and differences from a control, paired over seeds."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from csbp_jax.config import ConfigError
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import fields_text
from csbp_jax.reporting.measures import MEASURES
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runs.contrast import Contrast
from csbp_jax.runs.reading import CURVES, TABLE
from csbp_jax.runs.run import Run, read_finished
from csbp_jax.runs.table import TERM, RunTable, plain_controls
from csbp_jax.runtime import files

EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation"}
"""Kinds of weights whose tests are compared, with their labels."""

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
"""Title, columns and rows."""

Pairs = Sequence[tuple[str, str]]
"""Arms, each with its control."""


class Comparison(NamedTuple):
    """Runs, the differences of their arms from their controls by each of :data:`EPOCHS`, and what weakens these."""

    table: RunTable
    contrasts: list[Contrast]
    notes: list[str]


def read_with_control(
    runs: Sequence[str | pathlib.Path], control: str | pathlib.Path | None, unfinished: bool = False
) -> tuple[list[Run], Run | None]:
    """Read runs, with their control as the first if it is not among them; return also the control by itself.

    All but the control may be ``unfinished``.

    Raises:
      ConfigError: see :func:`csbp_jax.runs.run.read_finished`.
    """
    folders, named = [pathlib.Path(run) for run in runs], None
    if control is not None:
        path = pathlib.Path(control)
        named = next((folder for folder in folders if folder.resolve() == path.resolve()), path)
        folders = folders if named in folders else [named, *folders]
    read = [Run.read(folder) for folder in folders] if unfinished else read_finished(folders)
    return read, read_finished([named])[0] if named else None


def controls(table: RunTable, control: str | Run | None = None) -> Pairs:
    """Return the arms that have a control, each with its control.

    Args:
      table: of the runs.
      control: an arm, or a run, whose arm is the control of all others. By default, the control of an arm is the one
        that is equal but for its chaos term, which is off (:func:`csbp_jax.runs.table.plain_controls`); if no arm has
        such a control, it is the first arm.

    Raises:
      ConfigError: there is no such arm.
    """
    if isinstance(control, Run):
        control = str(table.where(run=str(control.folder)).frame["arm"].iloc[0])
    if control is None:
        if pairs := [(arm, plain) for arm, plain in plain_controls(table.of_arms()).items() if plain is not None]:
            return pairs
        control = table.arms[0]
    if control not in table.arms:
        raise ConfigError(f"--control: {control} is no arm of the experiment; its arms are {', '.join(table.arms)}")
    return [(arm, control) for arm in table.arms if arm != control]


def comparison(table: RunTable, pairs: Pairs, margin: float | None = None) -> Comparison:
    """Compare arms with their controls.

    Args:
      table: of the runs.
      pairs: of :func:`controls`.
      margin: largest difference without importance, in percentage points, or in the unit of another measure.
    """
    tested = [f"{kind}_test_{table.primary}" for kind in EPOCHS]
    compared = [measure for measure in tested if measure in table.measures] or list(table.measures[:1])
    contrasts = [table.contrast_pairs(pairs, measure=measure, margin=margin) for measure in compared]
    return Comparison(table, contrasts, list(_notes(table, pairs, contrasts[0])))


def _notes(table: RunTable, pairs: Pairs, compared: Contrast) -> Iterator[str]:
    """Yield what makes arms hard to compare: controls that cannot tell, other data, several causes, missing pairs."""
    yield from compared.notes
    if table.frame["case"].nunique() > 1:
        yield "not all runs were trained on the same data; each data set is compared by itself"
    of_arms = table.of_arms()
    for arm, other in pairs:
        differing = [field for field in table.fields if of_arms[arm][field] != of_arms[other][field]]
        if len(differing) > 1 and not all(field.startswith(TERM) for field in differing):
            yield f"{arm}: differs from {other} in {', '.join(differing)}; the difference may come from any of them"
        rows = compared.frame[(compared.frame["arm"] == arm) & (compared.frame["other"] == other)]
        if set(rows["verdict"]) <= {"no pairs"}:
            seeds = (", ".join(map(str, table.where(arm=name).frame["seed"])) for name in (arm, other))
            yield f"{arm}: its seeds and those of {other} ({'; '.join(seeds)}) make no pair on the same data"
    compared_arms = {arm for pair in pairs for arm in pair}
    for arm in table.arms:
        if arm not in compared_arms and len(table.arms) > 1 and of_arms[arm].get("chaos.z0", 1):
            yield f"{arm}: no run is its control, equal but for chaos.z0 0; no difference is given"


def of_runs(runs: Sequence[Run], control: Run | None = None, margin: float | None = None) -> Comparison:
    """Compare runs; arguments as of :func:`controls` and :func:`comparison`. Versions that differ are noted."""
    table, lines = RunTable.of(runs), []
    for name in dict.fromkeys(package for run in runs for package in run.content.get("versions", {})):
        versions = dict.fromkeys(str(run.content.get("versions", {}).get(name)) for run in runs)
        if len(versions) > 1:
            lines.append(f"versions of {name} differ: {', '.join(versions)}")
    compared = comparison(table, controls(table, control), margin)
    return compared._replace(notes=[*lines, *compared.notes])


def settings_table(table: RunTable) -> Table:
    """Return the table of settings, a row for each: its mean tests, with 95 % intervals."""
    cells, shown = table.cells(), MEASURES[table.primary]
    title = f"settings: mean test {shown.label} over seeds{', %' * shown.share} [95 % interval]"
    columns = [column.replace(f"test {shown.label}{shown.unit}", "epoch") for column in cells.columns]
    return title, columns, cells.to_numpy().tolist()


def runs_table(table: RunTable) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, a row for each run: its name, its tests with their epochs, fields that differ."""
    rows, text = [], MEASURES[table.primary].text
    for _, run in table.frame.iterrows():
        measured = [(run[f"{kind}_test_{table.primary}"], run[f"{kind}_epoch"]) for kind in EPOCHS]
        tests = [f"{text(value)} ({epoch})" if value == value else "" for value, epoch in measured]  # NaN: another task
        fields = fields_text({field: run[field] for field in ("seed", *table.fields)})
        rows.append([pathlib.Path(run["run"]).resolve().name, *tests, fields])
    return ["run", "last (epoch)", "chosen (epoch)", "seed, and what differs"], rows


def show(
    compared: Comparison, folder: pathlib.Path, console: Console | None = None, others: Sequence[Table] = ()
) -> None:
    """Print a comparison, the differences first; write it to a folder, and print the paths.

    FOLDER/runs.csv                     a row for each run
    FOLDER/differences.csv              the frames of the contrasts
    FOLDER/tables.tex                   the settings and the differences, for a paper
    FOLDER/comparison.png and .pdf      a point a run, pairs joined
    FOLDER/curves.png and .pdf          validation of each epoch, if it was recorded

    Args:
      compared: the comparison.
      folder: is created; of an experiment, it has its ``runs.csv``.
      console: the terminal by default.
      others: tables that are printed after that of the settings: titles, columns and rows, of which the last is text.
    """
    console = make_console() if console is None else console
    for of in compared.contrasts:
        for line in of.lines():
            label = EPOCHS.get(of.measure.removesuffix(f"_test_{compared.table.primary}"), of.measure)
            console.print(f"{label}: {line}", soft_wrap=True)
    for line in compared.notes:
        console.print(f"note: {line}", soft_wrap=True)
    terminal.print_table(console, *settings_table(compared.table))
    for table in others:
        # What differs is one column of text, which folds: there may be more fields than a terminal has room for.
        terminal.print_table(console, *table, last_text_columns=1)
    folder.mkdir(parents=True, exist_ok=True)
    differences = pd.concat([of.frame.assign(measure=of.measure) for of in compared.contrasts])
    tables = [compared.table, *(of for of in compared.contrasts if len(of.frame))]
    for name, text in {
        TABLE: compared.table.frame.to_csv(index=False),
        "differences.csv": differences.to_csv(index=False),
        "tables.tex": "\n".join(of.to_latex() for of in tables),
    }.items():
        files.write_bytes(folder / name, text.encode())
    compared.table.plot(file=folder / "comparison.png")
    curves = compared.table.plot_curves(file=folder / "curves.png")
    numbers = [TABLE, *([CURVES] if (folder / CURVES).exists() else []), "differences.csv", "tables.tex"]
    figures = ["comparison.png", *(["curves.png"] if curves else []), "and as .pdf"]
    console.print(f"numbers      {folder}: {', '.join(numbers)}", soft_wrap=True)
    console.print(f"figures      {folder}: {', '.join(figures)}", soft_wrap=True)


def compare(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    console: Console | None = None,
    *,
    control: str | pathlib.Path | None = None,
    margin: float | None = None,
    out: str | pathlib.Path | None = None,
) -> Comparison:
    """Compare finished runs, :func:`show` the comparison and return it.

    Args:
      runs: directories of runs; one is enough with a control.
      console: the terminal by default.
      control: directory of a run, which is compared as well, and whose setting is the control; see :func:`controls`.
      margin: largest difference without importance, in percentage points, or in the unit of another measure.
      out: folder of the files; by default ``comparison`` in the first run's folder, or in ``evaluation/RUN`` if that
        cannot be written.

    Raises:
      ConfigError: fewer than two runs, one is not finished, or two are the same.
    """
    finished, control_run = read_with_control(files.as_paths(runs), control)
    if len(finished) < 2:
        raise ConfigError("RUN: two or more are compared; write csbp_jax compare RUN RUN ...")
    compared = of_runs(finished, control_run, margin)
    folder = pathlib.Path(out) if out else output_folder(finished[0].folder, "comparison") / "comparison"
    title = f"runs: test {MEASURES[compared.table.primary].label}"
    show(compared, folder, console, [(title, *runs_table(compared.table))])
    return compared
