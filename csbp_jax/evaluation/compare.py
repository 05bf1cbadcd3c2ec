"""Finished runs side by side: what differs in their configs, their accuracies, and paired differences over seeds."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from csbp_jax.config import ConfigError
from csbp_jax.reporting import terminal
from csbp_jax.reporting.intervals import Interval, student
from csbp_jax.sweep.tables import percent
from csbp_jax.training import run_dir

PARTS = {"last": "last epoch", "chosen": "epoch chosen by validation"}


class Finished(NamedTuple):
    """about: its ``config.json``; fields: the config flat, ``{"chaos.z0": ...}``; result: its ``result.json``."""

    folder: pathlib.Path
    about: dict[str, Any]
    fields: dict[str, Any]
    result: dict[str, Any]


class Setting(NamedTuple):
    """Runs that differ in nothing but the seed.

    label: the fields in which settings differ, or the run's name where none does.
    accuracies: test accuracy over the runs, of the "last" and the "chosen" epoch.
    pairs: how many seeds it shares with the first setting; differences: of its accuracies minus the first one's over
    those seeds, empty where there are none, and for the first itself.
    """

    label: str
    seeds: list[int]
    accuracies: dict[str, Interval]
    pairs: int
    differences: dict[str, Interval]


def read(run: str | pathlib.Path) -> Finished:
    """A finished run; its weights are not touched.

    Raises:
      ConfigError: no run's folder, or one that is not finished.
    """
    folder = pathlib.Path(run)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: is no run's folder, it has no config.json; name one such as runs/NAME")
    about = run_dir.read_json(folder / "config.json", "config")
    if "grid" in about["config"]:
        raise ConfigError(
            f"{folder}: is a sweep; its settings are compared in its own tables (csbp_jax report {folder})"
        )
    if not (folder / "result.json").exists():
        raise ConfigError(f"{folder}: is not finished; the command that began it goes on")
    return Finished(folder, about, flat(about["config"]), run_dir.read_result(folder))


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their names on the command line."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields


def text(value: Any) -> str:
    """A value of a config as one would type it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def differences(runs: Sequence[Finished]) -> list[str]:
    """The fields in which the configs differ, in their order; one that another version had not is None there."""
    names = dict.fromkeys(name for run in runs for name in run.fields)
    return [name for name in names if any(run.fields.get(name) != runs[0].fields.get(name) for run in runs)]


def settings(runs: Sequence[Finished]) -> list[Setting]:
    """The settings of runs, in the order of their first ones; each compared with the first.

    Raises:
      ConfigError: a run is named twice, or two runs of one setting have the same seed.
    """
    differing = [name for name in differences(runs) if name != "seed"]
    groups: dict[tuple[str, ...], dict[int, Finished]] = {}
    for run in runs:
        group = groups.setdefault(tuple(text(run.fields.get(name)) for name in differing), {})
        if (twin := group.setdefault(run.fields["seed"], run)) is not run:
            raise ConfigError(f"{run.folder}: has the config and seed of {twin.folder}; name one of them")
    first = next(iter(groups.values()))
    found = []
    for values, group in groups.items():
        label = ", ".join(f"{name} {value}" for name, value in zip(differing, values, strict=True))
        shared = [] if group is first or not _same_data(runs) else sorted(set(group) & set(first))
        apart = {p: student([_accuracy(group[s], p) - _accuracy(first[s], p) for s in shared]) for p in PARTS if shared}
        accuracies = {part: student([_accuracy(run, part) for run in group.values()]) for part in PARTS}
        found.append(Setting(label or runs[0].folder.name, sorted(group), accuracies, len(shared), apart))
    return found


def warnings(runs: Sequence[Finished]) -> list[str]:
    """What makes the runs hard to compare."""
    told = [] if _same_data(runs) else ["not all were trained on the same data; there are no paired differences"]
    for name in dict.fromkeys(package for run in runs for package in run.about.get("versions", {})):
        versions = [run.about.get("versions", {}).get(name) for run in runs]
        if len(set(versions)) > 1:
            told.append(f"versions of {name} differ: {', '.join(dict.fromkeys(map(str, versions)))}")
    return told


def _same_data(runs):
    return len({run.about.get("data") for run in runs}) == 1


def _accuracy(run, part):
    return run.result[part]["test_accuracy"]


def run_table(runs: Sequence[Finished]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a run each, the fields that differ, and test accuracies with the epoch that they are of."""
    differing = differences(runs)
    rows = []
    for run in runs:
        ends = [f"{run.result[p]['test_accuracy']:.2%} ({run.result[p]['epoch']})" for p in PARTS]
        rows.append([run.folder.name, *(text(run.fields.get(name)) for name in differing), *ends])
    return ["run", *differing, "last (epoch)", "chosen (epoch)"], rows


def setting_tables(found: Sequence[Setting]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of two tables, a row a setting: means, and paired differences; none of one setting."""
    columns = [PARTS[part] for part in PARTS]
    means = [[s.label, str(len(s.seeds)), *map(percent, s.accuracies.values())] for s in found]
    apart = [[s.label, str(s.pairs), *map(percent, s.differences.values())] for s in found if s.pairs]
    tables = [("settings: mean test accuracy over seeds, % [95 % t-interval]", ["setting", "seeds", *columns], means)]
    title = f"difference to {found[0].label} over shared seeds, % [95 % t-interval]"
    return [table for table in [*tables, (title, ["setting", "pairs", *columns], apart)] if len(found) > 1 and table[2]]


def compare(runs: Sequence[str | pathlib.Path], console: terminal.Console | None = None) -> list[Setting]:
    """Shows finished runs side by side and returns their settings.

    Raises:
      ConfigError: fewer than two runs, one is not finished, or two are the same.
    """
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    if len(runs) < 2:
        raise ConfigError("RUN: two or more are compared; write csbp_jax compare RUN RUN ...")
    read_runs = [read(run) for run in runs]
    found = settings(read_runs)
    terminal.print_table(console, "runs: test accuracy, and what differs in their configs", *run_table(read_runs))
    for table in setting_tables(found):
        terminal.print_table(console, *table)
    for told in warnings(read_runs):
        console.print(f"note: {told}", soft_wrap=True)
    return found
