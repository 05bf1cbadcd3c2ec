"""The commands on networks of runs: a dataclass with the options of each, and the function that runs it.

The functions that do the work are imported late: JAX takes a second to import, and wrong options need not wait for it.
"""

import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from csbp_jax import configs
from csbp_jax.cli import option_types as option
from csbp_jax.cli.options import OnData, is_given, read, read_paths
from csbp_jax.config import ConfigError, escaped, replaced

if TYPE_CHECKING:
    from csbp_jax.runs.restore import RestoredRun


def _show_network(run: str) -> None:
    """Print which network is used, where ``run`` is the name of one that ships."""
    from csbp_jax.weights import shipped

    if notice := shipped.notice(run):
        print("csbp_jax:", notice, file=sys.stderr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restore:
    """How the network of a run is restored."""

    weights_of: option.WeightsOf = "last"
    trust: option.Trust = False
    data_dir: option.DataDir = "data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoreWithSplit(Restore):
    """How the network of a run is restored, and the data for it."""

    split: option.Split = "test"
    data: option.MovedData = None


def _restored(run: str, options: RestoreWithSplit) -> "RestoredRun":
    _show_network(run)
    from csbp_jax.runs import restore

    return restore.restore(run, options.weights_of, trust=options.trust, data=options.data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(RestoreWithSplit):
    """Evaluate a run on one split of its data: per class, over time steps, confidence (docs/using.md).

    csbp_jax evaluate DATASET --weights FILE evaluates a PyTorch checkpoint instead, in float32 unless
    --model.precision is given (docs/weights.md).
    """

    run: option.Run = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateWeights(OnData):
    """Evaluate a PyTorch checkpoint, --weights FILE, on a data set (docs/weights.md)."""


def evaluate(argv: Sequence[str]) -> None:
    """Run ``csbp_jax evaluate``."""
    from csbp_jax.weights import shipped

    name = "".join(argv[:1])
    is_run = name in shipped.NAMES or os.path.exists(os.path.join(name, "config.json"))
    is_preset = configs.known(name) and not is_run
    if is_preset or is_given("--weights", argv):
        of_weights, config, own = read("evaluate", EvaluateWeights, argv)
        if own.parts:
            raise ConfigError(f"{own.label}: has parts of your own; evaluate takes a run of it: csbp_jax evaluate RUN")
        if config.model.precision != "float32" and not is_given("--model.precision", argv):
            print(
                f"csbp_jax: model.precision: float32, as in the original code; for the preset's, add "
                f"--model.precision {config.model.precision}",
                file=sys.stderr,
            )
            config = replaced(config, "model.precision", "float32")
        from csbp_jax.evaluation.evaluate import evaluate

        evaluate(config, data_dir=of_weights.data_dir)
        return
    options = read_paths("evaluate", Evaluate, argv)
    from csbp_jax.evaluation.evaluate import evaluate_run

    evaluate_run(_restored(options.run, options), split=options.split, data_dir=options.data_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Restore):
    """Predict the class of each file (image, frames or events, as the run was trained on), as CSV."""

    run: option.Run = ""
    files: option.Files = ()
    """files to classify"""
    out: option.OptionalPath = None
    """write the CSV to this file instead of the terminal"""
    top: option.Count = 1
    """number of most probable classes per file"""


def predict(argv: Sequence[str]) -> None:
    """Run ``csbp_jax predict``."""
    options = read_paths("predict", Predict, argv)
    _show_network(options.run)
    from csbp_jax.evaluation import outputs, predict
    from csbp_jax.runtime import files

    if options.out:
        outputs.check_file(options.out)
    predictions = predict.predict(
        options.run,
        list(options.files),
        weights_of=options.weights_of,
        top=options.top,
        trust=options.trust,
        data_dir=options.data_dir,
    )
    problems = [prediction.problem for prediction in predictions if prediction.problem]
    if len(problems) == len(predictions) == 1:
        raise ConfigError(problems[0])
    for problem in problems:
        print("csbp_jax:", escaped(problem), file=sys.stderr)
    if problems and len(problems) == len(predictions):
        raise ConfigError("none of the files could be read")
    if options.out:
        # A name that is not UTF-8 is written as the bytes that it is.
        files.write_bytes(options.out, predict.table(predictions).encode(errors="surrogateescape"))
    else:
        text = predict.table(predictions)
        # Names of classes are those of a config.json, which may be from others.
        print(escaped(text) if sys.stdout.isatty() else text, end="", flush=True)
    if problems:
        raise ConfigError(f"{len(problems)} of {len(options.files)} files could not be read; the others are predicted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(RestoreWithSplit):
    """Plot the activity of a run: raster, membranes, rates; and count its synaptic operations and their energy."""

    run: option.Run = ""
    layer: option.Name = None
    """layer, or several separated by commas; by default all spiking layers"""
    examples: option.Count = 100
    """number of examples, spread evenly over the split"""
    example: option.Number = 0
    """number of the example whose spikes and membranes are drawn, from 0"""


def inspect(argv: Sequence[str]) -> None:
    """Run ``csbp_jax inspect``."""
    options = read_paths("inspect", Inspect, argv)
    from csbp_jax.evaluation.inspection import inspect

    inspect(
        _restored(options.run, options),
        layers=tuple(options.layer.split(",")) if options.layer else (),
        examples=options.examples,
        example=options.example,
        split=options.split,
        data_dir=options.data_dir,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(RestoreWithSplit):
    """Measure runs with corrupted inputs, faulty spikes, inexact weights and attacks; compare them (docs/using.md)."""

    runs: option.RunsOrNetworks = ()
    """directories of runs; hf://USER/NAME; or digits or digits_events, which ship with csbp_jax"""
    only: option.Name = None
    """perturbation, or several separated by commas; by default all that fit the data"""
    examples: option.OptionalCount = None
    """number of examples, spread evenly over the split; by default all, and 200 for attacks"""
    queries: option.Count = 500
    """number of forward passes of the black-box attack, per example and strength"""
    seed: option.Seed = 0
    """random seed of all perturbations, the same for all runs"""
    control: option.OptionalRun = None
    """run, or network as above, whose setting all others are compared with; by default the runs that are equal but for
    chaos.z0 0, or else the first run"""
    margin: option.Margin = None
    out: option.OptionalPath = None
    """output directory; by default that of the first run"""


def robustness(argv: Sequence[str]) -> None:
    """Run ``csbp_jax robustness``."""
    options = read_paths("robustness", Robustness, argv)
    from csbp_jax.evaluation.robustness import battery, command
    from csbp_jax.evaluation.robustness.measure import Plan

    plan = Plan(battery.select(options.only), options.examples, options.queries, options.seed, options.split)
    names = list(options.runs)
    if options.control is not None and os.path.realpath(options.control) not in map(os.path.realpath, names):
        names.insert(0, options.control)
    runs = [_restored(run, options) for run in names]
    control = None
    if options.control is not None:
        control = runs[[os.path.realpath(run) for run in names].index(os.path.realpath(options.control))]
    command.robustness(runs, plan, control=control, margin=options.margin, data_dir=options.data_dir, out=options.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Restore):
    """Export a run's network: its arrays, its function, or its graph for neuromorphic hardware."""

    run: option.Run = ""
    to: Literal["safetensors", "npz", "stablehlo", "nir"] = "safetensors"
    """format"""
    out: option.OptionalPath = None
    """output file; by default in RUN/export"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push:
    """Push a run's network to the Hugging Face hub: weights, config, and a card of what was measured."""

    run: option.RunDir = ""
    repository: option.Repository = ""
    private: option.Flag = False
    """create a private repository"""
    weights_of: option.WeightsOf = "last"
    trust: option.Trust = False


def call(command: str, kind: type[Any], path: str, argv: Sequence[str]) -> None:
    """Run a command that is one function, which takes the options by name; paths and texts that it returns are printed.

    ``path`` is the function's, with its module.
    """
    options = read_paths(command, kind, argv)
    if isinstance(options, Restore):
        _show_network(getattr(options, "run", ""))
    module, _, function = path.rpartition(".")
    result = getattr(importlib.import_module(module), function)(**vars(options))
    for item in result if isinstance(result, list) else [result]:
        if isinstance(item, str | pathlib.Path):
            print(escaped(str(item)))
