"""Run the plan of docs/results/cbp/overshoot/plan.md: chaos against overshooting in CBP.

    python -m experiments.cbp.overshoot [--out docs/results/cbp/overshoot] [--grid 1024] [--rises 512] [--starts 4096]

Finished runs are in ``runs/cbp_overshoot`` and not repeated.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import Experiment, RunTable, controls, dynamics
from csbp_jax.instruments.classify import RISE
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.cbp import conditions
from experiments.cbp.conditions import Condition
from experiments.cbp.net import I0, INPUTS, Kind, Setting, start, step, strength
from experiments.statistics import (
    compare_solved,
    equivalence_of_shares,
    points_text,
    ranked_above,
    share_text,
    solved_starts,
    wilson,
    with_holm,
)
from experiments.study import Content
from experiments.xor.conditions import stacked
from experiments.xor.net import Params

MODULE = "python -m experiments.cbp.overshoot"

GRID_SEEDS, TEST_SEEDS = 300_000, 700_000
STRENGTHS = [float(z) for z in np.geomspace(3, 24, 12)]
RELEASED = min(STRENGTHS, key=lambda z: abs(z - 12))
MARGIN = 0.03
EACH_SIDE = 20
"""Fewest values on either side from which a bootstrap shows their spread."""
CBP, PERIOD_2, ALTERNATING, PLAIN = "CBP", "held in period 2", "S20 + alternating", "plain descent"

TASKS: dict[str, dict[str, Any]] = {
    "XOR, n 0.2, rate 0.2": {"task": "xor", "init": 0.2, "lr": 0.2},
    "parity, n 0.2, rate 0.2": {"task": "parity", "init": 0.2, "lr": 0.2},
    "parity, n 1, rate 0.2": {"task": "parity", "init": 1.0, "lr": 0.2},
    "parity, n 1, rate 1": {"task": "parity", "init": 1.0, "lr": 1.0},
}
CONDITIONS = {
    CBP: Condition(Kind()),
    "S2": Condition(Kind(substeps=2)),
    "S5": Condition(Kind(substeps=5)),
    "S20": Condition(Kind(substeps=20)),
    "held below the flip": Condition(Kind()),
    PERIOD_2: Condition(Kind()),
    ALTERNATING: Condition(Kind(substeps=20, force=controls.replay()), "alternating"),
    "S20 + Gaussian": Condition(Kind(substeps=20, force=controls.gaussian()), "rms"),
}
FLIPS = {"held below the flip": 0.9, PERIOD_2: 1.3}
"""Ceilings of z in units of the flip."""
MEASURED = (CBP, "held below the flip", PERIOD_2)
"""Conditions whose rise is measured at every strength."""
LATER = (ALTERNATING, "S2")
"""Conditions whose rise is measured at their best strength, and that of the first also at the released one."""


def flip(task: str) -> float:
    """z at which the kicks of a hidden neuron overshoot its fixed point, where all its activations are I0."""
    return 2 / (I0 * (1 - I0) * (1 + INPUTS[task] / 2))


@dataclasses.dataclass(frozen=True)
class Overshoot:
    """Training of a task's net, or the rise of its exponents; fields are ``task``, ``condition``, and a setting's.

    measure: "solved" or "rise" (nats).
    """

    measure: str = "solved"

    def group(self, fields: Mapping[str, Any]) -> tuple[str, str]:
        return fields["task"], fields["condition"]

    def train(
        self, group: tuple[str, str], fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]
    ) -> dict[str, Any]:
        task, name = group
        condition = (CONDITIONS | {PLAIN: conditions.PLAIN})[name]
        condition = condition._replace(kind=condition.kind._replace(task=task))
        settings, starts = stacked(Setting, fields), jnp.asarray(seeds)
        if name in FLIPS:
            settings = settings._replace(ceiling=jnp.full(len(seeds), FLIPS[name] * flip(task)))
        measure = rises if self.measure == "rise" else conditions.solved
        return {self.measure: measure(condition, settings, starts)}


def annealed_step(kind: Kind, state: tuple[Params, Setting, jax.Array], _: Any) -> tuple[Params, Setting, jax.Array]:
    """A step of annealed training as a map of ``(params, setting, number of the step)``."""
    params, setting, n = state
    moved, kicked = step(params, setting, strength(n, setting), kind)
    return jax.tree.map(jnp.add, moved, kicked), setting, n + 1


def alternating_step(
    kind: Kind, state: tuple[Params, Setting, jax.Array, Params], _: Any
) -> tuple[Params, Setting, jax.Array, Params]:
    """A step under the alternating force, as a map of ``(params, setting, number of the step, paired CBP run)``."""
    params, setting, n, paired = state
    z = strength(n, setting)
    (moved, kicked), (paired, record) = step(params, setting, z, kind), step(paired, setting, z, Kind(task=kind.task))
    force = jax.tree.map(lambda leaf: (1 - 2 * (n % 2)) * jnp.sqrt(jnp.mean(leaf**2)), record)
    params = jax.tree.map(lambda *leaves: sum(leaves), moved, kicked, force)
    return params, setting, n + 1, jax.tree.map(jnp.add, paired, record)


@functools.cache
def annealed_map(kind: Kind, alternating: bool) -> Any:
    """The map of annealed training; the same function for the same arguments, so that it is compiled once."""
    return functools.partial(alternating_step if alternating else annealed_step, kind)


def rises(condition: Condition, settings: Setting, seeds: jax.Array) -> NDArray[np.float64]:
    """Largest rise of the cumulated local exponents of the annealed run, for each start, in nats."""
    kind, alternating = condition.kind, condition.forced == "alternating"
    params = jax.vmap(lambda seed, init: start(seed, init, kind.task))(seeds, settings.init)
    states: tuple[Any, ...] = (params, settings, jnp.zeros(len(seeds), int))
    leaves: tuple[Any, ...] = (dict.fromkeys(params, True), Setting(*(False,) * len(Setting._fields)), False)
    if alternating:
        states, leaves = (*states, params), (*leaves, dict.fromkeys(params, False))
    push = annealed_map(Kind(task=kind.task, substeps=kind.substeps), alternating)
    return dynamics.annealed_rises(push, states, [None] * kind.first, dynamical_leaves=leaves)


# --- results ------------------------------------------------------------------------------------------------------


def primary(cells: Mapping[str, Content]) -> Content:
    """The primary family, ``{task: {condition: CBP minus it}}``."""
    names = ("S20", PERIOD_2, ALTERNATING)
    pairs = {}
    for task in TASKS:
        results = {name: cells[key(task, name, RELEASED)] for name in (CBP, *names)}
        for name in names:
            pair = compare_solved({name: results[name], CBP: results[CBP]}, name)[CBP]
            pairs[task, name] = pair | equivalence_of_shares(pair, MARGIN) | {"p": pair["p"]}
    corrected = with_holm(pairs)
    return {task: {name: corrected[task, name] for name in names} for task in TASKS}


def verdict(pairs: Content, medians: Mapping[str, float]) -> str:
    """The plan's verdict for one task, from its differences (CBP minus a condition) and its median rises."""
    above = {name: pair["p_holm"] < 0.05 and pair["difference"] > 0 for name, pair in pairs.items()}
    if medians[CBP] < RISE or not above["S20"]:
        return "nothing to explain"
    if medians[PERIOD_2] >= RISE:
        return "not decided: held in period 2 is chaotic, too"
    if pairs[PERIOD_2]["high"] < pairs[PERIOD_2]["margin"]:  # equal or better
        return "overshooting without chaos suffices"
    return "chaos contributes" if above[PERIOD_2] and above[ALTERNATING] else "not decided"


