"""What an experiment will cost, before anything is trained: hours, memory, and the width of its intervals."""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from csbp_jax.config import Config, ConfigError
from csbp_jax.reporting import measures, statistics
from csbp_jax.runs import RunTable
from csbp_jax.runs.reading import TABLE
from csbp_jax.training.compiled_group import CompiledGroup
from csbp_jax.training.feeds import timed_steps

STEPS = 10
"""Training steps that are timed."""
MARGINS = 0.5, 1.8
"""The price is between these shares of the time by the fastest and by the slowest measurement. Other work of the
machine moves the time, and so does what is not timed, such as files."""

Range = tuple[float, float]


class Times(NamedTuple):
    """Measured seconds of a compile group, in which all of its members train at once; each as its least and its most.

    compilation: of all programs. step: a training step. validation, test: an evaluation of a split.
    """

    compilation: Range
    step: Range
    validation: Range
    test: Range


class Load(NamedTuple):
    """What a compile group trains.

    chunks: how often its members train. epochs: of each, the fewest with early stopping, and the most. steps: of an
    epoch. evaluations: of validation after an epoch. tests: how many kinds of weights are tested.
    """

    chunks: int
    epochs: tuple[int, int]
    steps: int
    evaluations: int
    tests: int


def seconds(times: Times, load: Load) -> Range:
    """Compute the least and the most seconds of a group, before :data:`MARGINS`.

    ``compilation + chunks (epochs (steps step + evaluations validation) + tests test)``
    """
    ends = []
    for end in (0, 1):
        of_epoch = load.steps * times.step[end] + load.evaluations * times.validation[end]
        of_chunk = load.epochs[end] * of_epoch + load.tests * times.test[end]
        ends.append(times.compilation[end] + load.chunks * of_chunk)
    return ends[0], ends[1]


def measure(members: CompiledGroup, config: Config, count: int, seeds: Sequence[int]) -> Times:
    """Time the compilation, :data:`STEPS` training steps and evaluations of members that train at once.

    Args:
      members: of one compile group.
      config: of one of them, resolved.
      count: how many train at once.
      seeds: of these, as many as count, or fewer, which then repeat.
    """
    of_members = [seeds[number % len(seeds)] for number in range(count)]
    configs = [dataclasses.replace(config, seed=seed) for seed in of_members]
    began = time.perf_counter()
    states = members.init(jnp.stack([jax.random.key(seed) for seed in of_members]), members.hparams(configs))
    jax.block_until_ready(states)
    compilation = time.perf_counter() - began
    states, training = timed_steps(members, states, of_members, STEPS)
    first, *others = training
    compilation += max(0.0, first - min(others))
    evaluations = []
    for _ in range(3):
        began = time.perf_counter()
        members.evaluate(states, of_members, members.splits["validation"])
        evaluations.append(time.perf_counter() - began)
    validation = min(evaluations[1:]), max(evaluations[1:])
    of_test = len(members.splits["test"]) / max(1, len(members.splits["validation"]))
    # The test has its own number of batches, and so a program of its own where its data stay on the device.
    programs = 2 if members.resident else 1
    compilation += programs * max(0.0, evaluations[0] - validation[0])
    steps = min(STEPS, members.steps_per_epoch)
    return Times(
        (compilation, compilation),
        (min(others) / steps, max(others) / steps),
        validation,
        (of_test * validation[0], of_test * validation[1]),
    )


