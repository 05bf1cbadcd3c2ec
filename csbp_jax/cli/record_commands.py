"""The commands on what runs have recorded: a dataclass with the options of each, and the function that runs it.

The functions that do the work are imported late; see commands.py.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from csbp_jax.cli.option_types import (
    Control,
    Count,
    Flag,
    Margin,
    Name,
    OptionalPath,
    RequiredName,
    Runs,
    RunsOrSweep,
    Seed,
    SeriesFile,
)
from csbp_jax.cli.options import read_paths
from csbp_jax.config import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare finished runs: accuracies, fields that differ in their configs, differences paired over seeds."""

    runs: Runs = ()
    """directories of runs"""
    control: Control = None
    margin: Margin = None


def compare(argv: Sequence[str]) -> None:
    """Run ``csbp_jax compare``."""
    options = read_paths("compare", Compare, argv)
    from csbp_jax.evaluation import compare

    compare.compare(options.runs, control=options.control, margin=options.margin)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write runs, or a sweep, as one self-contained HTML page."""

    runs: RunsOrSweep = ()
    """directories of runs, or of one sweep"""
    control: Control = None
    margin: Margin = None
    out: OptionalPath = None
    """output file; by default RUN/report.html"""


def report(argv: Sequence[str]) -> None:
    """Run ``csbp_jax report``."""
    options = read_paths("report", Report, argv)
    from csbp_jax.evaluation import html_report

    print(html_report.write(options.runs, options.out, control=options.control, margin=options.margin))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Measure chaos in a recorded series, such as a loss: 0-1 test, permutation entropy, surrogates (docs/lab.md)."""

    source: SeriesFile
    column: Name = None
    """name of the column, or of the metric, such as train/task_loss; by default the only one, or the loss"""
    skip: int = 0
    """number of first values to leave out, such as a transient"""
    every: Count = 1
    """keep every N-th of the remaining values"""
    difference: Flag = False
    """take differences of these values, which removes a drift"""
    seed: Seed = 0
    """random seed of frequencies and surrogates"""
    out: OptionalPath = None
    """also write all numbers to this JSON file"""


def series(argv: Sequence[str]) -> None:
    """Run ``csbp_jax series``."""
    options = read_paths("series", Series, argv)
    from csbp_jax.evaluation import outputs, recorded
    from csbp_jax.runtime.files import write_json

    if options.out:
        outputs.check_file(options.out)
    column = recorded.read(options.source, options.column, options.skip)
    values = column.values[:: options.every]
    try:
        measured = recorded.measure(np.diff(values) if options.difference else values, options.seed)
    except ValueError as error:
        raise ConfigError(f"{options.source}: column {column.name}: {error}") from None
    recorded.report(column.name, measured, options.every)
    if options.out:
        chosen = {**dataclasses.asdict(options), "column": column.name}
        word, _ = recorded.reading(measured)
        write_json(options.out, {"options": chosen, "measures": measured, "reading": word})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Write the metrics of runs as TensorBoard events, to RUN/tensorboard (docs/scale.md)."""

    runs: Runs = ()
    """directories of runs"""
    follow: Flag = False
    """continue with new metrics until the runs are finished"""


def tensorboard(argv: Sequence[str]) -> None:
    """Run ``csbp_jax tensorboard``."""
    options = read_paths("tensorboard", TensorBoard, argv)
    if not options.runs:
        raise ConfigError("RUN: missing; write csbp_jax tensorboard RUN ...")
    from csbp_jax.evaluation import tensorboard

    for folder in tensorboard.write(options.runs, options.follow):
        print(folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """Log the config and metrics of runs to an experiment tracker; the same command continues (docs/scale.md)."""

    runs: Runs = ()
    """directories of runs"""
    to: Literal["wandb", "mlflow", "trackio"] = "wandb"
    """the tracker, whose package must be installed"""
    project: RequiredName = "csbp_jax"
    """project in the tracker (MLflow: experiment)"""
    follow: Flag = False
    """continue with new metrics until the runs are finished"""


def track(argv: Sequence[str]) -> None:
    """Run ``csbp_jax track``."""
    options = read_paths("track", Track, argv)
    if not options.runs:
        raise ConfigError("RUN: missing; write csbp_jax track RUN ... --to TRACKER")
    from csbp_jax.evaluation import trackers

    for address in trackers.track(options.runs, options.to, options.project, options.follow):
        print(address)