def areas(cells: Mapping[str, Content]) -> Content:
    """Cells of CBP with enough starts on both sides: probability that a solved start has the larger rise."""
    probabilities = {}
    for name in (key(task, CBP, z0) for task in TASKS for z0 in STRENGTHS):
        nats = np.array(cells[name]["rise"])
        success = np.array([bit == "1" for bit in cells[name]["solved"][: len(nats)]])
        if min(success.sum(), (~success).sum()) >= EACH_SIDE:
            probabilities[name] = ranked_above(nats, success)
    return probabilities


def tested_against_cbp(tested: Mapping[str, Content]) -> Content:
    """``{task: {condition: condition minus CBP}}`` on the fresh starts."""
    return {task: compare_solved({name: tested[f"{task} | {name}"] for name in CONDITIONS}, CBP) for task in TASKS}


def analyse(content: Content) -> Content:
    """The differences, verdicts and probabilities of the plan."""
    compared = primary(content["cells"])
    medians = {
        task: {name: float(np.median(content["cells"][key(task, name, RELEASED)]["rise"])) for name in MEASURED}
        for task in TASKS
    }
    return {
        "primary": compared,
        "median_rise": medians,
        "verdicts": {task: verdict(compared[task], medians[task]) for task in TASKS},
        "areas": areas(content["cells"]),
        "tested_against_cbp": tested_against_cbp(content["tested"]),
    }