@dataclasses.dataclass(frozen=True)
class Price:
    """What an experiment will cost.

    runs: how many are trained. device: on which. seconds: the least and the most, None of a system of one's own.
    memory: bytes on each device, as counted in the compiled programs, None likewise. half_width: the least and the most
    of half the width of the 95 % interval of a difference between two arms, in ``unit``; None without stored results
    of the same base. pairs: over how many.
    """

    runs: int
    device: str
    seconds: Range | None
    memory: int | None
    half_width: Range | None
    unit: str
    pairs: int

    def lines(self) -> Iterator[str]:
        """Yield a sentence for the time, the memory and the interval."""
        where = f"{self.runs} run{'s' * (self.runs != 1)} on this machine ({self.device})"
        if self.seconds is None:
            yield f"time     not known: {where}, of a system of its own, which alone knows its steps"
        else:
            least, most = (_time(end) for end in self.seconds)
            yield f"time     {least} to {most} for {where}"
        if self.memory is None:
            yield "memory   not known"
        else:
            yield f"memory   {self.memory / 1e9:.2g} GB of a device, as counted in the compiled programs"
        over = f"over {self.pairs} pairs"
        if self.half_width is None:
            why = "one pair has none" if self.pairs < 2 else "no finished results of the same config lie beside it"
            yield f"interval not known: {why}"
        else:
            low, high = self.half_width
            yield f"interval ±{low:.2g} to ±{high:.2g}{self.unit} around a difference of two arms, {over}"

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _time(seconds: float) -> str:
    """Return a time as text, rounded to two digits.

    >>> _time(42.4), _time(400), _time(9000)
    ('42 s', '6.7 min', '2.5 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds >= 100 * size else f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def load(members: CompiledGroup, config: Config, chunks: int) -> Load:
    """Return what a compile group trains, from the resolved config of one of its members."""
    ema = bool(config.optimizer.ema)
    fewest = min(config.epochs, config.patience + 1) if config.patience else config.epochs
    return Load(chunks, (fewest, config.epochs), members.steps_per_epoch, 1 + ema, 2 + ema)


def results_beside(folder: pathlib.Path, content: object) -> list[RunTable]:
    """Read the finished experiments among the folders of a folder whose base is the same."""
    wanted, tables = json.loads(json.dumps(content)), []
    for table in sorted(folder.glob(f"*/{TABLE}")):
        try:
            if json.loads((table.parent / "config.json").read_text()).get("config") == wanted:
                tables.append(RunTable.read(table.parent))
        except (ConfigError, OSError, ValueError):  # damaged, or no experiment: it tells nothing here
            continue
    return tables


def half_width(tables: Iterable[RunTable], pairs: int) -> tuple[Range | None, str]:
    """Compute half of the width to expect of the 95 % interval of a difference, and its unit.

    ``t(0.975, n - 1) s / sqrt(n)``, with s the pooled standard deviation of stored paired differences, between the ends
    of its own 95 % interval, by the chi-squared distribution with the degrees of freedom of the largest comparison.

    Args:
      tables: stored results.
      pairs: n, how many there will be.

    Returns:
      None in place of the ends where no three pairs are stored, or ``pairs`` is below 2.
    """
    squares, freedoms, unit = 0.0, [], ""
    for table in tables:
        if len(arms := table.arms) < 2:
            continue
        unit = " points" * measures.of(table.measures[0]).share
        frame = table.contrast(arms[1:], arms[0]).frame
        for _, row in frame[frame["pairs"] >= statistics.MIN_PAIRS].iterrows():
            freedoms.append(int(row["pairs"]) - 1)
            squares += freedoms[-1] * float(row["sd"]) ** 2
    if not freedoms or not squares or pairs < 2:
        return None, unit
    most, deviation = max(freedoms), math.sqrt(squares / sum(freedoms))
    of_mean = float(scipy.stats.t.ppf(0.975, pairs - 1)) * deviation / math.sqrt(pairs)
    low, high = (math.sqrt(most / float(scipy.stats.chi2.ppf(share, most))) for share in (0.975, 0.025))
    return (low * of_mean, high * of_mean), unit


def total(parts: Sequence[Range]) -> Range:
    """Sum the seconds of groups, and widen them by :data:`MARGINS`."""
    low, high = np.sum(parts, axis=0)
    return float(MARGINS[0] * low), float(MARGINS[1] * high)
