"""CBP's results as tables and figures."""

import numpy as np

from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments.cbp.conditions import INITS, TABLE
from experiments.shares import points

# In nats a step, at a distance of 1e-2; nothing that stays within bounds grows so fast.
AWAY = 1.0


def page(content):
    """Their table beside ours, and the conditions, in Markdown."""
    heads = " | ".join(f"n = {init:g}" for init in INITS)
    rows = [f"| method, optimiser | {heads} |", "|---|---|---|---|---|"]
    for name in TABLE:
        cells = [_cell(content["table"][f"{' '.join(name)} {init:g}"]) for init in INITS]
        rows.append(f"| {', '.join(name)} | {' | '.join(cells)} |")
    tables = [tested(content["conditions"], content["against_cbp"], "plain descent, with")]
    tables.append(tested(content["tuned_widely"], content["tuned_widely_against_cbp"], "tuned over weaker ones too"))
    tables.append(held(content))
    return "\n\n".join(["\n".join(rows), *tables])


def tested(results, against, head):
    """Conditions, from the best on."""
    rows = [
        f"| {head} | {' | '.join(f'n = {init:g}' for init in INITS)} | setting, tuned |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in sorted(results.items(), key=lambda item: -_mean(item[1])):
        cells = [_tested(r, against, name, f"{init:g}") for init in INITS]
        told = ", ".join(f"{field} {value:.4g}" for field, value in r["setting"].items())
        rows.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(rows)


def held(content):
    """Where CBP is chaotic: with its overshooting and without."""
    rows = [f"| not tuned | {' | '.join(f'n = {init:g}' for init in INITS)} |", "|---|---|---|---|---|"]
    for name, r in content["held"].items():
        rows.append(f"| {name} | {' | '.join(_interval(r['inits'][f'{init:g}']) for init in INITS)} |")
    for z0 in ("z0 12", "z0 24"):
        pairs = [content["held_against_sub_steps"][f"{z0}, n = {init:g}"] for init in INITS]
        cells = [f"{points(one)} (p {one['p_holm']:.2g})" for one in pairs]
        rows.append(f"| CBP - sub-steps, {z0} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean(condition):
    return np.mean([r["share"] for r in condition["inits"].values()])


def _cell(found):
    told = f"{_interval(found)}; {found['published']}"
    return told if found["p_holm"] > 0.05 else f"**{told}** (p {found['p_holm']:.2g})"


def _interval(found):
    return f"{100 * found['share']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _tested(result, against, name, init):
    pair = against[init].get(name)
    return f"{100 * result['inits'][init]['share']:.1f}{'*' if pair and pair['p_holm'] < 0.05 else ''}"


def draw(content, out):
    """Exponents over z."""
    figure = empty_figure(11, 6.4)
    found = content["exponents"]
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (key, label) in zip(
        panels, (("tangent", "tangent exponent"), ("finite_size", "exponent at distance 1e-2")), strict=True
    ):
        for axes, where in zip(row, ("kicks alone", "whole map"), strict=True):
            axes.axhline(0, color="black", lw=0.5)
            for i, (name, curves) in enumerate(found[where].items()):
                values, sized = (np.array(curves[quantity], float) for quantity in (key, "finite_size"))
                kept = (sized < AWAY).all(axis=1)
                _band(axes, np.array(found["z"])[kept], values[kept], PALETTE[i], name, ("-", "--", ":")[i])
            axes.set(title=where if key == "tangent" else None, xscale="log")
            axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["0.25", "0.5", "1", "2", "4", "8", "16"])
            axes.minorticks_off()
        row[0].set(ylabel=f"{label}\n(nats a step)", ylim=(-0.1, 0.45))
    for axes in panels[1]:
        axes.set_xlabel("z, fixed")
    panels[0, 0].legend(fontsize="small", title="median and range of 8 starts", title_fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"exponents.{kind}", dpi=120)


def _band(axes, z, values, color, name, style):
    axes.plot(z, np.median(values, axis=1), style, color=color, lw=1.5, label=name)
    axes.fill_between(z, values.min(axis=1), values.max(axis=1), color=color, alpha=0.2, lw=0)
