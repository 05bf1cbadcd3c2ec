"""Measure the speed of counting events into frames, and of reading cached frames, on a core of this machine.

    python -m benchmarks.data_events [--out docs/checks/data/events.json] [--rounds 21]

Rates are per second of CPU time, so that others on the machine do not matter; median, minimum and maximum of rounds, in
each of which every program runs once, in a new order. Recordings are events of uniformly random pixels and times, with
the number of events of a data set's recordings. "checked" validates a recording before it is counted; ``np.add.at`` is
the simplest way to count. Frames are read in random order, from files in the system's page cache.
"""

import argparse
import functools
import pathlib
import platform
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from benchmarks.timing import pin_to_core, spread
from csbp_jax.data.events import binning
from csbp_jax.data.events.frame_cache import CachedFrames
from csbp_jax.data.events.readers import Events, validate
from csbp_jax.runtime.files import write_json

# Events, microseconds, sensor, frames, and the size they are scaled to in a second program; types as files have them.
SIZES = {
    "dvs_gesture": (400_000, 6_000_000, 128, 16, 48, np.int64),
    "cifar10_dvs": (200_000, 1_300_000, 128, 10, 48, np.uint16),
    "nmnist": (4_200, 300_000, 34, 10, 17, np.int64),
}
Rule = Callable[[np.ndarray, int], np.ndarray]
RULES: dict[str, Rule] = {
    "by_number": binning.by_number,
    "by_time": binning.by_time,
    "by_window": functools.partial(binning.by_window, window=50_000),
}
BATCH = 32


def recording(events: int, span: int, side: int, dtype: Any) -> Events:
    """A recording of random events."""
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, side, events).astype(dtype) for _ in range(2))
    t = np.sort(generator.integers(0, span, events))
    return Events(x, y, t, generator.integers(0, 2, events).astype(bool), (side, side))


def frames(events: Events, rule: Rule, T: int, side: int) -> np.ndarray:
    """Count a recording into T frames of ``side`` pixels."""
    x, y, t, p, (height, width) = events
    x, y = binning.rescale(x, width, side), binning.rescale(y, height, side)
    return binning.count(x, y, p, rule(t, T), (side, side, 2))


def counted_by_add_at(events: Events, T: int) -> None:
    """Count a recording into frames by ``np.add.at``."""
    x, y, t, p, (height, width) = events
    counts = np.zeros((T, height, width, 2), np.uint16)
    np.add.at(counts, (np.minimum(np.arange(len(t)) // (len(t) // T), T - 1), y, x, p.astype(int)), 1)


def rates(
    programs: Mapping[str, Callable[[], Any]], amounts: Mapping[str, float], rounds: int
) -> dict[str, dict[str, float]]:
    """``{name: amount per second}``, interleaved, over as many calls as take about 10 ms."""
    calls: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for name, program in programs.items():
        program()
        began = time.process_time()
        program()
        calls[name] = max(1, round(0.01 / max(time.process_time() - began, 1e-6)))
    for _ in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            began = time.process_time()
            for _ in range(calls[name]):
                programs[name]()
            seconds[name].append((time.process_time() - began) / calls[name])
    return {name: in_four_digits(spread(amounts[name] / np.array(values))) for name, values in seconds.items()}


def in_four_digits(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers as the results have them."""
    return {key: float(f"{value:.4g}") for key, value in numbers.items()}


def counting(rounds: int) -> dict[str, Any]:
    """Million events per second."""
    result: dict[str, Any] = {}
    for name, (n, span, side, T, small, dtype) in SIZES.items():
        events = recording(n, span, side, dtype)
        programs: dict[str, Callable[[], Any]] = {
            rule: functools.partial(frames, events, RULES[rule], T, side) for rule in RULES
        }
        programs[f"by_number, to {small}x{small}"] = functools.partial(frames, events, binning.by_number, T, small)
        programs["checked"] = functools.partial(validate, events, name)
        programs["np.add.at by number"] = functools.partial(counted_by_add_at, events, T)
        assert all(int(programs[rule]().sum()) == n for rule in RULES)
        result[f"{name}: {n} events, {side}x{side}, T={T}, {np.dtype(dtype).name}"] = rates(
            programs, dict.fromkeys(programs, n / 1e6), rounds
        )
    return result


def reading(rounds: int, folder: pathlib.Path) -> dict[str, Any]:
    """Recordings and megabytes per second, in batches."""
    generator, programs, bytes_each = np.random.default_rng(0), {}, {}
    for name, T, side in (("dvs_gesture", 16, 128), ("cifar10_dvs", 10, 48), ("nmnist", 10, 34)):
        array = generator.poisson(0.3, (512, T, side, side, 2)).astype(np.uint8)
        np.save(folder / f"{name}.npy", array)
        source = CachedFrames(folder / f"{name}.npy", np.arange(512), np.zeros(512, int), 10)
        label = f"{name}: T={T}, {side}x{side}"
        bytes_each[label] = array[0].nbytes
        programs[label] = lambda source=source: source.take(generator.integers(0, 512, BATCH), None)
    recordings = rates(programs, dict.fromkeys(programs, BATCH), rounds)
    return {
        label: {
            "recordings_per_second": rate,
            "megabytes_per_second": in_four_digits(
                {key: value * bytes_each[label] / 1e6 for key, value in rate.items()}
            ),
        }
        for label, rate in recordings.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/checks/data/events.json"))
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args(arguments)
    pin_to_core()
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "command": "python -m benchmarks.data_events",
            "machine": f"{platform.machine()} CPU, Python {platform.python_version()}",
            "versions": {"numpy": metadata.version("numpy")},
            "rounds": options.rounds,
            "million_events_per_cpu_second": counting(options.rounds),
            "cached_frames": reading(options.rounds, pathlib.Path(folder)),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, content)
    print(options.out.read_text())


if __name__ == "__main__":
    main()
