"""Results of a sweep as tables: by member, by member and epoch, by setting (seeds pooled)."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from csbp_jax.reporting.format import fields_text, percent, points, value_text
from csbp_jax.reporting.pairs import PairedDifference, difference_text, paired_difference
from csbp_jax.reporting.statistics import Interval, student_of_shares
from csbp_jax.runtime import files

Row = dict[str, Any]
# The accuracies of a member; never the best over test.
_ACCURACIES = ("chosen_test_accuracy", "last_test_accuracy", "chosen_validation_accuracy", "last_validation_accuracy")
SHOWN = {"last_test_accuracy": "last epoch", "chosen_test_accuracy": "chosen epoch"}
"""Accuracies in the tables for readers, with their headings."""


class Setting(NamedTuple):
    """Members that differ in the seed alone.

    point: ``{field: value}``, without the seed. accuracies: intervals over the members that did not diverge, by name.
    control: the fields of the setting that it is compared with, as text; None without a control. differences: of the
    test accuracies from those of the control, by name, over the seeds that diverged in neither.
    """

    point: dict[str, Any]
    members: int
    diverged: int
    accuracies: dict[str, Interval]
    control: str | None
    differences: dict[str, PairedDifference]


def plain(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point with tuples for JSON's lists, and numbers for tuples of one, as ``chaos.z0`` mostly is."""
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in point.items()}
    return {k: v[0] if isinstance(v, tuple) and len(v) == 1 else v for k, v in tuples.items()}


def member_rows(points: Sequence[Mapping[str, Any]], results: Sequence[Row]) -> list[Row]:
    """Return one row per member; without accuracies where it diverged."""
    rows = []
    for number, (point, result) in enumerate(zip(points, results, strict=True)):
        row = {"member": number, **point, "diverged": result["diverged"]}
        for kind in ("last", "chosen", *(["ema"] if "ema" in result else [])):
            report = result[kind] if result[kind] and not result["diverged"] else {}
            names = ("epoch", "validation_accuracy", "test_accuracy", "test_loss")
            row |= {f"{kind}_{name}": report.get(name) for name in names}
        rows.append(row)
    return rows


def epoch_rows(points: Sequence[Mapping[str, Any]], results: Sequence[Row]) -> list[Row]:
    """Return one row per member and epoch: losses, z of each tap, firing rate of each layer, accuracies."""
    rows = []
    for number, (point, result) in enumerate(zip(points, results, strict=True)):
        for epoch, measured in enumerate(result["epochs"], start=1):
            columns: Row = {}
            for name, value in measured.items():
                columns |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            rows.append({"member": number, **point, "epoch": epoch, **columns})
    return rows


def settings(
    points: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    controls: Sequence[int | None],
    margin: float | None = None,
) -> list[Setting]:
    """Return the members of each setting pooled, in the order of the grid, and compared with its control.

    Args:
      points: of the members.
      rows: of the members, from :func:`member_rows`.
      controls: number of each setting's control, from ``grid.controls``.
      margin: largest difference without importance, in percentage points, for the verdicts.
    """
    groups = list(grouped(points).items())
    pooled = []
    for (key, numbers), control in zip(groups, controls, strict=True):
        finite = [rows[number] for number in numbers if not rows[number]["diverged"]]
        accuracies = {name: student_of_shares([row[name] for row in finite]) for name in _ACCURACIES} if finite else {}
        differences = {}
        if control is not None:
            for name in SHOWN:
                values, of_control = (
                    {points[i].get("seed", 0): rows[i][name] for i in members if not rows[i]["diverged"]}
                    for members in (numbers, groups[control][1])
                )
                if paired := paired_difference(values, of_control, margin):
                    differences[name] = paired
        name_of_control = None if control is None else fields_text(dict(groups[control][0]))
        counts = len(numbers), len(numbers) - len(finite)
        pooled.append(Setting(dict(key), *counts, accuracies, name_of_control, differences))
    return pooled


def grouped(points: Sequence[Mapping[str, Any]]) -> dict[tuple[tuple[str, Any], ...], list[int]]:
    """Return the numbers of each setting's members, in the order of the grid: ``{items of its point: numbers}``."""
    groups: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for number, point in enumerate(points):
        groups.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(number)
    return groups


