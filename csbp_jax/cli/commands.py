"""The commands: a dataclass with the options, whose docstrings are the help, and the function that runs it.

The functions that do the work are imported late: JAX takes a second to import, and wrong options need not wait for it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.conf import arg

from csbp_jax.cli import option_types as option
from csbp_jax.cli import record_commands as records
from csbp_jax.cli import run_commands as runs
from csbp_jax.cli import sweep_commands as sweeps
from csbp_jax.cli.options import Command, OnData, named_run, read, set_deterministic
from csbp_jax.config import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(OnData):
    """Train on a data set; the same command resumes a stopped run, and so does csbp_jax train RUN.

    FILE.py is an experiment of your own (docs/own.md), and is run. csbp_jax train RUN --epochs 60 trains a run for
    longer (docs/running.md).
    """

    name: option.Name = None
    """name of the run; by default the data set and a hash of its config"""
    fresh: option.Flag = False
    """rename an old run of this name and start from scratch"""
    runs: option.Path = "runs"
    """directory of all runs"""
    checkpoints: option.PathOrAddress = None
    """directory or gs://BUCKET/DIRECTORY of checkpoints, under the run's name; by default RUN/checkpoints
    (docs/scale.md)"""
    distributed: Annotated[str | None, arg(metavar="off|auto|HOST:PORT,n,i")] = None
    """several processes: auto, which is the default where JAX finds others (TPU pods, Slurm), or HOST:PORT,n,i for
    process i of n, where process 0 listens; all other options are the same for all (docs/scale.md)"""
    require: Literal["cpu", "gpu", "tpu"] | None = None
    """refuse to train where JAX computes on another kind of device"""
    profile: Annotated[str | None, arg(metavar="START:N")] = None
    """write a profiler trace of N steps, from step START on, to RUN/profile (docs/scale.md)"""
    track: Literal["tensorboard", "wandb", "mlflow", "trackio"] | None = None
    """write TensorBoard events, or log to this tracker (project csbp_jax), while it trains (docs/scale.md)"""


def train(argv: Sequence[str]) -> None:
    """Run ``csbp_jax train``."""
    options, config, own = read("train", Train, argv)
    if run := named_run(argv[0]):
        folder = pathlib.Path(os.path.abspath(run))
        if (options.name, options.runs) != (None, "runs"):
            raise ConfigError(
                f"--name, --runs: {argv[0]} is the run that goes on; leave them out; or, for a run of another name, "
                f"write its data set in place of {argv[0]}"
            )
        options = dataclasses.replace(options, name=folder.name, runs=os.path.relpath(folder.parent))
    set_deterministic(config.deterministic)
    from csbp_jax.runtime import hardware, multihost, preemption
    from csbp_jax.training.loop import train

    callbacks = []
    if options.track:
        from csbp_jax.evaluation import trackers

        callbacks = [trackers.Tracker(options.track)]
    with multihost.connected(options.distributed, preemption.current()) as shared_stop:
        hardware.require(options.require)
        train(
            config,
            name=options.name,
            fresh=options.fresh,
            root=options.runs,
            data_dir=options.data_dir,
            stop=shared_stop,
            own=own,
            profile=options.profile or "",
            checkpoints=options.checkpoints,
            callbacks=callbacks,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(OnData):
    """Prepare and verify a data set, and print the number of records per split."""

    from_: Annotated[option.OptionalPath, arg(name="from")] = None
    """directory of the raw files (archives, or a tfds folder); by default they are downloaded where possible"""
    no_verify: option.Flag = False
    """accept raw files of another size or checksum"""
    read_all: option.Flag = False
    """read every record once, to find damaged ones now and not in training"""


def data(argv: Sequence[str]) -> None:
    """Run ``csbp_jax data``."""
    options, config, own = read("data", Data, argv)
    of_raw_files = [name for name, value in (("--from", options.from_), ("--no-verify", options.no_verify)) if value]
    if own.data and of_raw_files:
        raise ConfigError(f"{', '.join(of_raw_files)}: {own.label} has its own data, without raw files; leave this out")
    from csbp_jax import data
    from csbp_jax.reporting import terminal
    from csbp_jax.training import build

    with terminal.stages(terminal.make_console()) as show:
        if not own.data:
            data.prepare(config, options.from_, options.data_dir, verify=not options.no_verify, show=show)
        splits, _ = build.load_data(config, own, options.data_dir)
        if options.read_all:
            data.read_all(splits, show)
    print(f"{config.data.name}: {', '.join(f'{split} {len(source)}' for split, source in splits.items())} records")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate(OnData):
    """Suggest a learning rate, by a short run with a rising rate."""

    low: Annotated[float, arg(metavar="RATE")] = 1e-5
    """first rate"""
    high: Annotated[float, arg(metavar="RATE")] = 10.0
    """last rate"""
    steps: option.Count = 100
    """number of steps"""
    flips: Annotated[float | None, arg(metavar="RATIO")] = None
    """instead: print the chaos.z0 at which the term's flip ratio is this at the first step (above 1: it overshoots)"""
    out: option.OptionalPath = None
    """output directory; by default in lr/"""


def lr(argv: Sequence[str]) -> None:
    """Run ``csbp_jax lr``."""
    options, config, own = read("lr", LearningRate, argv)
    set_deterministic(config.deterministic)
    if options.flips is not None:
        from csbp_jax.instruments import training_map

        print(training_map.flips_text(config, options.flips, options.data_dir, own))
        return
    from csbp_jax.training import lr_finder

    lr_finder.find(
        config,
        rates=lr_finder.RateRange(options.low, options.high, options.steps),
        out=options.out,
        data_dir=options.data_dir,
        own=own,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List presets, networks, tensors, norms, neurons, augmentations and surrogates; of a network, all its taps."""

    what: option.Listed = ()
    """what to list, such as presets or neurons, or networks whose taps to list; by default all tables"""


COMMANDS: dict[str, Command] = {
    "train": (Train, train),
    "sweep": (sweeps.Sweep, sweeps.sweep),
    "best": (sweeps.Best, sweeps.best),
    "lr": (LearningRate, lr),
    "data": (Data, data),
    "evaluate": (runs.Evaluate, runs.evaluate),
    "predict": (runs.Predict, runs.predict),
    "inspect": (runs.Inspect, runs.inspect),
    "robustness": (runs.Robustness, runs.robustness),
    "export": (runs.Export, "csbp_jax.export.export"),
    "push": (runs.Push, "csbp_jax.export.hub.push"),
    "compare": (records.Compare, "csbp_jax.evaluation.compare.compare"),
    "contrast": (records.Contrast, "csbp_jax.evaluation.contrast_file.contrast"),
    "report": (records.Report, "csbp_jax.evaluation.html_report.write"),
    "tensorboard": (records.TensorBoard, "csbp_jax.evaluation.tensorboard.write"),
    "track": (records.Track, "csbp_jax.evaluation.trackers.track"),
    "list": (List, "csbp_jax.cli.listing.show"),
}
"""Options and function of each command."""
