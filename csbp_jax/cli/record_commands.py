"""The commands on what runs have recorded: a dataclass with the options of each, and the function that runs it.

The functions that do the work are imported late; see commands.py.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

from csbp_jax.cli import option_types as option
from csbp_jax.cli.options import read_paths
from csbp_jax.config import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare finished runs: accuracies, fields that differ in their configs, differences paired over seeds."""

    runs: option.Runs = ()
    control: option.Control = None
    margin: option.Margin = None
    out: option.OptionalPath = None
    """folder for the table, the differences and the figure; by default RUN/comparison"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write runs, or an experiment, as one self-contained HTML page."""

    runs: option.RunsOrExperiment = ()
    """directories of runs, or of one experiment"""
    control: option.Control = None
    margin: option.Margin = None
    out: option.OptionalPath = None
    """output file; by default RUN/report.html"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Measure chaos in a recorded series, such as a loss: 0-1 test, permutation entropy, surrogates (docs/lab.md)."""

    source: option.SeriesFile = ""
    column: option.Name = None
    """name of the column, or of the metric, such as train/task_loss; by default the only one, or the loss"""
    skip: option.Number = 0
    """number of first values to leave out, such as a transient"""
    every: option.Count = 1
    """keep every N-th of the remaining values"""
    difference: option.Flag = False
    """take differences of these values, which removes a drift"""
    seed: option.Seed = 0
    """random seed of frequencies and surrogates"""
    out: option.OptionalPath = None
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
        remedy = (
            "; train a run of another name (--name) with --log-every 1, which records every step"
            if os.path.isdir(options.source) and "short" in str(error)
            else ""
        )
        raise ConfigError(f"{options.source}: column {column.name}: {error}{remedy}") from None
    recorded.report(column.name, measured, options.every)
    if options.out:
        chosen = {**dataclasses.asdict(options), "column": column.name}
        word, _ = recorded.reading(measured)
        write_json(options.out, {"options": chosen, "measures": measured, "reading": word})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Write the metrics of runs as TensorBoard events, to RUN/tensorboard (docs/scale.md)."""

    runs: option.Runs = ()
    follow: option.Follow = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """Log the config and metrics of runs to an experiment tracker; the same command continues (docs/scale.md)."""

    runs: option.Runs = ()
    to: Literal["wandb", "mlflow", "trackio"] = "wandb"
    """the tracker, whose package must be installed"""
    project: option.RequiredName = "csbp_jax"
    """project in the tracker (MLflow: experiment)"""
    follow: option.Follow = False
