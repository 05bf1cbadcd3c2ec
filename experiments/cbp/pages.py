"""CBP's results as tables and figures."""

import numpy as np

from csbp_jax.figures import PALETTE, blank
from experiments.cbp.conditions import INITS, TABLE


def page(content):
    """Their table beside ours, and the conditions, in Markdown."""
    heads = " | ".join(f"n = {init:g}" for init in INITS)
    rows = [f"| method, optimiser | {heads} |", "|---|---|---|---|---|"]
    for name in TABLE:
        cells = [_cell(content["table"][f"{' '.join(name)} {init:g}"]) for init in INITS]
        rows.append(f"| {', '.join(name)} | {' | '.join(cells)} |")
    rows += ["", f"| plain descent, with | {heads} | setting, tuned |", "|---|---|---|---|---|---|"]
    order = sorted(content["conditions"].items(), key=lambda item: -_mean(item[1]))
    for name, r in order:
        cells = [_tested(content, name, f"{init:g}") for init in INITS]
        told = ", ".join(f"{field} {value:.4g}" for field, value in r["setting"].items())
        rows.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(rows)


def _mean(condition):
    return np.mean([r["share"] for r in condition["inits"].values()])


def _cell(found):
    told = f"{100 * found['share']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]; {found['published']}"
    return told if found["p_holm"] > 0.05 else f"**{told}** (p {found['p_holm']:.2g})"


def _tested(content, name, init):
    r, against = content["conditions"][name]["inits"][init], content["against_cbp"][init].get(name)
    star = "*" if against and against["p_holm"] < 0.05 else ""
    return f"{100 * r['share']:.1f}{star}"


def draw(content, out):
    """Exponents over z."""
    figure = blank(11, 6)
    found = content["exponents"]
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (key, label) in zip(
        panels, (("tangent", "tangent exponent"), ("finite_size", "exponent at distance 1e-2")), strict=True
    ):
        for axes, where in zip(row, ("kicks alone", "whole map"), strict=True):
            for i, (name, curves) in enumerate(found[where].items()):
                _band(axes, found["z"], np.array(curves[key], float), PALETTE[i], name)
            axes.axhline(0, color="black", lw=0.8)
            axes.set(title=where if key == "tangent" else None, xscale="log")
        # The drift runs away beyond its flip.
        row[0].set(ylabel=f"{label}\n(nats a step)", ylim=(-0.1, 0.8))
    for axes in panels[1]:
        axes.set_xlabel("z, fixed")
    panels[0, 0].legend(fontsize="small", title="median and range of 8 starts", title_fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"exponents.{kind}", dpi=120)


def _band(axes, z, values, color, name):
    # Where a run ran away there is no exponent.
    kept = np.isfinite(values).all(axis=1)
    z, values = np.asarray(z)[kept], values[kept]
    axes.plot(z, np.median(values, axis=1), color=color, lw=1.3, label=name)
    axes.fill_between(z, values.min(axis=1), values.max(axis=1), color=color, alpha=0.2, lw=0)
