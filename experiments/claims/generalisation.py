"""Run the plan of docs/results/claims/plan.md: generalisation with few and with wrong labels, all conditions tuned.

    python -m experiments.claims.generalisation [--data digits cifar10] [--data-dir data] [--network dense]
        [--labels N] [--side N] [--epochs N] [--seeds N] [--out docs/results/claims]

--data: digits, cifar10, mnist or fashion_mnist; a data set that is not in --data-dir is left out. Finished runs
are read from ``generalisation.json`` and not trained again.
"""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs
from csbp_jax import data as data_sets
from csbp_jax.config import Config, ConfigError, replaced
from experiments import study
from experiments.claims import report, runs
from experiments.claims.settings import KIND, PRIMARY, SETTINGS, knobs_of
from experiments.study import Content, finite_or_none

MODULE = "python -m experiments.claims.generalisation"
TUNING_SEEDS = (1000, 1001, 1002)
CHUNK = 24
"""Runs that are trained as one program."""
LOOK, SD_LIMIT = 16, 1.4
"""Pairs after which the standard deviation is looked at, and the one (in points) above which there are more seeds."""


class DataSet(NamedTuple):
    """How a data set is used: the side of its pictures, labels of a class, batch size, epochs, seeds.

    wrong: the share of wrong labels of each arm.
    doubled: twice as many seeds where the differences of the first :data:`LOOK` vary by more than :data:`SD_LIMIT`.
    """

    side: int
    labels: int
    batch_size: int
    epochs: int
    seeds: int
    wrong: tuple[float, ...] = (0.0, 0.2)
    doubled: bool = False


DATA_SETS = {
    "digits": DataSet(8, 20, 20, 30, 64, doubled=True),
    "cifar10": DataSet(16, 100, 50, 20, 32, (0.0,)),
    "mnist": DataSet(28, 20, 20, 30, 32),
    "fashion_mnist": DataSet(28, 100, 50, 30, 32),
}
NETWORKS = {"dense": ("dense", (128, 128), "fc1.membrane"), "conv": ("small_conv", (16, 32, 32), "conv1.membrane")}


# --- data ---------------------------------------------------------------------------------------------------------


