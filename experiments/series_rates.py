"""Measure how often `csbp_jax series` is right on series whose nature is known, and write the results.

    python -m experiments.series_rates [--seeds 200] [--out docs/results/series]

``series.npz`` holds every measure of every series, ``series.json`` and ``table.md`` their summary.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from csbp_jax.dynamics.series import zero_one_test
from csbp_jax.evaluation import recorded
from experiments import statistics, study
from experiments.study import Content

MODULE = "python -m experiments.series_rates"

LENGTH, DAMPING = 1000, 2.5
CHAOS = "irregular and nonlinear"

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]
"""``draw(generator, seeds)`` gives ``[seeds, LENGTH]``."""


class System(NamedTuple):
    """A source of series, and whether they are chaotic."""

    draw: Draw
    chaotic: bool = False


def iterate(step: Callable[[Any], Any], state: Any, transient: int, every: int = 1) -> Array:
    """Iterate a map of the states of all seeds, and return the first component after a transient, ``[seeds, LENGTH]``.

    Args:
      step: the map.
      state: ``[components, seeds]``.
      transient: number of first steps that are left out.
      every: number of steps from one value to the next.
    """
    values = []
    for number in range(transient + LENGTH * every):
        state = step(state)
        if number >= transient and (number - transient) % every == 0:
            values.append(state[0])
    return np.array(values).T


def logistic(r: float, generator: np.random.Generator, seeds: int) -> Array:
    """``x' = r x (1 - x)``."""
    return iterate(lambda x: r * x * (1 - x), generator.uniform(0.1, 0.9, (1, seeds)), 2000)


def henon(generator: np.random.Generator, seeds: int) -> Array:
    """``x' = 1 - 1.4 x^2 + y``, ``y' = 0.3 x``."""
    return iterate(lambda s: (1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]), generator.uniform(-0.1, 0.1, (2, seeds)), 500)


def lorenz(every: int, generator: np.random.Generator, seeds: int) -> Array:
    """x of the Lorenz system (10, 28, 8/3), by Runge-Kutta of fourth order in steps of 0.01, every ``every``-th."""

    def velocity(s: Array) -> Array:
        x, y, z = s
        return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    starts = generator.normal(size=(3, seeds)) + np.array([[0.0], [0.0], [20.0]])
    return iterate(lambda s: runge_kutta(velocity, s, 0.01), starts, 2000, every)


def runge_kutta(velocity: Callable[[Any], Any], state: Any, h: float) -> Any:
    """A step of fourth order of a flow, over the time h."""
    a = velocity(state)
    b = velocity(state + h / 2 * a)
    c = velocity(state + h / 2 * b)
    return state + h / 6 * (a + 2 * b + 2 * c + velocity(state + h * c))


def circle(generator: np.random.Generator, seeds: int) -> Array:
    """``sin(2 pi t)`` of the circle map ``t' = t + W - K sin(2 pi t) / (2 pi)``, W the golden mean, K = 0.5."""
    golden = (math.sqrt(5) - 1) / 2

    def step(t: Array) -> Array:
        return t + golden - 0.5 / (2 * np.pi) * np.sin(2 * np.pi * t)

    return np.sin(2 * np.pi * iterate(step, generator.uniform(size=(1, seeds)), 500))


def white(generator: np.random.Generator, seeds: int) -> Array:
    """Draw independent normal values."""
    return generator.normal(size=(seeds, LENGTH))


def ar1(a: float, generator: np.random.Generator, seeds: int) -> Array:
    """``x' = a x + noise``."""
    noise = generator.normal(size=(seeds, LENGTH + 2000))
    return np.asarray(signal.lfilter([1], [1, -a], noise)[:, -LENGTH:])


def nonlinear_ar(generator: np.random.Generator, seeds: int) -> Array:
    """``x' = -0.8 |x| + noise``: not chaotic, because under the same noise two series approach by 0.8 per step."""
    return iterate(lambda x: -0.8 * np.abs(x) + generator.normal(size=x.shape), np.zeros((1, seeds)), 200)


def walk(generator: np.random.Generator, seeds: int) -> Array:
    """Sum white noise."""
    return np.cumsum(white(generator, seeds), axis=1)


def decay(generator: np.random.Generator, seeds: int) -> Array:
    """Draw losses that fall as ``exp(-t / 200)``, with noise of 0.05."""
    return np.exp(-np.arange(LENGTH) / 200) + 0.05 * white(generator, seeds)


def noisy(draw: Draw, size: float) -> Draw:
    """Add white noise of ``size`` standard deviations to a series."""

    def drawn(generator: np.random.Generator, seeds: int) -> Array:
        series = draw(generator, seeds)
        return series + size * series.std(axis=1, keepdims=True) * white(generator, seeds)

    return drawn


