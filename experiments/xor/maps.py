"""The plane of strength and target: its axes, theory's lines in it, its summary, table and figure."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib import patheffects
from numpy.typing import NDArray

from csbp_jax.reporting.plots import empty_figure
from experiments import study
from experiments.statistics import rank_correlation
from experiments.study import Content, finite_or_none

STRENGTHS = tuple(2.0 ** (i / 2) for i in range(-8, 13))
TARGETS = tuple(0.5 + 0.05 * i for i in range(9))
TERMS, CHAOTIC = ("chaos", "drift"), 0.05
# Largest eigenvalue of the mean of (x, 1) (x, 1)' over the four patterns, over the layer's two neurons.
FIRST_LAYER = 1.593 / 2


@functools.cache
def first_chaos(target: float) -> float | None:
    """The first a with a positive exponent (above 0.01) of ``y' = y - a (s(y) - I0)``; None if there is none."""
    with study.float64():
        scan = jnp.linspace(2, 16, 1401) / (target * (1 - target))

        def exponent(a):
            def push(y, _):
                slope = jax.nn.sigmoid(y) * jax.nn.sigmoid(-y)
                return y - a * (jax.nn.sigmoid(y) - target), jnp.log(jnp.abs(1 - a * slope))

            return lax.scan(push, 0.1, length=6000)[1][1000:].mean()

        exponents = np.asarray(jax.jit(jax.vmap(exponent))(scan))
    positive = np.flatnonzero(exponents > 0.01)
    return float(scan[positive[0]]) if positive.size else None


# Curvature of the chaos term in h, by neuron.
CURVATURES = {"first layer": FIRST_LAYER, "output neuron, hidden silent": 1.0, "output neuron, hidden firing": 3.0}


def flip_lines() -> dict[str, list[float]]:
    """Where the term alone flips, ``{name: a over TARGETS}``."""
    return {f"flip, {name}": [2 / (i * (1 - i) * c) for i in TARGETS] for name, c in CURVATURES.items()}


def lines() -> dict[str, Sequence[float | None]]:
    """Theory's lines, ``{name: a over TARGETS}``."""
    onsets = [first_chaos(i) for i in TARGETS]
    chaos = {f"first chaos, {name}": [a / c if a else None for a in onsets] for name, c in CURVATURES.items()}
    return {**flip_lines(), **chaos}


def summary(planes: Mapping[str, Content]) -> Content:
    """The numbers of the table, for each term."""
    summaries = {}
    names = ("tangent", "finite_size", "flip_ratio")
    for term, plane in planes.items():
        grids = {name: grid(plane, name) for name in ("solved", "tangent", "finite_size", "flip_ratio")}
        bounded = np.isfinite(grids["tangent"])
        best = np.unravel_index(np.argmax(grids["solved"]), grids["solved"].shape)
        chaotic = bounded & (grids["tangent"] > CHAOTIC)
        summaries[term] = {
            "best": {"solved": grids["solved"][best], "I0": TARGETS[best[0]], "a": STRENGTHS[best[1]]}
            | {name: finite_or_none(grids[name][best]) for name in names},
            "correlation_with_solved": {name: rank_correlation(grids["solved"], grids[name]) for name in names},
            "cells": int(bounded.size),
            "ran_away": int((~bounded).sum()),
            "chaotic": int(chaotic.sum()),
            "solved_where_chaotic": finite_or_none(grids["solved"][chaotic].mean()) if chaotic.any() else None,
            "solved_elsewhere": finite_or_none(grids["solved"][bounded & ~chaotic].mean()),
        }
    return summaries


def grid(plane: Content, name: str) -> NDArray[np.float64]:
    """``[targets, strengths]``, without z = 0."""
    return np.array([plane[f"{i:.2f}"][name][1:] for i in TARGETS], float)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw four maps of either term, with theory's lines."""
    figure = empty_figure(13, 6.6)
    maps = (
        ("solved", "starts that solve XOR (%)", "viridis", (0, 100)),
        ("tangent", "(a) tangent exponent (nats per step)", "RdBu_r", (-0.6, 0.6)),
        ("finite_size", "(b) exponent at 1e-2 (nats per step)", "RdBu_r", (-0.6, 0.6)),
        ("flip_ratio", "log2 of the flip ratio", "RdBu_r", (-3, 3)),
    )
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes_row, term in zip(panels, TERMS, strict=True):
        for axes, (name, label, colours, limits) in zip(axes_row, maps, strict=True):
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
                bar: dict[str, Any] = {
                    "location": "bottom",
                    "shrink": 0.9,
                    "extend": "neither" if name == "solved" else "both",
                }
                figure.colorbar(mesh, ax=panels[:, list(axes_row).index(axes)], label=label, **bar)
    for axes in panels[:, 0]:
        axes.set_ylabel("target I0")
    for axes in panels[1]:
        axes.set_xlabel("a = lr z / k²")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    study.save_figure(figure, out, "phase")


def over(axes: Any, lines: Mapping[str, Sequence[float | None]]) -> None:
    """Draw theory's lines, visible on any colour: black for the flips, white for the first chaos."""
    for i, (name, a) in enumerate(lines.items()):
        inner, outer = ("black", "white") if name.startswith("flip") else ("white", "black")
        halo = [patheffects.Stroke(linewidth=2.4, foreground=outer), patheffects.Normal()]
        style = ("-", "--", ":")[i % 3]
        axes.plot(np.array(a, float), TARGETS, style, color=inner, lw=1.1, label=name, path_effects=halo)


def page(content: Content) -> str:
    """The summary in Markdown."""
    sides = [content["summary"][term] for term in TERMS]
    best = [s["best"] for s in sides]
    names = ("tangent", "finite_size", "flip_ratio")
    rows = [
        ["best cell, solved (%)", *(f"{100 * b['solved']:.0f}" for b in best)],
        ["there, a and I0", *(f"{b['a']:.3g}, {b['I0']:.2f}" for b in best)],
        *([f"there, {name.replace('_', ' ')}", *(number(b[name]) for b in best)] for name in names),
    ]
    for name in names:
        cells = [number(s["correlation_with_solved"][name]) for s in sides]
        rows.append([f"rank correlation of solved with {name.replace('_', ' ')}", *cells])
    rows.append([f"cells chaotic, of {sides[0]['cells']}", *(str(s["chaotic"]) for s in sides)])
    rows.append(["cells that run away", *(str(s["ran_away"]) for s in sides)])
    for name in ("solved_where_chaotic", "solved_elsewhere"):
        cells = ["" if s[name] is None else f"{100 * s[name]:.0f}" for s in sides]
        rows.append([f"{name.replace('_', ' ')} (%, mean of cells)", *cells])
    return study.table(["", "chaos term", "drift"], rows)


def number(value: float | None) -> str:
    """A signed number, or an empty cell."""
    return "" if value is None else f"{value:+.2f}"