def load_task(name: str, options: argparse.Namespace) -> tuple[runs.Task, DataSet]:
    """Load a data set as grey pictures, with the config of the study.

    Raises:
      ConfigError: it is not in the data directory.
    """
    changes = {field: getattr(options, field) for field in ("side", "labels", "epochs", "seeds")}
    use = DATA_SETS[name]._replace(**{field: value for field, value in changes.items() if value is not None})
    config = configs.load(name)
    splits = data_sets.load(replaced(config, "data.augment", ()), options.data_dir)
    model = {"input_shape": (use.side, use.side, 1), "time_steps": 4}
    config = small_net(config, use, model, options.network)
    train, test = (grey(splits[split], use.side) for split in ("train", "test"))
    if name == "digits":
        return runs.Task(config, use.labels, train, grey(splits["validation"], use.side), test), use
    chosen = np.random.default_rng(0).choice(len(train[1]) // 10, 1000, replace=False)
    pool = len(train[1]) - len(train[1]) // 10  # validation pictures are from the rest
    validation = train[0][pool:][chosen], train[1][pool:][chosen]
    return runs.Task(config, use.labels, (train[0][:pool], train[1][:pool]), validation, test), use


def small_net(config: Config, use: DataSet, model: Mapping[str, Any], network: str = "dense") -> Config:
    """The config with a network of the study, its term and its optimiser; ``model`` has fields of ``config.model``."""
    name, features, tap = NETWORKS[network]
    for field, value in {
        "model.name": name,
        "model.features": features,
        "model.classes": 10,
        **{f"model.{field}": value for field, value in model.items()},
        "epochs": use.epochs,
        "batch_size": use.batch_size,
        "chaos.taps": (tap,),
        "chaos.z0": (1.0,),
        "chaos.reduce": "neuron",
        "loss": Config().loss,
        "optimizer": Config().optimizer,
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
    }.items():
        config = replaced(config, field, value)
    return config


def grey(source: data_sets.DataSource, side: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Pictures of a source ``[N, 1, side, side, 1]`` in [0, 1], means over channels and blocks; labels ``[N]``."""
    x, y = study.all_records(source)
    x = x.mean(axis=-1, keepdims=True, dtype=np.float32) / (255 if x.dtype == np.uint8 else 1)
    block = x.shape[2] // side
    x = x.reshape(len(x), 1, side, block, side, block, 1).mean(axis=(3, 5))
    return x.astype(np.float32), y


# --- runs ---------------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """A run: its arm, its condition, the number of its setting, and its seed."""

    arm: str
    condition: str
    number: int
    seed: int


def seeds_of(content: Content, job: Job) -> Content:
    """The finished runs of a job's setting, ``{seed: result}``."""
    of_condition = content["arms"][job.arm]["runs"].setdefault(job.condition, {})
    result: Content = of_condition.setdefault(str(job.number), {})
    return result


class Runner(NamedTuple):
    """Trains jobs of a data set, and stores their results in the file of the study.

    begin: called before jobs are trained.
    """

    content: Content
    file: Any
    task: runs.Task
    begin: Callable[[], None] = lambda: None

    def fill(self, jobs: Sequence[Job]) -> None:
        """Train the jobs that have no result yet."""
        missing = [job for job in jobs if str(job.seed) not in seeds_of(self.content, job)]
        if missing:
            self.begin()
        for kind in runs.KINDS:
            of_kind = [job for job in missing if KIND.get(job.condition, "plain") == kind]
            for first in range(0, len(of_kind), CHUNK):
                chunk = of_kind[first : first + CHUNK]
                knobs = [self.knobs(job) for job in chunk]
                draws = [runs.draw(self.task, job.seed, self.arm(job)["wrong"]) for job in chunk]
                pad = -(-len(chunk) // 8) * 8  # few sizes, as each is compiled
                for job, result in zip(chunk, runs.train(self.task, kind, knobs, draws, pad), strict=True):
                    numbers = {name: finite_or_none(float(f"{value:.6g}")) for name, value in result.items()}
                    seeds_of(self.content, job)[str(job.seed)] = numbers
                study.write_json(self.file, self.content)
                print(f"{chunk[0].arm}, {chunk[0].condition}: {len(chunk)} runs, {kind}", flush=True)

    def arm(self, job: Job) -> Content:
        arm: Content = self.content["arms"][job.arm]
        return arm

    def knobs(self, job: Job) -> runs.Knobs:
        """The knobs of a job; those of P have no base."""
        arm, setting = self.arm(job), SETTINGS[job.condition][job.number]
        base = SETTINGS["P"][arm["base"]] if job.condition != "P" else {}
        return knobs_of(job.condition, setting, base, arm.get("unit", 1.0))

    def best(self, arm: str, condition: str, numbers: Sequence[int]) -> int:
        """The setting with the best mean validation accuracy over the tuning seeds, then the smaller loss."""

        def rank(number: int) -> tuple[float, float]:
            results = [seeds_of(self.content, Job(arm, condition, number, 0))[str(seed)] for seed in TUNING_SEEDS]
            finite = [np.inf if r["validation_loss"] is None else r["validation_loss"] for r in results]
            return float(np.mean([r["validation"] for r in results])), -float(np.mean(finite))

        return max(numbers, key=rank)


def tune(runner: Runner, arms: Sequence[str], conditions: Sequence[str]) -> None:
    """Choose the settings of conditions other than P."""
    runner.fill(
        [Job(a, c, number, seed) for c in conditions for a in arms for number in range(8) for seed in TUNING_SEEDS]
    )
    for arm in arms:
        for condition in conditions:
            runner.content["arms"][arm]["chosen"][condition] = runner.best(arm, condition, range(8))


def test(runner: Runner, arms: Sequence[str], conditions: Sequence[str], seeds: int) -> None:
    """Train the chosen settings on fresh seeds."""
    chosen = {a: runner.content["arms"][a]["chosen"] for a in arms}
    for first in range(0, seeds, LOOK):
        span = range(first, min(first + LOOK, seeds))
        runner.fill([Job(a, c, chosen[a][c], seed) for a in arms for c in conditions for seed in span])


def run_data_set(
    runner: Runner, arms: Sequence[str], use: DataSet, rest: Sequence[str], show: Callable[[], None]
) -> None:
    """Tune and test P, C, D and S, then ``rest``, one at a time; ``show`` writes the report."""
    for numbers in (range(8), range(8, 16)):
        runner.fill([Job(a, "P", n, seed) for a in arms for n in numbers for seed in TUNING_SEEDS])
    for arm in arms:
        content = runner.content["arms"][arm]
        content["base"] = runner.best(arm, "P", range(8))
        content["chosen"]["P"] = runner.best(arm, "P", range(16))
        if "unit" not in content:
            knobs = runs.OFF | SETTINGS["P"][content["base"]]
            draws = [runs.draw(runner.task, seed, content["wrong"]) for seed in TUNING_SEEDS]
            content["units"] = [runs.flip_ratio(runner.task, knobs, drawn) for drawn in draws]
            content["unit"] = float(np.mean(content["units"]))
    tune(runner, arms, PRIMARY[1:])
    look, seeds = min(LOOK, use.seeds), use.seeds
    test(runner, arms, PRIMARY, look)
    if use.doubled:
        spread = float(np.mean([report.pooled_sd(runner.content["arms"][arm], look) for arm in arms]))
        seeds = 2 * seeds if spread > SD_LIMIT else seeds
    for arm in arms:
        runner.content["arms"][arm]["seeds"] = seeds
    test(runner, arms, PRIMARY, seeds)
    show()
    for condition in rest:
        tune(runner, arms, [condition])
        test(runner, arms, [condition], seeds)
        show()
    # Not planned: how much of a difference from P is that of rates and widths.
    bases = {arm: runner.content["arms"][arm]["base"] for arm in arms}
    runner.fill([Job(arm, "P", base, seed) for arm, base in bases.items() for seed in range(seeds)])
    show()


def run_study(
    name: str,
    module: str,
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    settings: Content,
    load: Callable[[str, argparse.Namespace], tuple[runs.Task, DataSet]],
    rest: Sequence[str],
) -> None:
    """Run a study with the conditions of this one on ``options.data``, and write it as ``NAME.json``.

    Args:
      module: how the study is called.
      settings: options that must be the same when it is resumed.
      load: makes the task of a data set, and says how it is used; a ConfigError leaves the data set out.
      rest: conditions after P, C, D and S.

    Exits with usage and one line if ``options.seeds`` is 1 or less, as one pair has no interval, or if the file is of
    other options or other data.
    """
    if options.seeds is not None and options.seeds < 2:
        parser.error("--seeds: from 2 on")
    file = options.out / f"{name}.json"
    empty: Content = {"arms": {}, "data_marks": {}, "provenance": {}}
    content = study.resume(parser, file, settings | {"settings": SETTINGS}, empty)
    command = study.command_of(parser, module, options)
    for data_set in options.data:
        try:
            task, use = load(data_set, options)
        except ConfigError as error:
            print(f"{data_set} is left out: {error}")
            continue
        arms = {data_set if not wrong else f"{data_set}, wrong labels": wrong for wrong in use.wrong}
        for arm, wrong in arms.items():
            content["arms"].setdefault(arm, {"wrong": wrong, "chosen": {}, "runs": {}})
        show = functools.partial(report.write, options.out, name, content)
        begin = functools.partial(study.begin, parser, file, content, data_set, task.data_mark, command)
        run_data_set(Runner(content, file, task, begin), list(arms), use, rest, show)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "claims", data_dir=True)
    parser.add_argument("--data", nargs="+", choices=DATA_SETS, default=["digits", "cifar10"])
    parser.add_argument("--network", choices=NETWORKS, default="dense")
    for name in ("labels", "side", "epochs", "seeds"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in ("network", "labels", "side", "epochs", "seeds")}
    rest = [name for name in SETTINGS if name not in PRIMARY]
    run_study("generalisation", MODULE, parser, options, settings, load_task, rest)


if __name__ == "__main__":
    study.run(main)
