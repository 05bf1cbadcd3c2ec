"""The options of the commands on what runs have recorded, a dataclass each."""

import dataclasses
from typing import Literal

from csbp_jax.cli import option_types as option


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
