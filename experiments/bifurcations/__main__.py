"""Run the plan of docs/results/bifurcations/plan.md and write its results beside it.

    python -m experiments.bifurcations [--only NAME] [--data-dir data] [--out docs/results/bifurcations]

Each diagram is stored as ``NAME-AXIS.npz`` and not measured again.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import dynamics
from csbp_jax.instruments import classify
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.bifurcations.systems import SYSTEMS, System
from experiments.study import Content

MODULE = "python -m experiments.bifurcations"
SAMPLES, DELTA, CHAOTIC = 24, 1e-2, 0.05

Diagram = Mapping[str, NDArray[Any]]
"""``{values, visited [values, starts, SAMPLES], tangent, finite_size, away [values, starts]}``.

Exponents are NaN where a run ran away. Files without ``away`` were measured before the parameters' growth was watched:
there, only runs that overflowed have no exponents.
"""


class Steps(NamedTuple):
    """Numbers of steps: transient, align (directions align), counted (for exponents); chunk: runs computed at once."""

    transient: int
    align: int
    counted: int
    chunk: int


SMALL, LARGE = Steps(1000, 50, 500, 4000), Steps(300, 20, 200, 16)
XOR_AXES = {
    "z": np.geomspace(0.1, 100, 2000),
    "target": np.linspace(0.5, 0.95, 1000),
    "lr": np.geomspace(0.01, 2, 1000),
}
NEURON_AXES = {
    "z": np.linspace(0.05, 20, 2000),
    "target": np.linspace(0.4, 0.95, 1000),
    "lr": np.linspace(0.02, 2, 1000),
}
DIGITS_AXES = {"z": np.linspace(0, 25, 128)}
AXES = {
    "neuron": (NEURON_AXES, SMALL),
    "xor": (XOR_AXES, SMALL),
    "xor, drift": (XOR_AXES, SMALL),
    "digits": (DIGITS_AXES, LARGE),
    "digits, drift": (DIGITS_AXES, LARGE),
}
LABELS = {"z": "chaos strength z, fixed", "target": "target I0", "lr": "learning rate"}
READOUTS = {"neuron": "weight w", "xor": "weight w1[0, 0]", "digits": "mean of conv1's kernel, less its mean"}


def diagram(system: System, axis: str, values: Sequence[float] | NDArray[Any], steps: Steps) -> dict[str, NDArray[Any]]:
    """Measure a :data:`Diagram` of a system over the values of an axis."""
    chunks = []
    size = max(1, steps.chunk // system.starts)
    for at in range(0, len(values), size):
        states = system.states(axis, values[at : at + size])
        began = jax.vmap(system.size)(states)
        batches = itertools.repeat(system.batch, steps.transient + SAMPLES)
        visited, states = dynamics.attractor_samples(system.step, states, batches, system.readout, steps.transient)
        options: dict[str, Any] = {"warmup": steps.align, "dynamical_leaves": system.dynamical_leaves}
        count = steps.align + steps.counted
        streams = (itertools.repeat(system.batch, count) for _ in range(3))
        tangent = dynamics.lyapunov_many(system.step, states, next(streams), **options)[0][:, 0]
        sized = dynamics.finite_size_many(system.step, states, next(streams), jnp.array([DELTA]), **options)[0][:, 0]
        ended, _ = dynamics.attractor_samples(system.step, states, next(streams), system.size, count - 1)
        away = ~(ended[0] < classify.AWAY * began)
        chunks.append((visited.T, *(np.where(away, np.nan, exponents) for exponents in (tangent, sized)), away))
    shape = (len(values), system.starts)
    samples, tangents, growths, runaways = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return {
        "values": np.asarray(values),
        "visited": samples.reshape(*shape, SAMPLES).astype(np.float32),
        "tangent": tangents.reshape(shape).astype(np.float32),
        "finite_size": growths.reshape(shape).astype(np.float32),
        "away": runaways.reshape(shape),
    }


def draw(name: str, diagrams: Mapping[str, Mapping[str, Diagram]], out: pathlib.Path) -> None:
    """Draw visited values over exponents, a column an axis; the drift's exponents beside those of the chaos term.

    Args:
      diagrams: ``{axis: {"chaos": diagram, "drift": diagram}}``; the drift's may be missing.
    """
    figure = empty_figure(max(4.6 * len(diagrams), 7), 7)
    panels = figure.subplots(3, len(diagrams), sharex="col", sharey="row", squeeze=False, height_ratios=(2, 1, 1))
    for (top, middle, bottom), (axis, terms) in zip(panels.T, diagrams.items(), strict=True):
        chaos = terms["chaos"]
        x = np.repeat(chaos["values"], chaos["visited"][0].size)
        top.plot(x, read(name, chaos).ravel(), ".", color=PALETTE[0], ms=0.5, alpha=0.5, rasterized=True)
        for key, row in (("tangent", middle), ("finite_size", bottom)):
            for i, (term, measured) in enumerate(terms.items()):
                band(row, measured, key, PALETTE[i], term)
            row.axhline(0, color="black", lw=0.8)
        bottom.set_xlabel(LABELS[axis] + (" (units of the flip)" if name == "digits" else ""))
        if name == "xor" and axis != "target":
            bottom.set_xscale("log")
    samples = read(name, diagrams["z"]["chaos"])
    low, high = np.nanpercentile(samples[np.isfinite(samples)], (0.5, 99.5))
    panels[0, 0].set(ylabel=f"{READOUTS[name]}, visited", ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
    for row, key in zip(panels[1:, 0], ("tangent", "finite_size"), strict=True):
        shown = np.concatenate([medians(terms["chaos"], key) for terms in diagrams.values()])
        # The drift's exponents, where it is about to run away, are a hundred times larger.
        row.set_ylim(np.nanmin(shown) - 0.05, 1.1 * np.nanmax(shown))
    panels[1, 0].set_ylabel("tangent exponent\n(nats per step)")
    panels[2, 0].set_ylabel("exponent at 1e-2\n(nats per step)")
    panels[1, 0].legend(fontsize="small")
    study.save_figure(figure, out, name, dpi=130)


def read(name: str, measured: Diagram) -> NDArray[Any]:
    """The visited values; of digits their distance from the mean, which moves a hundred times further over z."""
    visited = measured["visited"]
    return visited - visited.mean(axis=-1, keepdims=True) if name == "digits" else visited


def band(axes: Any, measured: Diagram, key: str, color: str, label: str) -> None:
    """Draw the median over the starts that have not run away, within their range."""
    values = np.ma.masked_invalid(measured[key])
    range_ = values.min(axis=1).filled(np.nan), values.max(axis=1).filled(np.nan)
    axes.fill_between(measured["values"], *range_, color=color, alpha=0.25, lw=0, rasterized=True)
    axes.plot(measured["values"], medians(measured, key), color=color, lw=0.8, label=label, rasterized=True)


def medians(measured: Diagram, key: str) -> NDArray[np.float64]:
    """Median over the starts that have not run away, ``[values]``; NaN where all have."""
    values = np.asarray(measured[key])
    bounded = np.isfinite(values).any(axis=1)
    result = np.full(len(values), np.nan)
    result[bounded] = np.nanmedian(values[bounded], axis=1)
    return result


def summary(measured: Diagram) -> Content:
    """Ranges and shares of a diagram, for its row of the table."""
    tangent, sized = (medians(measured, key) for key in ("tangent", "finite_size"))
    chaotic = tangent > CHAOTIC
    best = int(np.nanargmax(tangent)) if np.isfinite(tangent).any() else None
    return {
        "values": len(tangent),
        "first_chaotic": float(measured["values"][chaotic][0]) if chaotic.any() else None,
        "share_chaotic": float(chaotic.mean()),
        "share_finite_size_sensitive": float((~chaotic & (sized > CHAOTIC)).mean()),
        "share_runs_away": float(np.isnan(tangent).mean()),
        "growth_watched": "away" in measured,
        "largest_exponent": None if best is None else float(tangent[best]),
        "at": None if best is None else float(measured["values"][best]),
    }


def page(summaries: Mapping[str, Content]) -> str:
    """A table in Markdown, a row a diagram."""
    head = ["system, axis", "values", "first chaotic at", "chaotic (%)", "finite-size sensitive (%)", "runs away (%)"]
    rows = []
    for name, s in summaries.items():
        shares = [f"{100 * s[f'share_{key}']:.0f}" for key in ("chaotic", "finite_size_sensitive")]
        away = f"{100 * s['share_runs_away']:.0f}"
        known = s["growth_watched"] or s["share_runs_away"] == 1
        shares.append(away if known else f"at least {away}" if s["share_runs_away"] else "not watched")
        first = "none" if s["first_chaotic"] is None else f"{s['first_chaotic']:.3g}"
        best = "none" if s["at"] is None else f"{s['largest_exponent']:+.3f}, {s['at']:.3g}"
        rows.append([name, f"{s['values']}", first, *shares, best])
    return study.table([*head, "largest exponent, at"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "bifurcations", data_dir=True)
    parser.add_argument("--only", choices=SYSTEMS)
    options = parser.parse_args(arguments)
    results = options.out / "bifurcations.json"
    content = study.resume(parser, results, {}, {})
    for name in [options.only] if options.only else SYSTEMS:
        axes, steps = AXES[name]
        with study.float64() if steps is SMALL else contextlib.nullcontext():
            system = None
            for axis, values in axes.items():
                file = options.out / f"{name.replace(', ', '_')}-{axis}.npz"
                if not file.exists():
                    system = system or SYSTEMS[name](options.data_dir)
                    study.write_arrays(file, diagram(system, axis, values, steps))
                    study.store(results, content, MODULE)
                    print(f"measured: {name}, {axis}", flush=True)
    diagrams = {file.stem: dict(np.load(file)) for file in sorted(options.out.glob("*.npz"))}
    summaries = {name: summary(measured) for name, measured in diagrams.items()}
    for name in ("neuron", "xor", "digits"):
        stems = {"chaos": name, "drift": f"{name}_drift"}
        shown = {
            axis: {term: diagrams[f"{stem}-{axis}"] for term, stem in stems.items() if f"{stem}-{axis}" in diagrams}
            for axis in AXES[name][0]
            if f"{name}-{axis}" in diagrams
        }
        if shown:
            draw(name, shown, options.out)
    study.write(options.out, "bifurcations", content | {"diagrams": summaries}, page(summaries))


if __name__ == "__main__":
    study.run(main)
