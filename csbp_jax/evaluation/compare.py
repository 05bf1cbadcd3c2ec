"""Comparison of finished runs: differing fields of their configs, accuracies, and paired differences over seeds."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from csbp_jax.config import ConfigError, escaped, flatten
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import fields_text, option_text, percent
from csbp_jax.reporting.pairs import TERM, PairedDifference, difference_text, is_plain, paired_difference, plain_control
from csbp_jax.reporting.statistics import Interval, student_of_shares
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime.files import as_paths
from csbp_jax.training import run_json

EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation"}
"""Epochs whose accuracies are compared, keys of ``result.json``, with their labels."""

_WITHOUT_EFFECT = {"log_every", "checkpoint_every", "data.workers", "data.threads"}
"""Fields of a config that change no result."""


class FinishedRun(NamedTuple):
    """Files of a finished run.

    content: its ``config.json``; fields: the config flattened, ``{"chaos.z0": ...}``, and :func:`own_field`;
    result: its ``result.json``.
    """

    folder: pathlib.Path
    content: dict[str, Any]
    fields: dict[str, Any]
    result: dict[str, Any]


class Setting(NamedTuple):
    """Runs that differ only in the seed, and in fields that change no result.

    label: the fields in which settings differ, or the run's name if none does.
    plain: whether its ``chaos.z0`` is 0.
    accuracies: test accuracy over the runs, of the "last" and the "chosen" epoch.
    control: label of the setting that it is compared with; None without a control.
    differences: from the control, paired over shared seeds; empty without such seeds.
    """

    label: str
    seeds: list[int]
    plain: bool
    accuracies: dict[str, Interval]
    control: str | None
    differences: dict[str, PairedDifference]


class Group(NamedTuple):
    """Runs of one setting.

    label: that of :class:`Setting`. runs: by their seeds. control: number of the setting that is its control, or None.
    """

    label: str
    runs: dict[int, FinishedRun]
    control: int | None


def read(run: str | pathlib.Path) -> FinishedRun:
    """Read the files of a finished run, except its weights.

    Raises:
      ConfigError: not a run's folder, or the run is not finished.
    """
    folder = pathlib.Path(run)
    of_sweep = f"whose settings are compared in its own tables (csbp_jax report {folder})"
    content = run_json.read_run(folder, of_sweep)
    if not (folder / "result.json").exists():
        raise ConfigError(
            f"{folder}: is not finished; repeat the command that started it to resume it or, if it diverged, leave it "
            "out and say so"
        )
    fields = flatten(content["config"]) | own_field(content.get("own", {}))
    return FinishedRun(folder, content, fields, run_json.read_result(folder))


def own_field(own: dict[str, Any]) -> dict[str, str]:
    """Return ``{"own": PARTS and the start of their file's hash}`` of a run with code of its own, else nothing.

    own: as in ``config.json`` (:meth:`csbp_jax.training.plugins.Own.metadata`).
    """
    return {"own": " ".join([*own["parts"], own.get("sha256", "")[:8]]).rstrip()} if own else {}


def read_with_control(
    runs: Sequence[str | pathlib.Path], control: str | pathlib.Path | None
) -> tuple[list[FinishedRun], FinishedRun | None]:
    """Read finished runs, with their control as the first if it is not among them; return also the control by itself.

    Raises:
      ConfigError: see :func:`read`.
    """
    folders = [pathlib.Path(run) for run in runs]
    if control is None:
        return [read(folder) for folder in folders], None
    of_control = pathlib.Path(control).resolve()
    if of_control not in [folder.resolve() for folder in folders]:
        folders.insert(0, pathlib.Path(control))
    finished = [read(folder) for folder in folders]
    return finished, next(run for run in finished if run.folder.resolve() == of_control)


def differing_fields(runs: Sequence[FinishedRun]) -> list[str]:
    """List the fields in which the configs differ, in their order, but for those that change no result.

    A field that the version of one run did not have counts as None.
    """
    names = dict.fromkeys(name for run in runs for name in run.fields if name not in _WITHOUT_EFFECT)
    return [name for name in names if any(run.fields.get(name) != runs[0].fields.get(name) for run in runs)]


def settings(
    runs: Sequence[FinishedRun], control: FinishedRun | None = None, margin: float | None = None
) -> list[Setting]:
    """Group runs into settings, in the order of their first runs, and compare each with its control.

    Args:
      runs: the runs.
      control: one of them, whose setting is the control of all others. By default, the control of a setting is the one
        that is equal but for ``chaos.z0`` 0; if no setting has such a control, it is that of the first run.
      margin: largest difference without importance, in percentage points, for the verdicts.

    Raises:
      ConfigError: a run is named twice, or two runs of one setting have the same seed.
    """
    groups = group(runs, control)
    compared = []
    for setting in groups:
        of = None if setting.control is None else groups[setting.control]
        by_epoch = {epoch: {seed: _accuracy(run, epoch) for seed, run in setting.runs.items()} for epoch in EPOCHS}
        differences = {}
        if of is not None and same_data(runs):
            for epoch, values in by_epoch.items():
                of_control = {seed: _accuracy(run, epoch) for seed, run in of.runs.items()}
                if paired := paired_difference(values, of_control, margin):
                    differences[epoch] = paired
        accuracies = {epoch: student_of_shares(list(values.values())) for epoch, values in by_epoch.items()}
        plain = is_plain(next(iter(setting.runs.values())).fields)
        label = None if of is None else of.label
        compared.append(Setting(setting.label, sorted(setting.runs), plain, accuracies, label, differences))
    return compared


def group(runs: Sequence[FinishedRun], control: FinishedRun | None = None) -> list[Group]:
    """Group runs into settings, in the order of their first runs, and find the control of each.

    Args, and the errors: those of :func:`settings`.
    """
    differing = [name for name in differing_fields(runs) if name != "seed"]
    groups: dict[tuple[str, ...], dict[int, FinishedRun]] = {}
    for run in runs:
        members = groups.setdefault(_values(run, differing), {})
        if (duplicate := members.setdefault(run.fields["seed"], run)) is not run:
            raise ConfigError(
                f"{run.folder}: has the seed of {duplicate.folder}, and differs in no field that can change a result; "
                "name one of them"
            )
    labels = [_label(next(iter(members.values())), differing) for members in groups.values()]
    by_setting = list(groups.values())
    named = None if control is None else list(groups).index(_values(control, differing))
    controls = _controls(by_setting, differing, named)
    return [Group(*fields) for fields in zip(labels, by_setting, controls, strict=True)]


def _label(run: FinishedRun, differing: Sequence[str]) -> str:
    """Return the name of a run's setting: its values of the fields that differ; of a single setting, the run's name."""
    return fields_text(dict(zip(differing, _values(run, differing), strict=True))) or run.folder.resolve().name


def _values(run: FinishedRun, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(option_text(run.fields.get(name)) for name in names)


def _controls(
    groups: Sequence[dict[int, FinishedRun]], differing: Sequence[str], control: int | None
) -> list[int | None]:
    """Return the number of each setting's control.

    Args:
      groups: the runs of each setting.
      differing: the fields in which the settings differ.
      control: number of the setting that is the control of all others, if one is named.
    """
    if control is None:
        first_runs = [next(iter(group.values())) for group in groups]
        fields = [{name: run.fields.get(name) for name in (*differing, "chaos.z0")} for run in first_runs]
        plain = [plain_control(number, fields) for number in range(len(groups))]
        if any(number is not None for number in plain):
            return plain
        control = 0
    return [None if number == control else control for number in range(len(groups))]


def warnings(runs: Sequence[FinishedRun], compared: Sequence[Setting]) -> list[str]:
    """List what makes the runs hard to compare: different data or versions of packages, missing controls and pairs."""
    lines = [] if same_data(runs) else ["not all runs were trained on the same data; no paired differences are given"]
    for name in dict.fromkeys(package for run in runs for package in run.content.get("versions", {})):
        versions = [run.content.get("versions", {}).get(name) for run in runs]
        if len(set(versions)) > 1:
            lines.append(f"versions of {name} differ: {', '.join(dict.fromkeys(map(str, versions)))}")
    controls = {setting.control for setting in compared}
    differing = [name for name in differing_fields(runs) if name != "seed"]
    fields = {_label(run, differing): dict(zip(differing, _values(run, differing), strict=True)) for run in runs}
    for setting in compared:
        if setting.differences:
            of_setting, of_control_setting = fields[setting.label], fields[setting.control or ""]
            names = [name for name in differing if of_setting[name] != of_control_setting[name]]
            if len(names) > 1 and not all(name.startswith(TERM) for name in names):
                lines.append(
                    f"{setting.label}: differs from {setting.control} in {', '.join(names)}; the difference in "
                    "accuracy may come from any of them"
                )
        if setting.control is None and not setting.plain and setting.label not in controls and len(compared) > 1:
            lines.append(f"{setting.label}: no run is its control, equal but for chaos.z0 0; no difference is given")
        elif setting.control is not None and not setting.differences and same_data(runs):
            (control,) = [other for other in compared if other.label == setting.control]
            seeds, of_control = (", ".join(map(str, s.seeds)) for s in (setting, control))
            lines.append(
                f"{setting.label}: its seeds ({seeds}) and those of its control ({of_control}) have none in common; "
                "no paired difference is given"
            )
    return lines


def same_data(runs: Sequence[FinishedRun]) -> bool:
    """Return whether all runs were trained on the same data."""
    return len({run.content.get("data") for run in runs}) == 1


def _accuracy(run: FinishedRun, epoch: str) -> float:
    return float(run.result[epoch]["test_accuracy"])


def run_table(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, one row per run: its name, test accuracies with their epochs, fields that differ."""
    differing = differing_fields(runs)
    rows = []
    for run in runs:
        accuracies = [f"{_accuracy(run, epoch):.2%} ({run.result[epoch]['epoch']})" for epoch in EPOCHS]
        rows.append([run.folder.resolve().name, *accuracies, *_values(run, differing)])
    return ["run", "last (epoch)", "chosen (epoch)", *differing], rows


def setting_tables(compared: Sequence[Setting]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, columns and rows of two tables, means and paired differences; none for a single setting."""
    columns = ["last epoch", "chosen epoch"]
    means = [[s.label, *map(percent, s.accuracies.values()), str(len(s.seeds))] for s in compared]
    differences = []
    for s in compared:
        if s.differences:
            texts = [difference_text(paired) for paired in s.differences.values()]
            differences.append([s.label, *texts, str(s.differences["last"].pairs)])
    tables = [("settings: mean test accuracy over seeds, % [95 % interval]", ["setting", *columns, "seeds"], means)]
    controls = {s.control for s in compared if s.differences}
    name = controls.pop() if len(controls) == 1 else "the control, which is equal but for chaos.z0 0"
    title = f"difference from {name}, paired over seeds, % points [95 % interval]"
    tables.append((title, ["setting", *columns, "pairs"], differences))
    return [table for table in tables if len(compared) > 1 and table[2]]


def compare(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    console: Console | None = None,
    *,
    control: str | pathlib.Path | None = None,
    margin: float | None = None,
) -> list[Setting]:
    """Print tables of finished runs and return their settings.

    Args:
      runs: directories of runs; one is enough with a control.
      console: the terminal by default.
      control: directory of a run, which is compared as well; see :func:`settings`.
      margin: see :func:`settings`.

    Raises:
      ConfigError: fewer than two runs, one is not finished, or two are the same.
    """
    console = make_console() if console is None else console
    finished, control_run = read_with_control(as_paths(runs), control)
    if len(finished) < 2:
        raise ConfigError("RUN: two or more are compared; write csbp_jax compare RUN RUN ...")
    compared = settings(finished, control_run, margin)
    columns, rows = run_table(finished)
    # As one column of text, which folds: some runs differ in more fields than a terminal has room for.
    texts = [fields_text(dict(zip(columns[3:], row[3:], strict=True))) for row in rows]
    rows = [[*row[:3], text] for row, text in zip(rows, texts, strict=True)]
    title = "runs: test accuracy, and what differs"
    terminal.print_table(console, title, [*columns[:3], "differs"], rows, last_text_columns=1)
    for table in setting_tables(compared):
        terminal.print_table(console, *table)
    for line in warnings(finished, compared):
        console.print(f"note: {escaped(line)}", soft_wrap=True)
    return compared