def page(content: Content) -> str:
    """The tables: primary family, tuned comparison, shares and rises over the strength, rise of solved starts."""
    return "\n\n".join(
        [
            primary_table(content),
            later_table(content),
            tested_table(content),
            *(strengths_table(content, task) for task in TASKS),
            areas_table(content),
        ]
    )


def p_text(p: float) -> str:
    """A p-value; below 1e-300 it may have underflowed."""
    return f"{p:.2g}" if p >= 1e-300 else "below 1e-300"


def primary_table(content: Content) -> str:
    """The primary family with its verdicts, and the median rises at the released strength."""
    rows = []
    for task, pairs in content["primary"].items():
        medians = content["median_rise"][task]
        for name, pair in pairs.items():
            ends = f"{100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}"
            rows.append([task, name, points_text(pair), p_text(pair["p_holm"]), ends])
        rises = ", ".join(f"{name} {nats:.1f}" for name, nats in medians.items())
        rows.append([task, f"**{content['verdicts'][task]}**", f"median rise (nats): {rises}", "", ""])
    return study.table(["task", f"CBP minus, at z0 {RELEASED:.1f}", "points", "p, Holm", "90 % interval"], rows)


def later_table(content: Content) -> str:
    """Rises that were measured after the plan's run."""
    rows = []
    for key, nats in content["later_rises"].items():
        task, name, z0 = key.split(" | ")
        low, median, high = np.quantile(nats, (0.25, 0.5, 0.75))
        rows.append([task, name, f"{float(z0):.1f}", f"{median:.1f} ({low:.1f} to {high:.1f})"])
    return study.table(["task", "condition", "z0", "rise (nats), median (quartiles)"], rows)


def tested_table(content: Content) -> str:
    """Every condition at its best strength, on fresh starts."""
    rows = []
    for task in TASKS:
        rows.append([task, "plain descent", share_text(content["plain"][task]["tested"]), "", "", ""])
        for name in CONDITIONS:
            result, pair = content["tested"][f"{task} | {name}"], content["tested_against_cbp"][task].get(name)
            compared = [points_text(pair), p_text(pair["p_holm"])] if pair else ["", ""]
            rows.append([task, name, share_text(result), f"{result['z0']:.1f}", *compared])
    return study.table(["task", "condition", "solved (%)", "z0, best", "minus CBP (points)", "p, Holm"], rows)


def strengths_table(content: Content, task: str) -> str:
    """Shares of a task (%), and median rises (nats), over the strength."""
    cells = content["cells"]
    rows = [
        [name, *(f"{100 * cells[f'{task} | {name} | {z0:.2f}']['share']:.0f}" for z0 in STRENGTHS)]
        for name in CONDITIONS
    ]
    rows += [
        [f"rise, {name}", *(f"{np.median(cells[f'{task} | {name} | {z0:.2f}']['rise']):.1f}" for z0 in STRENGTHS)]
        for name in MEASURED
    ]
    return study.table([task, *(f"{z0:.1f}" for z0 in STRENGTHS)], rows)


