"""Time training steps of CSBP and of plain backpropagation, interleaved, for the page of ``experiments.accuracy``.

    python -m experiments.arm_times DATASET [--blocks 40] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

Both arms train on the same batches from the same weights, in turn, a block of ten steps each, and the order within a
pair of blocks alternates. So both see the same machine, however busy it is. They compute on the CPU, whose time the
page gives, also where there is a GPU or TPU.
"""

import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from csbp_jax import data
from csbp_jax.config import Config
from csbp_jax.training.build import Splits, resolve
from csbp_jax.training.compiled import compile_run
from experiments import accuracy, study
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.arm_times"
STEPS = 10
"""Steps of a block."""


def stepper(config: Config, splits: Splits) -> Callable[[], None]:
    """A function that trains a block of steps and waits for them; each call goes on where the last one ended."""
    run = compile_run(config, splits["train"], len(splits["train"]) // config.batch_size)
    state, batches = run.init(jax.random.key(config.seed)), run.batches(config.seed)

    def block() -> None:
        nonlocal state
        for batch in itertools.islice(batches, STEPS):
            state, metrics = run.train_step(state, run.shard_batch(batch))
        jax.block_until_ready(metrics)

    return block


def orders(arms: Sequence[str], blocks: int) -> Iterator[Sequence[str]]:
    """The arms, in alternating order."""
    for block in range(blocks):
        yield arms[:: -1 if block % 2 else 1]


def measure(arms: Mapping[str, Callable[[], None]], blocks: int) -> Content:
    """Milliseconds per step of each arm, by the CPU's clock and by the wall's, and the ratio of the arms' blocks."""
    clocks = {"cpu": time.process_time, "wall": time.perf_counter}
    seconds: dict[str, dict[str, list[float]]] = {clock: {arm: [] for arm in arms} for clock in clocks}
    for block in arms.values():  # compiles
        block()
    for order in orders(list(arms), blocks):
        for arm in order:
            before = {clock: now() for clock, now in clocks.items()}
            arms[arm]()
            for clock, now in clocks.items():
                seconds[clock][arm].append(now() - before[clock])
    first, second = arms
    return {
        "blocks": blocks,
        "load_average": os.getloadavg()[0],
        "steps_of_a_block": STEPS,
        "milliseconds": {
            clock: {arm: 1e3 * float(np.median(values)) / STEPS for arm, values in by_arm.items()}
            for clock, by_arm in seconds.items()
        },
        "ratio": {clock: ratio(by_arm[first], by_arm[second]) for clock, by_arm in seconds.items()},
    }


def ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Geometric mean of the ratios of pairs of blocks, with its 95 % interval.

    Of logarithms, so that a disturbed block counts as much in either arm.
    """
    logarithms = student_dict(np.log(first) - np.log(second))
    return {name: float(np.exp(value)) for name, value in logarithms.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_dataset_parser(__doc__, blocks=40)
    jax.config.update("jax_platforms", "cpu")
    with study.one_line_errors(parser):
        options, fields, config = study.parse_dataset(parser, MODULE, arguments)
        folder: pathlib.Path = options.out or study.PRESETS / options.dataset
        file = folder / "accuracy.json"
        content = study.read(parser, file, f"python -m experiments.accuracy {options.dataset}")
        if (content.get("dataset"), content.get("fields", [])) != (options.dataset, fields):
            parser.error(f"{file}: made with other options; give those, or another --out")
        splits = data.load(config, options.data_dir)
        csbp = resolve(config, splits)
        arms = {"csbp": stepper(csbp, splits), "bp": stepper(accuracy.plain(csbp), splits)}
    command = " ".join([f"python -m {MODULE} {options.dataset} --blocks {options.blocks}", *fields])
    content["arm_times"] = measure(arms, options.blocks) | study.provenance(command, ("jax", "flax", "optax", "numpy"))
    accuracy.write(folder, content, accuracy.page(content))
    print(accuracy.times(content))


if __name__ == "__main__":
    study.run(main)
