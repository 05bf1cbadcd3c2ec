"""The commands: a dataclass with the options, whose docstrings are the help, and the function that runs it.

The functions that do the work are imported late: JAX takes a second to import, and wrong options need not wait for it.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import arg

from csbp_jax import configs
from csbp_jax.cli import option_types as option
from csbp_jax.cli import record_commands, run_commands
from csbp_jax.cli.options import Command, read, read_field, read_paths
from csbp_jax.config import Config, ConfigError
from csbp_jax.runtime import private
from csbp_jax.training import run_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train on a data set; the same command resumes a stopped run, and so does csbp_jax train RUN.

    FILE.py is an experiment of your own (docs/own.md), and is run. csbp_jax train RUN --epochs 60 trains a run for
    longer (docs/running.md).
    """

    config: option.ConfigFields
    name: option.Name = None
    """name of the run; by default the data set and a hash of its config"""
    fresh: option.Flag = False
    """rename an old run of this name and start from scratch"""
    runs: option.Path = "runs"
    """directory of all runs"""
    checkpoints: option.PathOrAddress = None
    """directory or gs://BUCKET/DIRECTORY of checkpoints, under the run's name; by default RUN/checkpoints
    (docs/scale.md)"""
    distributed: Annotated[str, arg(metavar="off|auto|HOST:PORT,n,i")] = "off"
    """several processes: auto, or HOST:PORT,n,i for process i of n, where process 0 listens; all other options are the
    same for all (docs/scale.md)"""
    profile: Annotated[str | None, arg(metavar="START:N")] = None
    """write a profiler trace of N steps, from step START on, to RUN/profile (docs/scale.md)"""
    data_dir: option.DataDir = "data"


def train(argv: Sequence[str]) -> None:
    """Run ``csbp_jax train``."""
    options, config, own = read("train", Train, argv)
    if run_json.is_run(argv[0]) and not configs.known(argv[0]):
        folder = pathlib.Path(os.path.abspath(argv[0]))
        if (options.name, options.runs) != (None, "runs"):
            raise ConfigError(f"--name, --runs: {argv[0]} is the run that goes on; leave them out")
        options = dataclasses.replace(options, name=folder.name, runs=os.path.relpath(folder.parent))
    _set_deterministic(config.deterministic)
    from csbp_jax.runtime import multihost, preemption
    from csbp_jax.training.loop import train

    with multihost.connected(options.distributed, preemption.current()) as shared_stop:
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
        )