_logistic = {r: functools.partial(logistic, r) for r in (3.2, 3.5, 3.55, 3.58, 3.7, 4.0)}
SYSTEMS = {
    "white noise": System(white),
    "AR(1), 0.5": System(functools.partial(ar1, 0.5)),
    "AR(1), 0.9": System(functools.partial(ar1, 0.9)),
    "AR(1), 0.99": System(functools.partial(ar1, 0.99)),
    "AR(1), 0.9, cubed": System(lambda generator, seeds: ar1(0.9, generator, seeds) ** 3),
    "random walk": System(walk),
    "falling loss with noise": System(decay),
    "nonlinear AR": System(nonlinear_ar),
    "period 2": System(_logistic[3.2]),
    "period 4": System(_logistic[3.5]),
    "period 8": System(_logistic[3.55]),
    "period 2, 1 % noise": System(noisy(_logistic[3.2], 0.01)),
    "period 4, 1 % noise": System(noisy(_logistic[3.5], 0.01)),
    "period 8, 10 % noise": System(noisy(_logistic[3.55], 0.1)),
    "quasi-periodic": System(circle),
    "quasi-periodic, 1 % noise": System(noisy(circle, 0.01)),
    "logistic, r = 4": System(_logistic[4.0], True),
    "logistic, r = 3.7": System(_logistic[3.7], True),
    "logistic, r = 3.58": System(_logistic[3.58], True),
    "logistic, r = 4, 30 % noise": System(noisy(_logistic[4.0], 0.3), True),
    "Henon": System(henon, True),
    "Lorenz, every 0.1": System(functools.partial(lorenz, 10), True),
    "Lorenz, every 0.02": System(functools.partial(lorenz, 2), True),
}
"""Series with known answers. The noise of chaotic ones is small beside the series, and added to what is observed."""

NUMBERS = ("zero_one", "zero_one_regression", "permutation_entropy", "flatness", "drift", "decorrelation_lag")


def measure(system: System, seeds: int, number: int) -> tuple[dict[str, Array], list[str]]:
    """Measure all series of a system, and return the numbers by name, ``[seeds]``, and the readings.

    Args:
      system: the source of the series.
      seeds: number of series.
      number: seed of the system's random numbers.
    """
    series = system.draw(np.random.default_rng(number), seeds)
    measured = [recorded.measure(values, seed) for seed, values in enumerate(series)]
    numbers = {name: np.array([float(result[name]) for result in measured]) for name in (*NUMBERS, "surrogate_p")}
    for statistic in measured[0]["surrogate_ps"]:
        name = f"p_{statistic.replace(' ', '_')}"
        numbers[name] = np.array([result["surrogate_ps"][statistic] for result in measured])
    numbers["zero_one_damped"] = np.array(
        [zero_one_test(values, DAMPING, seed=seed).correlation for seed, values in enumerate(series)]
    )
    return numbers, [recorded.reading(result)[0] for result in measured]


def summary(numbers: dict[str, Array], readings: list[str]) -> Content:
    """Summarise the series of a system: means with 5 % and 95 % quantiles, and counted readings and rejections."""
    content: Content = {
        name: {"mean": float(values.mean()), "quantiles": np.quantile(values, (0.05, 0.95)).round(6).tolist()}
        for name, values in numbers.items()
    }
    level = recorded.LEVEL  # of both statistics together, and half of it of each
    levels = {"surrogate_p": level} | {name: level / 2 for name in numbers if name.startswith("p_")}
    rejected = {name: statistics.wilson(numbers[name] <= level) for name, level in levels.items()}
    found_chaos = statistics.wilson(np.array(readings) == CHAOS)
    return content | {"rejected": rejected, "readings": dict(Counter(readings).most_common()), CHAOS: found_chaos}


def row(name: str, result: Content) -> list[str]:
    """Return the cells of a system."""
    k, (low, high) = result["zero_one"]["mean"], result["zero_one"]["quantiles"]
    count = sum(result["readings"].values())
    readings = ", ".join(f"{word} {100 * number / count:.3g} %" for word, number in result["readings"].items())
    return [
        name,
        f"{k:.2f} ({low:.2f} to {high:.2f})",
        f"{result['zero_one_damped']['mean']:.2f}",
        f"{result['permutation_entropy']['mean']:.3f}",
        f"{result['flatness']['mean']:.3f}",
        statistics.share_text(result["rejected"]["surrogate_p"]),
        readings,
    ]


HEAD = ("series", "K", f"K, damping {DAMPING}", "permutation entropy", "flatness", "surrogates reject (%)", "readings")


def page(results: dict[str, Content]) -> str:
    """Return two tables: series that are not chaotic, and chaotic ones."""
    tables = []
    for title, chaotic in (("Not chaotic", False), ("Chaotic", True)):
        rows = [row(name, results[name]) for name, system in SYSTEMS.items() if system.chaotic == chaotic]
        tables.append(f"**{title}**\n\n{study.table(HEAD, rows)}")
    return "\n\n".join(tables)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, "series", seeds=200)
    options = parser.parse_args(arguments)
    settings = {"seeds": options.seeds, "length": LENGTH, "damping": DAMPING, "level": recorded.LEVEL}
    content = study.resume(parser, options.out / "series.json", settings, {"systems": {}})
    file = options.out / "series.npz"
    arrays = dict(np.load(file)) if file.exists() else {}
    for number, (name, system) in enumerate(SYSTEMS.items()):
        if name not in content["systems"]:
            numbers, readings = measure(system, options.seeds, number)
            arrays |= {f"{name}/{key}": values.astype(np.float32) for key, values in numbers.items()}
            content["systems"][name] = summary(numbers, readings)
            study.write_arrays(file, arrays)
            study.store(options.out / "series.json", content, MODULE)
            print(" | ".join(row(name, content["systems"][name])), flush=True)
    study.write(options.out, "series", content, page(content["systems"]))


if __name__ == "__main__":
    study.run(main)