def areas_table(content: Content) -> str:
    """Probabilities that a solved start has the larger rise."""
    rows = []
    for key, area in content["areas"].items():
        task, _, z0 = key.split(" | ")
        rows.append([task, z0, share_text(area)])
    return study.table(["CBP on", "z0", "a solved start has the larger rise (%)"], rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw shares over the strength, and below them the median rise."""
    figure = empty_figure(13, 6)
    panels = figure.subplots(2, len(TASKS), sharex=True, height_ratios=[2, 1])
    for column, task in enumerate(TASKS):
        upper, lower = panels[:, column]
        for i, name in enumerate(CONDITIONS):
            cells = [content["cells"][key(task, name, z0)] for z0 in STRENGTHS]
            style: dict[str, Any] = {
                "color": PALETTE[i % len(PALETTE)],
                "label": name,
                "lw": 2.2 if name == CBP else 1.2,
                "ls": "-" if i < len(PALETTE) else "--",
                "marker": ".",
            }
            upper.plot(STRENGTHS, [100 * cell["share"] for cell in cells], **style)
            if name in MEASURED:
                lower.plot(STRENGTHS, [np.median(cell["rise"]) for cell in cells], **style)
        upper.axhline(100 * content["plain"][task]["grid"]["share"], color="0.5", ls=":", lw=1.2, label="plain descent")
        lower.axhline(RISE, color="0.5", ls="--", lw=0.8)
        upper.set(title=task, ylim=(-2, 102), xscale="log")
        lower.set(xlabel="z0", yscale="log", xticks=[3, 6, 12, 24], xticklabels=["3", "6", "12", "24"])
        lower.minorticks_off()
    panels[0, 0].set_ylabel(f"solved (%), {content['grid']} starts")
    panels[1, 0].set_ylabel(f"median rise (nats),\n{content['rises']} starts")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    study.save_figure(figure, out, "overshoot")


def trained(grid: int, starts: int) -> Experiment:
    """All conditions on all tasks, each tested at its best strength."""
    names = (*CONDITIONS, PLAIN)
    return Experiment(
        Overshoot(),
        {name: {"condition": name} | ({"z0": 0.0} if name == PLAIN else {}) for name in names},
        cases=TASKS,
        tuned={"z0": STRENGTHS},
        tuning_seeds=range(GRID_SEEDS, GRID_SEEDS + grid),
        seeds=range(TEST_SEEDS, TEST_SEEDS + starts),
    )


def measured(cells: Iterable[tuple[str, str, float]], starts: int) -> Experiment:
    """The rises of a condition on a task at a strength; a cell is a case."""
    cases = {key(*cell): TASKS[cell[0]] | {"condition": cell[1], "z0": cell[2]} for cell in cells}
    return Experiment(Overshoot("rise"), {"": {}}, cases=cases, seeds=range(GRID_SEEDS, GRID_SEEDS + starts))


def key(task: str, name: str, z0: float) -> str:
    """Name of a cell."""
    return f"{task} | {name} | {z0:.2f}"


def results_of(table: RunTable) -> Content:
    """``plain``, ``cells`` and ``tested`` of the table of :func:`trained`."""
    content: Content = {"plain": {}, "cells": {}, "tested": {}}
    for task in TASKS:
        of_plain = table.where(case=task, arm=PLAIN)
        runs = {"grid": of_plain.where(role="tune", **{"try": 0}), "tested": of_plain.where(role="test")}
        content["plain"][task] = {
            part: wilson(of_part.frame["solved"].to_numpy(bool)) for part, of_part in runs.items()
        }
        for name in CONDITIONS:
            of_arm = table.where(case=task, arm=name)
            tested = of_arm.where(role="test")
            content["tested"][f"{task} | {name}"] = {
                "z0": float(tested.frame["z0"].iloc[0]),
                **solved_starts(tested.frame["solved"]),
            }
            for z0 in STRENGTHS:
                tuned = of_arm.where(role="tune", z0=z0)
                content["cells"][key(task, name, z0)] = solved_starts(tuned.frame["solved"])
    return content


def rises_of(table: RunTable) -> dict[str, list[float]]:
    """``{cell: rise of each start}``."""
    return {
        str(cell): [round(nats, 4) for nats in runs["rise"]] for cell, runs in table.frame.groupby("case", sort=False)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "cbp/overshoot", grid=1024, rises=512, starts=4096)
    options = parser.parse_args(arguments)
    folder = study.WORK / "cbp_overshoot"
    content: Content = {name: getattr(options, name) for name in ("grid", "rises", "starts")}
    content |= results_of(trained(options.grid, options.starts).run(folder / "trained", chunk=conditions.CHUNK))
    first = measured(itertools.product(TASKS, MEASURED, STRENGTHS), options.rises)
    for cell, nats in rises_of(first.run(folder / "rises")).items():
        content["cells"][cell]["rise"] = nats
    later = [(task, ALTERNATING, RELEASED) for task in TASKS]
    later += [(task, name, content["tested"][f"{task} | {name}"]["z0"]) for name in LATER for task in TASKS]
    content["later_rises"] = rises_of(measured(later, options.rises).run(folder / "rises"))
    content |= analyse(content)
    study.sign(content, study.provenance(MODULE))
    draw(content, options.out)
    study.write(options.out, "overshoot", content, page(content))


if __name__ == "__main__":
    study.run(main)
