"""Control z of a digits net so that the local exponent follows a path that comes down to 0.

    python -m experiments.steering [--starts 8] [--data-dir data] [--out docs/results/steering]

The plan is docs/results/steering/plan.md.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Config, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training.compiled import resolve
from experiments import study
from experiments.statistics import half_widths, mean_text
from experiments.steering import control
from experiments.study import Content

# Steps: at the top, coming down, at 0; of a window of means; between stored values.
HELD, DOWN, CALM, WINDOW, STRIDE = 500, 500, 200, 100, 10
TOPS = (0.05, 0.15)
GAIN, LIMITS, NEAR = 0.1, (1e-4, 100.0), 0.02


def config() -> Config:
    """The digits net under plain SGD, its z a quarter of the term's flip at the start."""
    digits = configs.load("digits")
    return dataclasses.replace(
        digits,
        batch_size=16,
        model=dataclasses.replace(digits.model, features=(8, 8, 8)),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
        chaos=Chaos(z0=(0.25,), taps=("conv1.membrane",), unit="flip", scale=1.0),
    )


def path(top: float) -> NDArray[np.float64]:
    """Target exponents in nats per step: held at the top, brought down to 0, held there."""
    return np.concatenate([np.full(HELD, top), np.linspace(top, 0, DOWN), np.zeros(CALM)])


def measured(options: argparse.Namespace) -> Content:
    """``{z0, terms: {term: {top: {factors, local [starts, steps / STRIDE]}}}}``: at, and means of, every ten steps."""
    parts = data.load(config(), options.data_dir)
    resolved, source = resolve(config(), parts), parts["train"]
    probe, per_epoch = training_map.batches(resolved, source, 1)[0], len(source) // resolved.batch_size
    plain = training_map.in_plain_units(resolved, probe, per_epoch)
    terms: dict[str, Content] = {}
    for term in ("chaos", "drift"):
        run = training_map.make(replaced(plain, "chaos.term", term), probe, per_epoch)
        for top in TOPS:
            courses = terms.setdefault(term, {}).setdefault(f"{top:g}", {"factors": [], "local": []})
            for seed in range(options.starts):
                start, target = run.start(seed, True), path(top)
                stream = training_map.batches(resolved, source, len(target), seed)
                turn, dynamical_leaves = training_map.strength(start), learner.dynamical_leaves(start)
                controlled = control.control_exponent(
                    run.step, start, stream, target, turn, gain=GAIN, limits=LIMITS, dynamical_leaves=dynamical_leaves
                )
                courses["factors"].append(controlled.factors[::STRIDE].round(5).tolist())
                courses["local"].append(controlled.local.reshape(-1, STRIDE).mean(axis=1).round(5).tolist())
                mean = controlled.local[HELD // 2 : HELD].mean()
                print(f"{term}, from {top:g}, start {seed}: {mean:+.4f}", flush=True)
    return {"z0": list(plain.chaos.z0), "terms": terms}


def windows(local: ArrayLike) -> NDArray[np.float64]:
    """Means over windows of steps, ``[starts, windows]``."""
    local = np.asarray(local)
    return local.reshape(len(local), -1, WINDOW // STRIDE).mean(axis=2)


def page(content: Content) -> str:
    """A table in Markdown: exponents at the top of the path and at 0, and the factor that z was multiplied by."""
    head = ["term", "wanted", "measured there", f"starts within {NEAR:g}", "wanted 0, measured"]
    rows = []
    for term, tops in content["terms"].items():
        for top, courses in tops.items():
            local, factors = np.array(courses["local"]), np.array(courses["factors"])
            held, calm = local[:, HELD // 2 // STRIDE : HELD // STRIDE].mean(1), local[:, -CALM // STRIDE :].mean(1)
            turned = [
                f"{np.median(factors[:, i]):.2g} z0 ({factors[:, i].min():.2g} to {factors[:, i].max():.2g})"
                for i in (HELD // STRIDE, -1)
            ]
            near = f"{np.sum(np.abs(held - float(top)) < NEAR)} of {len(held)}"
            rows.append([term, top, mean_text(held, ".3f"), near, mean_text(calm, ".3f"), *turned])
    return study.table([*head, "z at the end of the hold", "at the end"], rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw target exponents, measured exponents and z, a column a path."""
    figure = empty_figure(10, 6)
    panels = figure.subplots(2, len(TOPS), sharex=True, sharey="row")
    steps = WINDOW * (0.5 + np.arange((HELD + DOWN + CALM) // WINDOW))
    for (above, below), top in zip(panels.T, TOPS, strict=True):
        above.plot(path(top), color="black", lw=1, label="wanted")
        for i, (term, tops) in enumerate(content["terms"].items()):
            means = windows(tops[f"{top:g}"]["local"])
            shifted = steps + WINDOW * 0.2 * (i - 0.5)  # so that no bar hides another
            style = {"fmt": "os"[i] + "-", "ms": 4, "color": PALETTE[i], "label": term}
            above.errorbar(shifted, means.mean(axis=0), half_widths(means), **style)
            factors = np.array(tops[f"{top:g}"]["factors"]).T
            below.plot(STRIDE * np.arange(len(factors)), factors, color=PALETTE[i], lw=0.7)
        above.axhline(0, color="black", lw=0.5)
        above.set_title(f"{top:g} wanted for {HELD} steps, then 0")
        below.set(yscale="log", xlabel="step")
    panels[0, 0].set_ylabel(f"local exponent (nats per step),\nmean of {WINDOW} steps, 95 % over starts")
    panels[1, 0].set_ylabel("z over that at the start")
    panels[0, 0].legend(fontsize="small")
    study.save_figure(figure, out, "steering")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "steering", data_dir=True)
    parser.add_argument("--starts", type=int, default=8)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    content = study.provenance("python -m experiments.steering") | measured(options)
    draw(content, options.out)
    study.write(options.out, "steering", content, page(content))


if __name__ == "__main__":
    study.run(main)
