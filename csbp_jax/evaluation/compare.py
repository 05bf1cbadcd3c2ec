"""Comparison of finished runs: differing fields of their configs, accuracies, and paired differences over seeds."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from csbp_jax.config import ConfigError, flatten_json
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import option_text, percent
from csbp_jax.reporting.intervals import Interval, student
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.training import run_json

EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation"}
"""Epochs whose accuracies are compared, keys of ``result.json``, with their labels."""


class FinishedRun(NamedTuple):
    """Files of a finished run.

    content: its ``config.json``; fields: the config flattened, ``{"chaos.z0": ...}``; result: its ``result.json``.
    """

    folder: pathlib.Path
    content: dict[str, Any]
    fields: dict[str, Any]
    result: dict[str, Any]


class Setting(NamedTuple):
    """Runs that differ only in the seed.

    label: the fields in which settings differ, or the run's name if none does.
    accuracies: test accuracy over the runs, of the "last" and the "chosen" epoch.
    pairs: number of seeds shared with the first setting.
    differences: accuracies minus those of the first setting over these seeds; empty without such seeds, and for the
    first setting itself.
    """

    label: str
    seeds: list[int]
    accuracies: dict[str, Interval]
    pairs: int
    differences: dict[str, Interval]


def read(run: str | pathlib.Path) -> FinishedRun:
    """Read the files of a finished run, except its weights.

    Raises:
      ConfigError: not a run's folder, or the run is not finished.
    """
    folder = pathlib.Path(run)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: is not a run's folder, it has no config.json; name one such as runs/NAME")
    content = run_json.read_config(folder, run_json.REPAIR)
    if "grid" in content["config"]:
        raise ConfigError(
            f"{folder}: is a sweep; its settings are compared in its own tables (csbp_jax report {folder})"
        )
    if not (folder / "result.json").exists():
        raise ConfigError(f"{folder}: is not finished; repeat the command that started it to resume it")
    return FinishedRun(folder, content, flatten_json(content["config"]), run_json.read_result(folder))


def differing_fields(runs: Sequence[FinishedRun]) -> list[str]:
    """List the fields in which the configs differ, in their order.

    A field that the version of one run did not have counts as None.
    """
    names = dict.fromkeys(name for run in runs for name in run.fields)
    return [name for name in names if any(run.fields.get(name) != runs[0].fields.get(name) for run in runs)]


def settings(runs: Sequence[FinishedRun]) -> list[Setting]:
    """Group runs into settings, in the order of their first runs, and compare each with the first.

    Raises:
      ConfigError: a run is named twice, or two runs of one setting have the same seed.
    """
    differing = [name for name in differing_fields(runs) if name != "seed"]
    groups: dict[tuple[str, ...], dict[int, FinishedRun]] = {}
    for run in runs:
        group = groups.setdefault(tuple(option_text(run.fields.get(name)) for name in differing), {})
        if (duplicate := group.setdefault(run.fields["seed"], run)) is not run:
            raise ConfigError(f"{run.folder}: has the config and seed of {duplicate.folder}; name one of them")
    first = next(iter(groups.values()))
    compared = []
    for values, group in groups.items():
        label = ", ".join(f"{name} {value}" for name, value in zip(differing, values, strict=True))
        shared = [] if group is first or not _same_data(runs) else sorted(set(group) & set(first))
        accuracies, differences = {}, {}
        for epoch in EPOCHS:
            accuracies[epoch] = student([_accuracy(run, epoch) for run in group.values()])
            if shared:
                differences[epoch] = student([_accuracy(group[s], epoch) - _accuracy(first[s], epoch) for s in shared])
        compared.append(Setting(label or runs[0].folder.name, sorted(group), accuracies, len(shared), differences))
    return compared


def warnings(runs: Sequence[FinishedRun]) -> list[str]:
    """List what makes the runs hard to compare: different data, different versions of packages."""
    lines = [] if _same_data(runs) else ["not all runs were trained on the same data; no paired differences are given"]
    for name in dict.fromkeys(package for run in runs for package in run.content.get("versions", {})):
        versions = [run.content.get("versions", {}).get(name) for run in runs]
        if len(set(versions)) > 1:
            lines.append(f"versions of {name} differ: {', '.join(dict.fromkeys(map(str, versions)))}")
    return lines


def _same_data(runs: Sequence[FinishedRun]) -> bool:
    return len({run.content.get("data") for run in runs}) == 1


def _accuracy(run: FinishedRun, epoch: str) -> float:
    return float(run.result[epoch]["test_accuracy"])


def run_table(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, one row per run: the fields that differ, and test accuracies with their epochs."""
    differing = differing_fields(runs)
    rows = []
    for run in runs:
        accuracies = [f"{_accuracy(run, epoch):.2%} ({run.result[epoch]['epoch']})" for epoch in EPOCHS]
        rows.append([run.folder.name, *(option_text(run.fields.get(name)) for name in differing), *accuracies])
    return ["run", *differing, "last (epoch)", "chosen (epoch)"], rows


def setting_tables(compared: Sequence[Setting]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, columns and rows of two tables, means and paired differences; none for a single setting."""
    columns = list(EPOCHS.values())
    means = [[s.label, str(len(s.seeds)), *map(percent, s.accuracies.values())] for s in compared]
    differences = [[s.label, str(s.pairs), *map(percent, s.differences.values())] for s in compared if s.pairs]
    tables = [("settings: mean test accuracy over seeds, % [95 % t-interval]", ["setting", "seeds", *columns], means)]
    title = f"difference from {compared[0].label} over shared seeds, % [95 % t-interval]"
    tables.append((title, ["setting", "pairs", *columns], differences))
    return [table for table in tables if len(compared) > 1 and table[2]]


def compare(runs: Sequence[str | pathlib.Path], console: Console | None = None) -> list[Setting]:
    """Print tables of finished runs and return their settings.

    Raises:
      ConfigError: fewer than two runs, one is not finished, or two are the same.
    """
    console = make_console() if console is None else console
    if len(runs) < 2:
        raise ConfigError("RUN: two or more are compared; write csbp_jax compare RUN RUN ...")
    finished = [read(run) for run in runs]
    compared = settings(finished)
    terminal.print_table(console, "runs: test accuracy, and fields of their configs that differ", *run_table(finished))
    for table in setting_tables(compared):
        terminal.print_table(console, *table)
    for line in warnings(finished):
        console.print(f"note: {line}", soft_wrap=True)
    return compared
