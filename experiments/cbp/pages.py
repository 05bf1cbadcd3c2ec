"""CBP's results as tables and figures."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.cbp.conditions import INITS, PUBLISHED
from experiments.statistics import points_text, share_text
from experiments.study import Content

# In nats per step, at a distance of 1e-2; nothing that stays within bounds grows so fast.
AWAY = 1.0
HEADS = [f"n = {init:g}" for init in INITS]


def page(content: Content) -> str:
    """The published table beside ours, and the conditions, in Markdown."""
    rows = [
        [method.replace(" ", ", "), *(_cell(content["table"][f"{method} {init:g}"]) for init in INITS)]
        for method in PUBLISHED
    ]
    return "\n\n".join(
        [
            study.table(["method, optimiser", *HEADS], rows),
            tested(content["conditions"], content["against_cbp"], "plain descent, with"),
            tested(content["tuned_widely"], content["tuned_widely_against_cbp"], "tuned over weaker ones too"),
            held(content),
        ]
    )


def tested(results: Mapping[str, Content], against: Content, head: str) -> str:
    """A table of conditions, from the best on."""
    rows = []
    for name, result in sorted(results.items(), key=lambda item: -_mean(item[1])):
        cells = [_tested(result, against, name, f"{init:g}") for init in INITS]
        setting = ", ".join(f"{field} {value:.4g}" for field, value in result["setting"].items())
        rows.append([name, *cells, setting])
    return study.table([head, *HEADS, "setting, tuned"], rows)


def held(content: Content) -> str:
    """A table of the conditions where CBP is chaotic: with its overshooting and without."""
    rows = [
        [name, *(share_text(result["inits"][f"{init:g}"]) for init in INITS)]
        for name, result in content["held"].items()
    ]
    for z0 in ("z0 12", "z0 24"):
        pairs = [content["held_against_sub_steps"][f"{z0}, n = {init:g}"] for init in INITS]
        cells = [f"{points_text(pair)} (p {pair['p_holm']:.2g})" for pair in pairs]
        rows.append([f"CBP - sub-steps, {z0}", *cells])
    return study.table(["not tuned", *HEADS], rows)


def _mean(condition: Content) -> float:
    return float(np.mean([result["share"] for result in condition["inits"].values()]))


def _cell(result: Content) -> str:
    shares = f"{share_text(result)}; {result['published']}"
    return shares if result["p_holm"] > 0.05 else f"**{shares}** (p {result['p_holm']:.2g})"


def _tested(result: Content, against: Content, name: str, init: str) -> str:
    pair = against[init].get(name)
    return f"{100 * result['inits'][init]['share']:.1f}{'*' if pair and pair['p_holm'] < 0.05 else ''}"


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw exponents over z."""
    figure = empty_figure(11, 6.4)
    measured = content["exponents"]
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (key, label) in zip(
        panels, (("tangent", "tangent exponent"), ("finite_size", "exponent at distance 1e-2")), strict=True
    ):
        for axes, where in zip(row, ("kicks alone", "whole map"), strict=True):
            axes.axhline(0, color="black", lw=0.5)
            for i, (name, curves) in enumerate(measured[where].items()):
                values, sized = (np.array(curves[quantity], float) for quantity in (key, "finite_size"))
                bounded = (sized < AWAY).all(axis=1)
                z = np.array(measured["z"])[bounded]
                _band(axes, z, values[bounded], color=PALETTE[i], label=name, ls=("-", "--", ":")[i])
            axes.set(title=where if key == "tangent" else None, xscale="log")
            axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["0.25", "0.5", "1", "2", "4", "8", "16"])
            axes.minorticks_off()
        row[0].set(ylabel=f"{label}\n(nats per step)", ylim=(-0.1, 0.45))
    for axes in panels[1]:
        axes.set_xlabel("z, fixed")
    panels[0, 0].legend(fontsize="small", title="median and range of 8 starts", title_fontsize="small")
    study.save_figure(figure, out, "exponents")


def _band(axes: Any, z: NDArray[Any], values: NDArray[Any], color: str, **style: str) -> None:
    axes.plot(z, np.median(values, axis=1), color=color, lw=1.5, **style)
    axes.fill_between(z, values.min(axis=1), values.max(axis=1), color=color, alpha=0.2, lw=0)
