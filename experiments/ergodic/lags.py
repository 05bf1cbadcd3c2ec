"""Run the plan of docs/results/ergodic/lags_plan.md: from which distance in time on does chaotic training look random?

    python -m experiments.ergodic.lags [--orbits 2] [--checks 20] [--out docs/results/ergodic]

Writes ``lags.json``, ``lags.md`` and the figure ``lags``. Finished systems are read back and not repeated.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_text
from experiments import study
from experiments.ergodic import known, measure, systems
from experiments.ergodic.series import decorrelation_lag
from experiments.ergodic.systems import System
from experiments.study import Content

MODULE = "python -m experiments.ergodic.lags"
LAGS = (1, 2, 3, 6, 12, 24)
LEAST = 0.9
"""Share of a system's series that are random-like where it passes."""
SYSTEMS: dict[str, tuple[float, Callable[[], System]]] = {
    "one neuron, z 8.6": (8.6, systems.neuron),
    **{f"XOR, z {z:g}": (z, systems.spiking_xor) for z in (20.0, 30.0, 54.6)},
    "CBP, z 24": (24.0, systems.cbp_xor),
    "digits, z 0.25": (0.25, lambda: systems.digits("chaos")),
}


def series_of(name: str, lag: int, count: int) -> NDArray[np.float64]:
    """Series of a known answer ``[count, LENGTH]``, each value ``lag`` steps after the last."""
    rng = np.random.default_rng(0)
    if name == "white noise":
        return known.white(rng, count)
    starts: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "logistic map, r = 4": (lambda x: 4 * x * (1 - x), rng.uniform(0.1, 0.9, (1, count))),
        "Henon's map": (lambda s: (1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]), rng.uniform(-0.1, 0.1, (2, count))),
        # The generator of Park and Miller (Communications of the ACM 1988).
        "Park and Miller's generator": (lambda x: 16807 * x % (2**31 - 1), rng.integers(1, 2**31 - 1, (1, count))),
    }
    step, start = starts[name]
    return known.iterate(step, start, 500, lag)


KNOWN = ("logistic map, r = 4", "Henon's map", "Park and Miller's generator", "white noise")


def result(series_at: dict[int, list[NDArray[np.float64]]]) -> Content:
    """``{"time": median decorrelation time, "random_like": {lag: of each series}}`` of the series at each lag."""
    times = [decorrelation_lag(series) for series in series_at[1]]
    passes = {
        str(lag): [measure.random_like(values, seed)["random_like"] for seed, values in enumerate(series)]
        for lag, series in series_at.items()
    }
    return {"time": float(np.median(times)), "random_like": passes}


def trained(name: str, orbits: int) -> Content:
    """The result of a chaotic training."""
    strength, make = SYSTEMS[name]
    values = measure.record(make(), strength, orbits, max(LAGS) * measure.LENGTH).orbits
    columns = [orbit[:, i] for orbit in values for i in range(orbit.shape[1])]
    rounded = (np.round(column[-measure.LENGTH :] / np.abs(column).max() / 1e-9) for column in columns)
    rich = [c for c, values in zip(columns, rounded, strict=True) if len(np.unique(values)) >= measure.DISTINCT]
    return result({lag: [column[::lag][: measure.LENGTH] for column in rich] for lag in LAGS})


def shares(of: Content) -> list[float]:
    return [float(np.mean(of["random_like"][str(lag)])) for lag in LAGS]


def passes_from(of: Content) -> int | None:
    """The lag from which on a system passes."""
    enough = [share >= LEAST for share in shares(of)]
    return next((lag for n, lag in enumerate(LAGS) if all(enough[n:])), None)


def page(content: Content) -> str:
    """The table: a row a system, with the share of series that pass at each lag."""
    rows = []
    for name, of in content["systems"].items():
        count, lag = len(of["random_like"]["1"]), passes_from(of)
        enough = [f"lag {n}" for n, share in zip(LAGS, shares(of), strict=True) if share >= LEAST]
        word = f"lag {lag}" if lag else f"at {', '.join(enough)} alone" if enough else "does not"
        rows.append([name, str(count), f"{of['time']:g}", *(f"{100 * share:.0f}" for share in shares(of)), word])
    head = ["series of", "series", "decorrelation time", *(f"lag {lag} (%)" for lag in LAGS), "passes from"]
    return study.table(head, rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the shares over lags."""
    figure = empty_figure(7, 3.4)
    axes = figure.subplots()
    for i, (name, of) in enumerate(content["systems"].items()):
        style = ":" if name in KNOWN else "-"
        percent = [100 * share for share in shares(of)]
        axes.plot(LAGS, percent, style, marker=".", color=PALETTE[i % len(PALETTE)], label=name)
    axes.axhline(100 * LEAST, color="0.7", linewidth=0.8)
    axes.set(xscale="log", xlabel="steps from one value to the next", ylabel="random-like series (%)")
    axes.set_xticks(LAGS, [str(lag) for lag in LAGS])
    axes.set_xticks([], minor=True)
    figure.legend(loc="outside right upper", fontsize="small")
    study.save_figure(figure, out, "lags")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "ergodic", orbits=2, checks=20)
    options = parser.parse_args(arguments)
    file = options.out / "lags.json"
    content = study.resume(parser, file, {"orbits": options.orbits, "checks": options.checks}, {"systems": {}})
    results = content["systems"]
    with study.float64():
        for name in (name for name in (*KNOWN, *SYSTEMS) if name not in results):
            if name in KNOWN:
                results[name] = result({lag: list(series_of(name, lag, options.checks)) for lag in LAGS})
            else:
                results[name] = trained(name, options.orbits)
            study.store(file, content, MODULE)
            print(name, shares(results[name]), flush=True)
    draw(content, options.out)
    write_text(options.out / "lags.md", "# Random-like series by lag\n\n" + page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    study.run(main)
