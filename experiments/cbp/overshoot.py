"""Run the plan of docs/results/cbp_overshoot/plan.md: chaos against overshooting in CBP.

    python -m experiments.cbp.overshoot [--out docs/results/cbp_overshoot] [--grid 1024] [--rises 512] [--starts 4096]

Finished cells are read from ``overshoot.json`` and not repeated.
"""

import argparse
import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import controls, dynamics
from csbp_jax.instruments.classify import RISE
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import forcing, study
from experiments.cbp.net import I0, INPUTS, Kind, Setting, start, step, strength, train
from experiments.statistics import (
    EACH_SIDE,
    bits,
    compare_solved,
    equivalence_of_shares,
    holm,
    points_text,
    ranked_above,
    share_text,
    wilson,
)
from experiments.study import Content
from experiments.xor.net import Params

MODULE = "python -m experiments.cbp.overshoot"

GRID_SEEDS, TEST_SEEDS, BLOCK = 300_000, 700_000, 256
STRENGTHS = [float(z) for z in np.geomspace(3, 24, 12)]
RELEASED = min(STRENGTHS, key=lambda z: abs(z - 12))
MARGIN = 0.03
CBP, PERIOD_2, ALTERNATING = "CBP", "held in period 2", "S20 + alternating"


class Task(NamedTuple):
    """A task with its initialisation and learning rate."""

    name: str
    init: float
    lr: float


class Condition(NamedTuple):
    """A kind of training without its task.

    flips: ceiling of z in units of the flip, or None. forced: as ``how`` of :func:`experiments.forcing.of_starts`.
    """

    kind: Kind = Kind()
    flips: float | None = None
    forced: str | None = None


TASKS = {
    "XOR, n 0.2, rate 0.2": Task("xor", 0.2, 0.2),
    "parity, n 0.2, rate 0.2": Task("parity", 0.2, 0.2),
    "parity, n 1, rate 0.2": Task("parity", 1.0, 0.2),
    "parity, n 1, rate 1": Task("parity", 1.0, 1.0),
}
CONDITIONS = {
    CBP: Condition(),
    "S2": Condition(Kind(substeps=2)),
    "S5": Condition(Kind(substeps=5)),
    "S20": Condition(Kind(substeps=20)),
    "held below the flip": Condition(flips=0.9),
    PERIOD_2: Condition(flips=1.3),
    ALTERNATING: Condition(Kind(substeps=20, force=controls.replay()), forced="alternating"),
    "S20 + Gaussian": Condition(Kind(substeps=20, force=controls.gaussian()), forced="rms"),
}
MEASURED = (CBP, "held below the flip", PERIOD_2)
"""Conditions whose rise is measured at every strength."""
LATER = (ALTERNATING, "S2")
"""Conditions whose rise is measured at their best strength, and that of the first also at the released one."""


def flip(task: str) -> float:
    """z at which the kicks of a hidden neuron overshoot its fixed point, where all its activations are I0."""
    return 2 / (I0 * (1 - I0) * (1 + INPUTS[task] / 2))


def make_setting(task: Task, condition: Condition, z0: float) -> Setting:
    """The setting of a cell, as arrays: Python numbers would compile once per setting."""
    ceiling = jnp.inf if condition.flips is None else condition.flips * flip(task.name)
    return jax.tree.map(jnp.float32, Setting(z0=z0, lr=task.lr, init=task.init, ceiling=ceiling))


def solved(task: Task, condition: Condition, z0: float, seeds: np.ndarray) -> np.ndarray:
    """Whether each start is solved, ``[seeds]``; in blocks, as the records of kicks are large."""
    setting, kind = make_setting(task, condition, z0), condition.kind._replace(task=task.name)
    z = strength(jnp.arange(kind.first), setting)

    def record(seed: jax.Array) -> Params:
        kicks: Params = train(seed, make_setting(task, CONDITIONS[CBP], z0), kind=Kind(task=task.name), record=True)[1]
        return kicks

    def run(block: np.ndarray) -> np.ndarray:
        force = forcing.of_starts(condition.forced, record, jnp.asarray(block), z)
        axes = (0, None, None if force is None else 0)
        return np.asarray(jax.vmap(lambda *a: train(*a, kind=kind)[0], axes)(jnp.asarray(block), setting, force))

    return np.concatenate([run(seeds[i : i + BLOCK]) for i in range(0, len(seeds), BLOCK)])


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