def best(settings: Sequence[Setting]) -> Setting | None:
    """Return the setting of largest mean validation accuracy (chosen epoch) among those without diverged members."""
    finite = [setting for setting in settings if not setting.diverged]
    return max(finite, key=lambda s: s.accuracies["chosen_validation_accuracy"].mean, default=None)


def write_csv(file: pathlib.Path, rows: Sequence[Row]) -> None:
    """Write a table atomically, with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with files.replacing(file) as temporary, open(temporary, "w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)


def flat(setting: Setting) -> Row:
    """Return a setting as a row."""
    row = {**setting.point, "members": setting.members, "diverged": setting.diverged}
    for name, interval in setting.accuracies.items():
        row |= {f"{name}_{end}": value for end, value in interval._asdict().items()}
    if setting.control is not None:
        row["control"] = setting.control
    for name, paired in setting.differences.items():
        row |= {f"{name}_difference_{end}": value for end, value in paired.difference._asdict().items()}
        row |= {f"{name}_pairs": paired.pairs, f"{name}_signed_rank_p": paired.p}
        row |= {f"{name}_verdict": paired.verdict} if paired.verdict else {}
    return row


def from_flat(row: Mapping[str, str], fields: Sequence[str]) -> Setting:
    """Return the setting of a row of ``settings.csv``; values of its point are text."""

    def interval(name: str) -> Interval:
        mean, *ends = (row.get(f"{name}_{end}") for end in Interval._fields)
        low, high = (float(end) if end else None for end in ends)
        return Interval(float(mean or "nan"), low, high)

    accuracies = {name: interval(name) for name in _ACCURACIES if row.get(f"{name}_mean")}
    differences = {
        name: PairedDifference(
            int(row[f"{name}_pairs"]),
            interval(f"{name}_difference"),
            float(row[f"{name}_signed_rank_p"]),
            row.get(f"{name}_verdict") or None,
        )
        for name in SHOWN
        if row.get(f"{name}_difference_mean")
    }
    point = {field: row[field] for field in fields}
    counts = int(row["members"]), int(row["diverged"])
    return Setting(point, *counts, accuracies, row.get("control") or None, differences)


def accuracy_cells(settings: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """Return columns and, per setting, cells: test accuracies in % with intervals, and number of finite members."""
    return [*SHOWN.values(), "members"], [[*_accuracies(setting), _members(setting)] for setting in settings]


def _accuracies(setting: Setting) -> list[str]:
    return [percent(setting.accuracies[name]) if setting.accuracies else "diverged" for name in SHOWN]


def _members(setting: Setting) -> str:
    finite = setting.members - setting.diverged
    return f"{finite} of {setting.members}" if setting.diverged else str(finite)


def difference_cells(settings: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """Return columns and, per setting with differences, cells: these in percentage points, and number of pairs."""
    rows = []
    for setting in settings:
        if setting.differences:
            pairs = str(setting.differences["last_test_accuracy"].pairs)
            rows.append([*(difference_text(setting.differences[name]) for name in SHOWN), pairs])
    return [*SHOWN.values(), "pairs"], rows


def latex(setting: Setting) -> str:
    """Format a row of a LaTeX table: point, count of finite members, last and chosen epoch in % with intervals."""
    point = ", ".join(f"\\texttt{{{k}}} = {value_text(v)}".replace("_", r"\_") for k, v in setting.point.items())
    return _latex_row(point or "as given", _members(setting), _accuracies(setting))


def latex_difference(setting: Setting) -> str:
    """Format a row of a LaTeX table: the setting's differences from its control, in percentage points."""
    differences = [setting.differences[name] for name in SHOWN]
    # Words stay outside of LaTeX's formulas, which would set them as products of letters.
    parts = [points(paired.difference).partition(" (") for paired in differences]
    cells = [f"${numbers}${space}{words}" for numbers, space, words in parts]
    return _latex_row("difference, paired", str(differences[0].pairs), cells)


def _latex_row(name: str, count: str, cells: Sequence[str]) -> str:
    return f"{name} & {count} & {' & '.join(cells)} \\\\"


def headings(fields: Sequence[str]) -> list[str]:
    """Return the shortest unique names of fields, with spaces so that they can wrap: ``surrogate param``."""
    # A tap's name has dots of its own.
    short = [f.removeprefix("chaos.") if f.startswith("chaos.z0.") else f.rpartition(".")[2] for f in fields]
    return [(s if short.count(s) == 1 else f).replace("_", " ") for s, f in zip(short, fields, strict=True)]
