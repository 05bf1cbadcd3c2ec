"""Results of a sweep as tables: by member, by member and epoch, by setting (seeds pooled)."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from csbp_jax.reporting.format import half_width, value_text
from csbp_jax.reporting.intervals import Interval, student
from csbp_jax.runtime import files

Row = dict[str, Any]
# The accuracies of a member; never the best over test.
_ACCURACIES = ("chosen_test_accuracy", "last_test_accuracy", "chosen_validation_accuracy", "last_validation_accuracy")


class Setting(NamedTuple):
    """Members that differ in the seed alone.

    point: ``{field: value}``, without the seed. accuracies: intervals over the members that did not diverge, by name.
    """

    point: dict[str, Any]
    members: int
    diverged: int
    accuracies: dict[str, Interval]


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


def settings(points: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[Setting]:
    """Return the members of each setting pooled, in the order of the grid."""
    groups: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for point, row in zip(points, rows, strict=True):
        groups.setdefault(tuple((k, v) for k, v in point.items() if k != "seed"), []).append(row)
    pooled = []
    for key, group in groups.items():
        finite = [row for row in group if not row["diverged"]]
        accuracies = {name: student([row[name] for row in finite]) for name in _ACCURACIES} if finite else {}
        pooled.append(Setting(dict(key), len(group), len(group) - len(finite), accuracies))
    return pooled


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
    return row


def latex(setting: Setting) -> str:
    """Format a row of a LaTeX table: point, count of finite members, last and chosen epoch in % with intervals."""
    point = ", ".join(f"\\texttt{{{k}}} = {value_text(v)}".replace("_", r"\_") for k, v in setting.point.items())
    of = f" of {setting.members}" if setting.diverged else ""
    intervals = [setting.accuracies.get(f"{kind}_test_accuracy") for kind in ("last", "chosen")]
    cells = [f"${half_width(i)}$".replace("±", r"\pm") if i else "diverged" for i in intervals]
    return f"{point or 'as given'} & {setting.members - setting.diverged}{of} & {' & '.join(cells)} \\\\"


def headings(fields: Sequence[str]) -> list[str]:
    """Return the shortest unique names of fields, with spaces so that they can wrap: ``surrogate param``."""
    # A tap's name has dots of its own.
    short = [f.removeprefix("chaos.") if f.startswith("chaos.z0.") else f.rpartition(".")[2] for f in fields]
    return [(s if short.count(s) == 1 else f).replace("_", " ") for s, f in zip(short, fields, strict=True)]
