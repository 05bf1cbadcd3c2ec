"""Comparison of anybody's methods, by a CSV file with a row for each run."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from csbp_jax.config import ConfigError, suggestion
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.reporting import statistics, terminal
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runs import csv_file
from csbp_jax.runs.contrast import Contrast
from csbp_jax.runs.table import RunTable
from csbp_jax.runtime import files

Unit = Literal["points", "raw"]

_TRIES = {"try", "tries", "trial", "trials", "attempt", "attempts"}
"""Words of the name of a column that numbers or counts the settings that were tried."""


def contrast(
    file: str | pathlib.Path,
    *,
    arm: str | None = None,
    seed: str | None = None,
    measure: str | None = None,
    control: str | None = None,
    draw: str | None = None,
    margin: float | None = None,
    unit: Unit = "points",
    test: Literal["t", "welch", "signed-rank"] = "t",
    out: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> Contrast:
    """Compare each arm of a table of runs with a control, show the differences, and write them with a figure.

    The numbers are those of :meth:`csbp_jax.runs.RunTable.contrast` of :meth:`csbp_jax.runs.RunTable.read_csv`.

    FOLDER/differences.csv             the frame of the contrast
    FOLDER/tables.tex                  the arms and the differences, for a paper
    FOLDER/contrast.png and .pdf       a point a run, pairs joined

    Args:
      file: comma-separated, with a first line of names and a row for each run.
      arm, seed, draw: columns, as of ``read_csv``.
      measure: the column that is compared.
      control: the arm that all others are compared with.
      margin: largest difference without importance: in hundredths, or in the unit of the column if ``unit`` is "raw".
      unit: "points", of a column with shares from 0 to 1, or "raw".
      test: as of ``RunTable.contrast``.
      out: the folder; by default that of the file's name with "-contrast", beside the file.
      console: the terminal by default.

    Raises:
      ConfigError: the file is no table of runs, or has no such column or arm.
    """
    path, console = pathlib.Path(file), make_console() if console is None else console
    given = {"arm": arm, "seed": seed, "measure": measure, "control": control}
    for option, value in given.items():
        if not value:
            what = "name one of the arms" if option == "control" else "name one of its columns: "
            names = "" if option == "control" else ", ".join(csv_file.columns(path))
            raise ConfigError(f"--{option}: missing; {what}{names}")
    assert arm and seed and measure and control
    shares = (measure,) if unit == "points" else ()
    table = RunTable.read_csv(path, arm=arm, seed=seed, draw=draw, shares=())
    if measure not in table.measures:
        raise ConfigError(f"{path}: {csv_file.why_no_measure(path, measure)}")
    csv_file.check_shares(path, table.frame, shares)
    arms = list(dict.fromkeys(table.where(role="test").frame["arm"]))
    if control not in arms:
        raise ConfigError(f"--control: {path} has no arm {control!r}; {suggestion(control, arms)}")
    if len(arms) < 2:
        raise ConfigError(f"{path}: has no arm beside {control}; add the runs of the method that it is compared with")
    kept = tuple(name for name in (measure, "diverged") if name in table.measures)
    table = dataclasses.replace(table, measures=kept, shares=shares)
    pairs = [(name, control) for name in arms if name != control]
    compared = table.contrast_pairs(pairs, measure=measure, margin=margin, test=test)
    # Before the work is shown, so that a folder that cannot be written is refused first.
    folder = pathlib.Path(out) if out else output_folder(path.parent, f"{path.stem}-contrast") / f"{path.stem}-contrast"
    console.print(compared.heading(), style="bold", soft_wrap=True, markup=False)
    for line in compared.lines():
        console.print(line, soft_wrap=True, markup=False)
    for line in limits(path, table, compared):
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    cells = table.cells()
    terminal.print_table(console, "arms: means [95 % interval]", list(cells.columns), cells.to_numpy().tolist())
    folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(folder / "differences.csv", compared.frame.assign(measure=measure).to_csv(index=False).encode())
    files.write_bytes(folder / "tables.tex", f"{table.to_latex()}\n{compared.to_latex()}".encode())
    table.plot(file=folder / "contrast.png")
    console.print(f"written      {folder}: differences.csv, tables.tex, contrast.png and .pdf", soft_wrap=True)
    return compared


def limits(file: pathlib.Path, table: RunTable, compared: Contrast) -> Iterator[str]:
    """Yield what a table cannot support: too few seeds, unequal tries, epochs chosen on test, what nobody sealed."""
    of_test = table.where(role="test").frame
    seeds = of_test.groupby("arm", sort=False)["seed"].nunique()
    if single := list(seeds[seeds == 1].index):
        yield f"{', '.join(single)}: one seed; its spread is not known, and no difference can be decided"
    elif 0 < (fewest := int(compared.frame["pairs"].min())) < statistics.MIN_PAIRS:
        yield f"of {fewest} {compared.over}{'s' if fewest > 1 else ''} nothing is decided; three are the least"
    no_pairs = compared.frame[compared.frame["verdict"] == "no pairs"]
    for _, row in no_pairs.iterrows():
        yield f"{row['arm']} and {row['other']} have no seed in common; --test welch compares them without pairs"
    if not compared.shown.share:
        yield f"better means a larger {compared.measure}; where less is better, as of a loss, read worse as better"
    yield from _unequal_tries(file, table)
    yield from _chosen_on_test(file, compared.measure)
    yield (
        f"the numbers are those of {file.name}, which nothing seals: whether runs were left out, or methods tuned "
        "unequally, it does not show"
    )


def _unequal_tries(file: pathlib.Path, table: RunTable) -> Iterator[str]:
    """Yield that arms have other numbers of runs, or of tries if the table has a column of them."""
    tests, tuned = table.where(role="test").frame, table.where(role="tune").frame
    runs = tests["arm"].value_counts(sort=False)
    if runs.nunique() > 1:
        yield f"the arms have unequal numbers of runs: {_counts(runs.to_dict())}"
    if len(tuned):
        tries = tuned.groupby(["arm", "draw"], sort=False)["try"].nunique().groupby(level="arm", sort=False).max()
        counts = {arm: int(tries.get(arm, 0)) for arm in runs.index}
        if len(set(counts.values())) > 1:
            yield f"the arms had unequal numbers of tries: {_counts(counts)}; a gain may be one of tuning"
        return
    for name in csv_file.columns(file):
        if name in ("draw", "seed") or not _TRIES & set(re.split(r"[\W_]+", name.lower())):
            continue
        cells = tests.assign(cells=csv_file.read_text(file, name)).groupby("arm", sort=False)["cells"]
        values = {str(arm): tuple(sorted(set(of_arm))) for arm, of_arm in cells}
        if len(set(values.values())) > 1:
            shown = "; ".join(f"{arm} {', '.join(of_arm[:4])}" for arm, of_arm in values.items())
            yield f"column {name} differs between the arms ({shown}): with unequal tries a gain may be one of tuning"


def _counts(of: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in of.items())


def _chosen_on_test(file: pathlib.Path, measure: str) -> Iterator[str]:
    """Yield that the epoch was chosen by test data, where the name of the measure or the cells of a column say so."""
    words = set(re.split(r"[\W_]+", measure.lower()))
    best = words & {"best", "max", "maximum", "peak", "highest"}
    if best and not any(word.startswith("val") for word in words):
        yield (
            f"column {measure} seems to hold the {min(best)} epoch of each run; if test data chose it, it is too high, "
            "and the more so the more a method fluctuates; compare the last epoch, or one that validation chose"
        )
    for name in csv_file.columns(file):
        said = next((cell for cell in csv_file.read_text(file, name) if _says_best_on_test(cell)), None)
        if said is not None:
            yield f"column {name} says {said!r}: an epoch that test data chose is too high; compare the last epoch"


def _says_best_on_test(cell: str) -> bool:
    words = set(re.split(r"[\W_]+", cell.lower()))
    return "test" in words and bool(words & {"best", "max", "maximum", "peak", "highest"})
