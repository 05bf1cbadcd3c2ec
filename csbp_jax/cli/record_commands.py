"""The options of the commands on what runs have recorded, a dataclass each."""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import arg

from csbp_jax.cli import option_types as option
from csbp_jax.ranges import ABOVE_0

Column = Annotated[str | None, arg(metavar="COLUMN")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare finished runs: accuracies, fields that differ in their configs, differences paired over seeds."""

    runs: option.Runs = ()
    control: option.Control = None
    margin: option.Margin = None
    out: option.OptionalPath = None
    """folder for the table, the differences and the figure; by default RUN/comparison"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """Compare methods by a table of anybody's runs: differences from a control, with intervals and verdicts."""

    file: option.Table = ""
    arm: Column = None
    """column with the name of the method"""
    seed: Column = None
    """column by which runs of two methods make a pair"""
    draw: Column = None
    """column of what several seeds belong to, such as a draw of settings, which then makes the pairs"""
    measure: Column = None
    """column that is compared"""
    control: Annotated[str | None, arg(metavar="NAME")] = None
    """the method that all others are compared with"""
    margin: Annotated[float | None, ABOVE_0, arg(metavar="POINTS")] = None
    """largest difference without importance, in hundredths: 0.5 for half a percentage point; with --unit raw, in the
    unit of the column"""
    unit: Literal["points", "raw"] = "points"
    """points: the column has shares from 0 to 1; raw: it has another unit, such as percent or a loss"""
    test: Literal["t", "welch", "signed-rank"] = "t"
    """Student's of pairs; Welch's, where equal seeds of two methods have nothing in common; Wilcoxon's of pairs"""
    out: option.OptionalPath = None
    """folder for the differences and the figure; by default beside the file, FILE-contrast"""


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