def rises(task: Task, condition: Condition, z0: float, seeds: np.ndarray) -> list[float]:
    """Largest rise of the cumulated local exponents of the annealed run, for each start, in nats."""
    setting = jax.tree.map(lambda value: jnp.broadcast_to(value, len(seeds)), make_setting(task, condition, z0))
    params = jax.vmap(lambda seed: start(seed, jnp.float32(task.init), task.name))(jnp.asarray(seeds))
    states: tuple[Any, ...] = (params, setting, jnp.zeros(len(seeds), int))
    leaves: tuple[Any, ...] = (dict.fromkeys(params, True), Setting(*(False,) * len(Setting._fields)), False)
    alternating = condition.forced == "alternating"
    if alternating:
        states, leaves = (*states, params), (*leaves, dict.fromkeys(params, False))
    push = annealed_map(Kind(task=task.name, substeps=condition.kind.substeps), alternating)
    return dynamics.annealed_rises(push, states, [None] * condition.kind.first, dynamical_leaves=leaves).tolist()


# --- results ------------------------------------------------------------------------------------------------------


def primary(cells: Mapping[str, Content]) -> Content:
    """The primary family, ``{task: {condition: CBP minus it}}``."""
    names = ("S20", PERIOD_2, ALTERNATING)
    pairs = {}
    for task in TASKS:
        results = {name: cells[f"{task} | {name} | {RELEASED:.2f}"] for name in (CBP, *names)}
        for name in names:
            pair = compare_solved({name: results[name], CBP: results[CBP]}, name)[CBP]
            pairs[task, name] = pair | equivalence_of_shares(pair, MARGIN) | {"p": pair["p"]}
    corrected = holm({key: pair["p"] for key, pair in pairs.items()})
    return {task: {name: pairs[task, name] | {"p_holm": corrected[task, name]} for name in names} for task in TASKS}


def verdict(pairs: Content, medians: Mapping[str, float]) -> str:
    """The plan's verdict for one task, from its differences (CBP minus a condition) and its median rises."""
    above = {name: pair["p_holm"] < 0.05 and pair["difference"] > 0 for name, pair in pairs.items()}
    if medians[CBP] < RISE or not above["S20"]:
        return "nothing to explain"
    if medians[PERIOD_2] >= RISE:
        return "not decided: held in period 2 is chaotic, too"
    equal_or_better = pairs[PERIOD_2]["high"] < pairs[PERIOD_2]["margin"]
    if equal_or_better:
        return "overshooting without chaos suffices"
    return "chaos contributes" if above[PERIOD_2] and above[ALTERNATING] else "not decided"


def areas(cells: Mapping[str, Content]) -> Content:
    """Cells of CBP with enough starts on both sides: probability that a solved start has the larger rise."""
    probabilities = {}
    for key, cell in cells.items():
        if f"| {CBP} |" not in key:
            continue
        nats = np.array(cell["rise"])
        success = np.array([bit == "1" for bit in cell["solved"][: len(nats)]])
        if min(success.sum(), (~success).sum()) >= EACH_SIDE:
            probabilities[key] = ranked_above(nats, success)
    return probabilities


def tested_against_cbp(tested: Mapping[str, Content]) -> Content:
    """``{task: {condition: condition minus CBP}}`` on the fresh starts."""
    names = (CBP, *(name for name in CONDITIONS if name != CBP))
    return {task: compare_solved({name: tested[f"{task} | {name}"] for name in names}, CBP) for task in TASKS}


def page(content: Content) -> str:
    """The tables: primary family, tuned comparison, shares and rises over the strength, rise of solved starts."""
    tables = [primary_table(content)]
    if content.get("later_rises"):
        tables.append(later_table(content))
    if "tested_against_cbp" in content:
        tables += [tested_table(content), *(strengths_table(content, task) for task in TASKS), areas_table(content)]
    return "\n\n".join(tables)


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
        if area:
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
            cells = [content["cells"][f"{task} | {name} | {z0:.2f}"] for z0 in STRENGTHS]
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
        plain = 100 * content["plain"][task]["grid"]["share"]
        upper.axhline(plain, color="0.5", ls=":", lw=1.2, label="plain descent")
        lower.axhline(RISE, color="0.5", ls="--", lw=0.8)
        upper.set(title=task, ylim=(-2, 102), xscale="log")
        lower.set(xlabel="z0", yscale="log", xticks=[3, 6, 12, 24], xticklabels=["3", "6", "12", "24"])
        lower.minorticks_off()
    panels[0, 0].set_ylabel(f"solved (%), {content['grid']} starts")
    panels[1, 0].set_ylabel(f"median rise (nats),\n{content['rises']} starts")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    study.save_figure(figure, out, "overshoot")


