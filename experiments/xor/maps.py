"""The plane of strength and target: its axes, theory's lines in it, and what a page shows of what was measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib import patheffects
from scipy import stats

from csbp_jax.reporting.plots import empty_figure

STRENGTHS = tuple(2.0 ** (i / 2) for i in range(-8, 13))
TARGETS = tuple(0.5 + 0.05 * i for i in range(9))
TERMS, CHAOTIC = ("chaos", "drift"), 0.05
# Largest eigenvalue of the mean of (x, 1) (x, 1)' over the four patterns, over the layer's two neurons.
FIRST_LAYER = 1.593 / 2


def told(value):
    return float(value) if np.isfinite(value) else None


@functools.cache
def first_chaos(target):
    """First a of a positive exponent of ``y' = y - a (s(y) - I0)``, from which on a quarter octave stays positive."""
    with jax.enable_x64(True):
        scan = jnp.linspace(2, 16, 1401) / (target * (1 - target))

        def one(a):
            def push(y, _):
                slope = jax.nn.sigmoid(y) * jax.nn.sigmoid(-y)
                return y - a * (jax.nn.sigmoid(y) - target), jnp.log(jnp.abs(1 - a * slope))

            return lax.scan(push, 0.1, length=6000)[1][1000:].mean()

        exponents = np.asarray(jax.jit(jax.vmap(one))(scan))
    positive = np.flatnonzero(exponents > 0.01)
    return float(scan[positive[0]]) if positive.size else None


def lines():
    """Theory's lines, ``{name: a over TARGETS}``."""
    curvatures = {"first layer": FIRST_LAYER, "output neuron, hidden silent": 1.0, "output neuron, hidden firing": 3.0}
    flips = {f"flip, {name}": [2 / (i * (1 - i) * c) for i in TARGETS] for name, c in curvatures.items()}
    onsets = [first_chaos(i) for i in TARGETS]
    chaos = {f"first chaos, {name}": [a / c if a else None for a in onsets] for name, c in curvatures.items()}
    return flips | chaos


def summary(planes):
    """The numbers that the plan tells."""
    found = {}
    for term, plane in planes.items():
        grids = {name: grid(plane, name) for name in ("solved", "tangent", "finite_size", "flip_ratio")}
        there = np.isfinite(grids["tangent"])
        best = np.unravel_index(np.argmax(grids["solved"]), grids["solved"].shape)
        chaotic = there & (grids["tangent"] > CHAOTIC)
        found[term] = {
            "best": {"solved": grids["solved"][best], "I0": TARGETS[best[0]], "a": STRENGTHS[best[1]]}
            | {name: told(grids[name][best]) for name in ("tangent", "finite_size", "flip_ratio")},
            "correlation_with_solved": {
                name: together(grids["solved"], grids[name]) for name in ("tangent", "finite_size", "flip_ratio")
            },
            "cells": int(there.size),
            "ran_away": int((~there).sum()),
            "chaotic": int(chaotic.sum()),
            "solved_where_chaotic": told(grids["solved"][chaotic].mean()) if chaotic.any() else None,
            "solved_elsewhere": told(grids["solved"][there & ~chaotic].mean()),
        }
    return found


def together(one, other):
    """Rank correlation over the cells that have both."""
    both = np.isfinite(one) & np.isfinite(other)
    return told(stats.spearmanr(one[both], other[both])[0])


def grid(plane, name):
    """``[targets, strengths]``, without z = 0."""
    return np.array([plane[f"{i:.2f}"][name][1:] for i in TARGETS], float)


def draw(content, out):
    """Four maps of either term, with theory's lines."""
    figure = empty_figure(13, 6.6)
    wanted = (
        ("solved", "starts that solve XOR (%)", "viridis", (0, 100)),
        ("tangent", "(a) tangent exponent (nats a step)", "RdBu_r", (-0.6, 0.6)),
        ("finite_size", "(b) exponent at 1e-2 (nats a step)", "RdBu_r", (-0.6, 0.6)),
        ("flip_ratio", "log2 of the flip ratio", "RdBu_r", (-3, 3)),
    )
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes_row, term in zip(panels, TERMS, strict=True):
        for axes, (name, label, colours, limits) in zip(axes_row, wanted, strict=True):
            values = grid(content["planes"][term], name)
            values = {"solved": 100 * values, "flip_ratio": np.log2(np.maximum(values, 1e-3))}.get(name, values)
            axes.set_facecolor("0.75")
            mesh = axes.pcolormesh(
                STRENGTHS, TARGETS, values, cmap=colours, vmin=limits[0], vmax=limits[1], shading="nearest"
            )
            axes.set(xscale="log", title=term)
            over(axes, content["lines"])
            axes.set_xlim(STRENGTHS[0] / 2**0.25, STRENGTHS[-1] * 2**0.25)
            if term == TERMS[1]:
                bar = {"location": "bottom", "shrink": 0.9, "extend": "neither" if name == "solved" else "both"}
                figure.colorbar(mesh, ax=panels[:, list(axes_row).index(axes)], label=label, **bar)
    for axes in panels[:, 0]:
        axes.set_ylabel("target I0")
    for axes in panels[1]:
        axes.set_xlabel("a = lr z / k²")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"phase.{kind}", dpi=120)


def over(axes, lines):
    """Theory's lines, to be seen on any colour: black the flips, white the first chaos."""
    for i, (name, a) in enumerate(lines.items()):
        inner, outer = ("black", "white") if name.startswith("flip") else ("white", "black")
        halo = [patheffects.Stroke(linewidth=2.4, foreground=outer), patheffects.Normal()]
        style = ("-", "--", ":")[i % 3]
        axes.plot(np.array(a, float), TARGETS, style, color=inner, lw=1.1, label=name, path_effects=halo)


def page(content):
    """The summary in Markdown."""
    rows = ["| | chaos term | drift |", "|---|---|---|"]
    sides = [content["summary"][term] for term in TERMS]
    best = [s["best"] for s in sides]
    rows.append("| best cell, solved (%) | " + " | ".join(f"{100 * b['solved']:.0f}" for b in best) + " |")
    rows.append("| there, a and I0 | " + " | ".join(f"{b['a']:.3g}, {b['I0']:.2f}" for b in best) + " |")
    for name in ("tangent", "finite_size", "flip_ratio"):
        rows.append(f"| there, {name.replace('_', ' ')} | {' | '.join(number(b[name]) for b in best)} |")
    for name in ("tangent", "finite_size", "flip_ratio"):
        cells = [number(s["correlation_with_solved"][name]) for s in sides]
        rows.append(f"| rank correlation of solved with {name.replace('_', ' ')} | {' | '.join(cells)} |")
    rows.append(f"| cells chaotic, of {sides[0]['cells']} | {' | '.join(str(s['chaotic']) for s in sides)} |")
    rows.append(f"| cells that run away | {' | '.join(str(s['ran_away']) for s in sides)} |")
    for name in ("solved_where_chaotic", "solved_elsewhere"):
        cells = ["" if s[name] is None else f"{100 * s[name]:.0f}" for s in sides]
        rows.append(f"| {name.replace('_', ' ')} (%, mean of cells) | {' | '.join(cells)} |")
    return "\n".join(rows)


def number(value):
    return "" if value is None else f"{value:+.2f}"
