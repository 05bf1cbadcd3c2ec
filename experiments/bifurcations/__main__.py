"""Runs the plan of docs/results/bifurcations/plan.md and writes its results beside it.

    python -m experiments.bifurcations [--only NAME] [--data-dir data] [--out docs/results/bifurcations]

Each diagram is kept as ``NAME-AXIS.npz`` and not measured again.
"""

import argparse
import contextlib
import itertools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from csbp_jax.instruments import classify
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_json
from experiments.bifurcations.systems import SYSTEMS
from experiments.machine import about

KEEP, DELTA, CHAOTIC = 24, 1e-2, 0.05


class Steps(NamedTuple):
    """Of the transient; in which directions align; that exponents count. Runs that are computed at once."""

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


def diagram(system, axis, values, steps):
    """``{values, visited [values, starts, KEEP], tangent, finite_size [values, starts]}``; NaN where a run ran away."""
    parts = []
    size = max(1, steps.chunk // system.starts)
    for at in range(0, len(values), size):
        states = system.states(axis, values[at : at + size])
        began = jax.vmap(system.size)(states)
        given = itertools.repeat(system.batch, steps.transient + KEEP)
        visited, states = dynamics.attractor_samples(system.step, states, given, system.readout, steps.transient)
        options = {"warmup": steps.align, "dynamical_leaves": system.dynamical_leaves}
        count = steps.align + steps.counted
        given = (itertools.repeat(system.batch, count) for _ in range(3))
        tangent = dynamics.lyapunov_many(system.step, states, next(given), **options)[0][:, 0]
        sized = dynamics.finite_size_many(system.step, states, next(given), jnp.array([DELTA]), **options)[0][:, 0]
        ended, _ = dynamics.attractor_samples(system.step, states, next(given), system.size, count - 1)
        away = ~(ended[0] < classify.AWAY * began)
        parts.append((visited.T, *(np.where(away, np.nan, exponents) for exponents in (tangent, sized))))
    shape = (len(values), system.starts)
    visited, tangent, sized = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "values": np.asarray(values),
        "visited": visited.reshape(*shape, KEEP).astype(np.float32),
        "tangent": tangent.reshape(shape).astype(np.float32),
        "finite_size": sized.reshape(shape).astype(np.float32),
    }