def run_plain(content: Content, options: argparse.Namespace, file: pathlib.Path) -> None:
    """Train the plain runs of every task."""
    plain = Condition(Kind(kick=None))
    for task, setup in TASKS.items():
        if task not in content["plain"]:
            content["plain"][task] = {
                name: wilson(solved(setup, plain, 0.0, first + np.arange(count)))
                for name, first, count in (
                    ("grid", GRID_SEEDS, options.grid),
                    ("tested", TEST_SEEDS, options.starts),
                )
            }
            study.store(file, content, MODULE)


def run_cells(content: Content, options: argparse.Namespace, file: pathlib.Path, strengths: Sequence[float]) -> None:
    """Run the cells of some strengths, and measure rises."""
    seeds = GRID_SEEDS + np.arange(options.grid)
    for task, name, z0 in itertools.product(TASKS, CONDITIONS, strengths):
        key, setup, condition = f"{task} | {name} | {z0:.2f}", TASKS[task], CONDITIONS[name]
        if key in content["cells"]:
            continue
        values = solved(setup, condition, z0, seeds)
        cell: Content = wilson(values) | {"solved": bits(values)}
        if name in MEASURED:
            cell["rise"] = [round(nats, 4) for nats in rises(setup, condition, z0, seeds[: options.rises])]
        content["cells"][key] = cell
        study.store(file, content, MODULE)
        print(f"{key:50} {cell['share']:.3f}", flush=True)


def run_tests(content: Content, options: argparse.Namespace, file: pathlib.Path) -> None:
    """Test every condition at its best strength on fresh starts."""
    for task, setup in TASKS.items():
        for name, condition in CONDITIONS.items():
            key = f"{task} | {name}"
            if key not in content["tested"]:
                shares = [content["cells"][f"{task} | {name} | {z0:.2f}"]["share"] for z0 in STRENGTHS]
                z0 = STRENGTHS[int(np.argmax(shares))]
                values = solved(setup, condition, z0, TEST_SEEDS + np.arange(options.starts))
                content["tested"][key] = {"z0": z0, **wilson(values), "solved": bits(values)}
                study.store(file, content, MODULE)
                print(f"{key:50} {content['tested'][key]['share']:.3f}", flush=True)


def run_later_rises(content: Content, options: argparse.Namespace, file: pathlib.Path) -> None:
    """Measure the rises that the plan does not have, on the same starts as the others."""
    content.setdefault("later_rises", {})
    cells = [(task, ALTERNATING, RELEASED) for task in TASKS]
    cells += [(task, name, content["tested"][f"{task} | {name}"]["z0"]) for name in LATER for task in TASKS]
    for task, name, z0 in cells:
        key = f"{task} | {name} | {z0:.2f}"
        if key not in content["later_rises"]:
            nats = rises(TASKS[task], CONDITIONS[name], z0, GRID_SEEDS + np.arange(options.rises))
            content["later_rises"][key] = [round(value, 4) for value in nats]
            study.store(file, content, MODULE)
            print(f"{key:50} rise {np.median(nats):.2f} nats", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "cbp_overshoot")
    for name, size in (("grid", 1024), ("rises", 512), ("starts", 4096)):
        parser.add_argument(f"--{name}", type=int, default=size)
    options = parser.parse_args(arguments)
    file = options.out / "overshoot.json"
    sizes = {"grid": options.grid, "rises": options.rises, "starts": options.starts}
    content = study.resume(parser, file, sizes, {"plain": {}, "cells": {}, "tested": {}})
    run_plain(content, options, file)
    run_cells(content, options, file, [RELEASED])
    content["primary"] = primary(content["cells"])
    content["median_rise"] = {
        task: {
            name: float(np.median(content["cells"][f"{task} | {name} | {RELEASED:.2f}"]["rise"])) for name in MEASURED
        }
        for task in TASKS
    }
    content["verdicts"] = {t: verdict(content["primary"][t], content["median_rise"][t]) for t in TASKS}
    study.write(options.out, "overshoot", content, page(content))
    run_cells(content, options, file, STRENGTHS)
    run_tests(content, options, file)
    run_later_rises(content, options, file)
    content["areas"] = areas(content["cells"])
    content["tested_against_cbp"] = tested_against_cbp(content["tested"])
    draw(content, options.out)
    study.write(options.out, "overshoot", content, page(content))


if __name__ == "__main__":
    study.run(main)
