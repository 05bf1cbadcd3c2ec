"""Chaos of a set strength: z of a digits net, steered so that the local exponent follows a path that comes down to 0.

    python -m experiments.steering [--starts 8] [--data-dir data] [--out docs/results/steering]

The plan is docs/results/steering/plan.md.
"""

import argparse
import dataclasses
import pathlib

import numpy as np

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_json
from csbp_jax.training.compiled import resolve
from experiments.machine import about
from experiments.steering import control

HELD, DOWN, CALM, WINDOW, EACH = 500, 500, 200, 100, 10
TOPS = (0.05, 0.15)
GAIN, LIMITS, NEAR = 0.1, (1e-4, 100.0), 0.02


def config():
    """The digits net under plain SGD, its z a quarter of the term's flip at the start."""
    given = configs.load("digits")
    return dataclasses.replace(
        given,
        batch_size=16,
        model=dataclasses.replace(given.model, features=(8, 8, 8)),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
        chaos=Chaos(z0=(0.25,), taps=("conv1.membrane",), unit="flip", scale=1.0),
    )


def path(top):
    """Exponents that are wanted: held, brought down to 0, held there; nats a step."""
    return np.concatenate([np.full(HELD, top), np.linspace(top, 0, DOWN), np.zeros(CALM)])


def measured(options):
    """``{z0, terms: {term: {top: {factors, local [starts, steps / EACH]}}}}``: at, and means of, every ten steps."""
    parts = data.load(config(), options.data_dir)
    given, source = resolve(config(), parts), parts["train"]
    probe, per_epoch = training_map.batches(given, source, 1)[0], len(source) // given.batch_size
    plain, found = training_map.in_plain_units(given, probe, per_epoch), {}
    for term in ("chaos", "drift"):
        run = training_map.make(replaced(plain, "chaos.term", term), probe, per_epoch)
        for top in TOPS:
            one = found.setdefault(term, {}).setdefault(f"{top:g}", {"factors": [], "local": []})
            for seed in range(options.starts):
                start, wanted = run.start(seed, True), path(top)
                stream = training_map.batches(given, source, len(wanted), seed)
                turn, dynamical_leaves = training_map.strength(start), learner.dynamical_leaves(start)
                told = control.control_exponent(
                    run.step, start, stream, wanted, turn, gain=GAIN, limits=LIMITS, dynamical_leaves=dynamical_leaves
                )
                one["factors"].append(told.factors[::EACH].round(5).tolist())
                one["local"].append(told.local.reshape(-1, EACH).mean(axis=1).round(5).tolist())
                print(f"{term}, from {top:g}, start {seed}: {told.local[HELD // 2 : HELD].mean():+.4f}", flush=True)
    return {"z0": list(plain.chaos.z0), "terms": found}


def windows(local):
    """Means over windows of steps, ``[starts, windows]``."""
    local = np.asarray(local)
    return local.reshape(len(local), -1, WINDOW // EACH).mean(axis=2)


def page(content):
    """In Markdown: the mean exponent where it should be held and where it should be 0, and how far z was turned."""
    head = f"| term | wanted | measured there | starts within {NEAR:g} | wanted 0, measured |"
    rows = [head + " z at the end of the hold | at the end |"]
    rows.append("|---" * 7 + "|")
    for term, tops in content["terms"].items():
        for top, one in tops.items():
            local, factors = np.array(one["local"]), np.array(one["factors"])
            held, calm = local[:, HELD // 2 // EACH : HELD // EACH].mean(1), local[:, -CALM // EACH :].mean(1)
            turned = [
                f"{np.median(factors[:, i]):.2g} z0 ({factors[:, i].min():.2g} to {factors[:, i].max():.2g})"
                for i in (HELD // EACH, -1)
            ]
            near = f"{np.sum(np.abs(held - float(top)) < NEAR)} of {len(held)}"
            rows.append(f"| {term} | {top} | {interval(held)} | {near} | {interval(calm)} | {' | '.join(turned)} |")
    return "\n".join(rows)


def interval(values):
    """Mean and its 95 % interval over starts."""
    mean, low, high = student(values)[:3]
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def draw(content, out):
    """What was wanted, what was measured, and z, a column a path."""
    figure = empty_figure(10, 6)
    panels = figure.subplots(2, len(TOPS), sharex=True, sharey="row")
    for (above, below), top in zip(panels.T, TOPS, strict=True):
        above.plot(path(top), color="black", lw=1, label="wanted")
        for i, (term, tops) in enumerate(content["terms"].items()):
            means, steps = (
                windows(tops[f"{top:g}"]["local"]),
                WINDOW * (0.5 + np.arange((HELD + DOWN + CALM) // WINDOW)),
            )
            spread = [student(column) for column in means.T]
            center, low, high = (np.array([getattr(s, name) for s in spread]) for name in ("mean", "low", "high"))
            aside = steps + WINDOW * 0.2 * (i - 0.5)  # so that no bar hides another
            above.errorbar(
                aside, center, (center - low, high - center), fmt="os"[i] + "-", ms=4, color=PALETTE[i], label=term
            )
            factors = np.array(tops[f"{top:g}"]["factors"]).T
            below.plot(EACH * np.arange(len(factors)), factors, color=PALETTE[i], lw=0.7)
        above.axhline(0, color="black", lw=0.5)
        above.set_title(f"{top:g} wanted for {HELD} steps, then 0")
        below.set(yscale="log", xlabel="step")
    panels[0, 0].set_ylabel(f"local exponent (nats a step),\nmean of {WINDOW} steps, 95 % over starts")
    panels[1, 0].set_ylabel("z over that at the start")
    panels[0, 0].legend(fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"steering.{kind}", dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/steering"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"command": "python -m experiments.steering", **about(), **measured(options)}
    write_json(options.out / "steering.json", content)
    draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