def draw(name, found, out):
    """Visited values over exponents, a column an axis; the drift's exponents beside, where there are."""
    figure = empty_figure(max(4.6 * len(found), 7), 7)
    panels = figure.subplots(3, len(found), sharex="col", sharey="row", squeeze=False, height_ratios=(2, 1, 1))
    for (top, middle, bottom), (axis, kinds) in zip(panels.T, found.items(), strict=True):
        chaos = kinds["chaos"]
        places = np.repeat(chaos["values"], chaos["visited"][0].size)
        top.plot(places, read(name, chaos).ravel(), ".", color=PALETTE[0], ms=0.5, alpha=0.5, rasterized=True)
        for key, row in (("tangent", middle), ("finite_size", bottom)):
            for i, (kind, one) in enumerate(kinds.items()):
                band(row, one, key, PALETTE[i], kind)
            row.axhline(0, color="black", lw=0.8)
        bottom.set_xlabel(LABELS[axis] + (" (units of the flip)" if name == "digits" else ""))
        if name == "xor" and axis != "target":
            bottom.set_xscale("log")
    finite = read(name, found["z"]["chaos"])
    low, high = np.nanpercentile(finite[np.isfinite(finite)], (0.5, 99.5))
    panels[0, 0].set(ylabel=f"{READOUTS[name]}, visited", ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
    for row, key in zip(panels[1:, 0], ("tangent", "finite_size"), strict=True):
        shown = np.concatenate([medians(kinds["chaos"], key) for kinds in found.values()])
        # The drift's, where it is about to run away, are a hundredfold.
        row.set_ylim(np.nanmin(shown) - 0.05, 1.1 * np.nanmax(shown))
    panels[1, 0].set_ylabel("tangent exponent\n(nats a step)")
    panels[2, 0].set_ylabel("exponent at 1e-2\n(nats a step)")
    panels[1, 0].legend(fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"{name}.{kind}", dpi=130)


def read(name, one):
    """What was visited; of digits its distance from its mean, which moves a hundred times further over z."""
    visited = one["visited"]
    return visited - visited.mean(axis=-1, keepdims=True) if name == "digits" else visited


def band(axes, one, key, color, label):
    """The median over the starts that have not run away, in their range."""
    values = np.ma.masked_invalid(one[key])
    range_ = values.min(axis=1).filled(np.nan), values.max(axis=1).filled(np.nan)
    axes.fill_between(one["values"], *range_, color=color, alpha=0.25, lw=0, rasterized=True)
    axes.plot(one["values"], medians(one, key), color=color, lw=0.8, label=label, rasterized=True)


def medians(one, key):
    """Over the starts that have not run away; NaN where all have."""
    values = np.asarray(one[key])
    left = np.isfinite(values).any(axis=1)
    found = np.full(len(values), np.nan)
    found[left] = np.nanmedian(values[left], axis=1)
    return found


def summary(found):
    """Of a diagram: ranges and shares that a reader may quote."""
    tangent, sized = (medians(found, key) for key in ("tangent", "finite_size"))
    chaotic = tangent > CHAOTIC
    best = int(np.nanargmax(tangent)) if np.isfinite(tangent).any() else None
    return {
        "values": len(tangent),
        "first_chaotic": float(found["values"][chaotic][0]) if chaotic.any() else None,
        "share_chaotic": float(chaotic.mean()),
        "share_finite_size_sensitive": float((~chaotic & (sized > CHAOTIC)).mean()),
        "share_runs_away": float(np.isnan(tangent).mean()),
        "largest_exponent": None if best is None else float(tangent[best]),
        "at": None if best is None else float(found["values"][best]),
    }


def page(summaries):
    """In Markdown."""
    rows = ["| system, axis | values | first chaotic at | chaotic (%) | finite-size sensitive (%) | runs away (%) |"]
    rows[0] += " largest exponent, at |"
    rows.append("|---|---|---|---|---|---|---|")
    for name, s in summaries.items():
        shares = [f"{100 * s[f'share_{key}']:.0f}" for key in ("chaotic", "finite_size_sensitive", "runs_away")]
        first = "none" if s["first_chaotic"] is None else f"{s['first_chaotic']:.3g}"
        best = "none" if s["at"] is None else f"{s['largest_exponent']:+.3f}, {s['at']:.3g}"
        rows.append(f"| {name} | {s['values']} | {first} | {' | '.join(shares)} | {best} |")
    return "\n".join(rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--only", choices=SYSTEMS)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/bifurcations"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else SYSTEMS:
        axes, steps = AXES[name]
        with jax.enable_x64(True) if steps is SMALL else contextlib.nullcontext():
            system = None
            for axis, values in axes.items():
                file = options.out / f"{name.replace(', ', '_')}-{axis}.npz"
                if not file.exists():
                    system = system or SYSTEMS[name](options.data_dir)
                    np.savez_compressed(file, **diagram(system, axis, values, steps))
                    print(f"measured: {name}, {axis}", flush=True)
    found = {file.stem: dict(np.load(file)) for file in sorted(options.out.glob("*.npz"))}
    summaries = {name: summary(one) for name, one in found.items()}
    for name in ("neuron", "xor", "digits"):
        kinds = {"chaos": name, "drift": f"{name}_drift"}
        told = {
            axis: {kind: found[f"{stem}-{axis}"] for kind, stem in kinds.items() if f"{stem}-{axis}" in found}
            for axis in AXES[name][0]
            if f"{name}-{axis}" in found
        }
        if told:
            draw(name, told, options.out)
    content = {"command": "python -m experiments.bifurcations", **about(), "diagrams": summaries}
    write_json(options.out / "bifurcations.json", content)
    (options.out / "table.md").write_text(page(summaries) + "\n")
    print(page(summaries))


if __name__ == "__main__":
    main()