def _set_deterministic(deterministic: bool) -> None:
    """Ask for deterministic kernels; must be called before JAX starts, which then reads XLA_FLAGS.

    Raises:
      ConfigError: JAX has started on a GPU, for an array that a file of the user's own makes.
    """
    flag = "--xla_gpu_deterministic_ops=true"
    if not deterministic or flag in os.environ.get("XLA_FLAGS", "").split():
        return
    if "jax" in sys.modules and private.backend_of_jax() == "gpu":
        raise ConfigError(
            "deterministic: too late, JAX has started already; make the arrays of your file within its functions, "
            f"or set XLA_FLAGS={flag} in the environment"
        )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Prepare and verify a data set, and print the number of records per split."""

    config: option.ConfigFields
    from_: Annotated[option.OptionalPath, arg(name="from")] = None
    """directory of the raw files (archives, or a tfds folder); by default they are downloaded where possible"""
    no_verify: option.Flag = False
    """accept raw files of another size or checksum"""
    read_all: option.Flag = False
    """read every record once, to find damaged ones now and not in training"""
    data_dir: option.DataDir = "data"


def data(argv: Sequence[str]) -> None:
    """Run ``csbp_jax data``."""
    options, config, own = read("data", Data, argv)
    of_raw_files = {"--from": options.from_, "--no-verify": options.no_verify}
    if own.data and any(of_raw_files.values()):
        unused = ", ".join(option for option, value in of_raw_files.items() if value)
        raise ConfigError(f"{unused}: {own.label} has its own data, without raw files; leave this out")
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
class Sweep:
    """Train all members of a grid, many at once where that is faster, and tabulate them; a stopped sweep resumes."""

    config: option.ConfigFields
    grid: option.Grid = ""
    """e.g. "chaos.z0=0,1,3,10 seed=0:16"; any fields; chaos.z0.TAP for one of several taps"""
    control: Annotated[str | None, arg(metavar="FIELD=VALUE")] = None
    """e.g. "chaos.term=drift": the control of a setting is the one that is equal but for these fields; by default
    chaos.z0=0"""
    margin: option.Margin = None
    chunk: option.OptionalCount = None
    """members that train at once, at most as many as share a compilation; by default one per device on CPU, else 32 per
    device"""
    data_parallel: option.Count = 1
    """devices that share each batch; the others hold different members"""
    name: option.Name = None
    """name of the sweep; by default the data set and a hash of its config and grid"""
    shard: Annotated[str | None, arg(metavar="INDEX/COUNT")] = None
    """train one of COUNT shares of the members, for several machines; INDEX from 0; afterwards, the same command
    without it and without --fresh writes the tables"""
    fresh: option.Flag = False
    """rename an old sweep of this name and start from scratch"""
    sweeps: option.Path = "sweeps"
    """directory of all sweeps"""
    data_dir: option.DataDir = "data"


def sweep(argv: Sequence[str]) -> None:
    """Run ``csbp_jax sweep``."""
    options, config, own = read("sweep", Sweep, argv)
    if not options.grid:
        raise ConfigError('--grid: missing; write e.g. --grid "chaos.z0=0,1,3,10 seed=0:16" (make: GRID=...)')
    _set_deterministic(config.deterministic)
    from csbp_jax import sweep
    from csbp_jax.sweep import grid

    axes: dict[str, list[Any]] = {}
    for field, words in grid.words(options.grid).items():
        grid.check_field(config, field)
        axes[field] = [_read_value(config, field, word) for word in words]
    control = {k: _read_value(config, k, word) for k, word in grid.control_words(config, options.control or "").items()}
    common: dict[str, Any] = {
        "name": options.name,
        "fresh": options.fresh,
        "root": options.sweeps,
        "data_dir": options.data_dir,
        "chunk": options.chunk,
        "data_parallel": options.data_parallel,
        "own": own,
    }
    if options.shard is None:
        sweep.run(config, axes, comparison=sweep.Comparison(control or None, options.margin), **common)
    else:
        sweep.run_shard(config, axes, grid.shard(options.shard), **common)


def _read_value(config: Config, field: str, word: str) -> Any:
    if field.startswith("chaos.z0."):
        (value,) = read_field(config, "chaos.z0", word)
        return value
    return read_field(config, field, word)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Suggest a learning rate, by a short run with a rising rate."""

    config: option.ConfigFields
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
    data_dir: option.DataDir = "data"


def lr(argv: Sequence[str]) -> None:
    """Run ``csbp_jax lr``."""
    options, config, own = read("lr", LearningRate, argv)
    _set_deterministic(config.deterministic)
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
class Best:
    """Train the setting of a sweep that is best in validation, and the best without a chaos term, on fresh seeds."""

    sweep: option.SweepDir
    seeds: option.Count = 10
    """number of fresh seeds; fewer give a wide interval"""
    margin: option.Margin = None
    chunk: option.OptionalCount = None
    """members that train at once, as of sweep"""
    data_parallel: option.Count = 1
    """devices that share each batch, as of sweep"""
    trust: option.Trust = False
    data_dir: option.DataDir = "data"


def best(argv: Sequence[str]) -> None:
    """Run ``csbp_jax best``."""
    options = read_paths("best", Best, argv)
    folder = pathlib.Path(options.sweep)
    if (folder / "config.json").exists():  # else sweep.best says that there is no sweep
        config = run_json.read_config(folder, run_json.REPAIR)["config"]
        _set_deterministic(config.get("deterministic", False))
    from csbp_jax import sweep
    from csbp_jax.sweep import tables

    settings = sweep.best(
        options.sweep,
        options.seeds,
        trust=options.trust,
        data_dir=options.data_dir,
        margin=options.margin,
        chunk=options.chunk,
        data_parallel=options.data_parallel,
    )
    rows = [*map(tables.latex, settings), *(tables.latex_difference(s) for s in settings if s.differences)]
    print("\n".join(["setting & n & last epoch & chosen epoch \\\\", *rows]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List presets, networks, tensors, norms, neurons, augmentations and surrogates; of a network, all its taps."""

    what: option.Listed = ()
    """what to list, such as presets or neurons, or networks whose taps to list; by default all tables"""


COMMANDS: dict[str, Command] = {
    "train": (Train, train),
    "sweep": (Sweep, sweep),
    "best": (Best, best),
    "lr": (LearningRate, lr),
    "data": (Data, data),
    **run_commands.COMMANDS,
    **record_commands.COMMANDS,
    "list": (List, "csbp_jax.cli.listing.show"),
}
"""Options and function of each command."""
