"""Part 1: CNN7 as released, and at a tenth of its learning rate."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, dynamics, learner
from csbp_jax.config import Config, Data, replaced
from csbp_jax.dynamics.state import summary
from csbp_jax.instruments import training_map
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training import flip_meter
from experiments import study
from experiments.release.common import STEPS, WARMUP, prepared, steps
from experiments.study import Content, finite_or_none

FEW, DELTA, AWAY, OTHERS, CALM = 20, 1e-2, 1e3, (1, 2, 3), slice(20, 70)


def released() -> Config:
    """The released config, on the bundled recordings."""
    config = configs.load("cifar10_dvs_tebn_cnn7")
    frames = Data(name="digits_events", bins="time", size=(48, 48), resize="antialias")
    return dataclasses.replace(config, batch_size=8, data=frames)


def conditions(config: Config) -> dict[str, Config]:
    """With and without the term, at the released rate and at a tenth of it; at the released rate, its drift too."""
    silent = replaced(config, "chaos.z0", (0.0,))
    pairs = {"as released": config, "as released, z = 0": silent}
    rate = config.optimizer.lr / 10
    slow = {
        name.replace("as released", f"rate {rate:g}"): replaced(c, "optimizer.lr", rate) for name, c in pairs.items()
    }
    return pairs | {"as released, drift": replaced(config, "chaos.term", "drift")} | slow


def measure(content: Content, save: Callable[[str], None], data_dir: str) -> None:
    """Measure quantity by quantity, the cheapest first, over all conditions."""
    base, batch, steps_per_epoch = prepared(released(), data_dir)
    quantities: dict[str, Callable[..., Any]] = {
        "norm": norms,
        "flip_ratio": flip_ratios,
        "tangent": tangent,
        "finite": finite,
        "others": others,
    }
    for (quantity, of), (name, config) in itertools.product(quantities.items(), conditions(base).items()):
        results = content.setdefault("cnn7", {}).setdefault(name, {})
        if quantity not in results:
            run = training_map.make(config, batch, steps_per_epoch)
            lasted = [len(result["norm"]) for result in content["cnn7"].values() if "norm" in result]
            count = min(lasted) if quantity == "finite" else len(results.get("norm", ()))
            results[quantity] = of(run, run.start(0, True), batch, count)
            save(f"{name}, {quantity}")


def flip_ratios(run: Any, start: Any, batch: Any, _: int) -> Content:
    """Flip ratios at the start and a few steps later."""
    later, step = start, jax.jit(run.step)
    for _ in range(FEW):
        later = step(later, batch)
    states = {"start": start, f"after {FEW} steps": later}
    return {
        when: {part: run.flip_ratio(part, state, batch) for part in flip_meter.PARTS} for when, state in states.items()
    }


def norms(run: Any, state: Any, batch: Any, _count: int) -> list[float]:
    """Norm of the parameters before each step, until they have grown a thousandfold."""
    step = jax.jit(run.step)
    values: list[float] = []
    for _ in range(STEPS):
        values.append(float(jnp.linalg.norm(ravel_pytree(state.params)[0])))
        if values[-1] > AWAY * values[0]:
            break
        state = step(state, batch)
    return values


def others(run: Any, _: Any, batch: Any, __: int) -> list[list[float]]:
    """The norms from other starts."""
    return [norms(run, run.start(seed, True), batch, 0) for seed in OTHERS]


def tangent(run: Any, start: Any, batch: Any, count: int) -> Content:
    """Local exponents of the steps whose norms are known."""
    dynamical_leaves = learner.dynamical_leaves(start)
    return exponents(dynamics.lyapunov(run.step, start, steps(batch, count), 1, dynamical_leaves=dynamical_leaves))


def finite(run: Any, start: Any, batch: Any, count: int) -> Content:
    """Local exponents at a distance of DELTA, of the steps that the runs of all conditions reached."""
    mask = learner.without_second_moments(start)
    result = dynamics.finite_size(run.step, start, steps(batch, count), jnp.array([DELTA]), dynamical_leaves=mask)
    return {"delta": DELTA, "local": exponents(result)["local"]}


def exponents(result: Sequence[Any]) -> Content:
    """Local exponents, and their mean and standard error past the warm-up if the run reached the last step."""
    local = np.asarray(result[2], float)[:, 0]
    row: Content = {"exponent": None, "stderr": None, "local": [finite_or_none(value) for value in local]}
    if len(local) < STEPS or not np.isfinite(local).all():
        return row
    exponent, stderr, _ = summary([*local[WARMUP:]])
    return row | {"exponent": float(exponent), "stderr": float(stderr)}


def rows(content: Content) -> list[str]:
    """Lines of the table in Markdown."""
    head = ["CNN7", "flip ratio of the term", "of the task", "of both", "steps", "parameters, grown"]
    head += ["of three other starts", "exponent (nats per step)", "at distance 1e-2, steps 20 to 70"]
    body = []
    for name, results in content["cnn7"].items():
        for when, ratios in results.get("flip_ratio", {"start": None}).items():
            cells = [f"{ratios[part]:.3g}" if ratios else "not run" for part in ("chaos", "task", "both")]
            norm = results.get("norm") if when == "start" else None
            others = ", ".join(f"{grown(n)} in {len(n)}" for n in results.get("others", ())) or "not run"
            cells += [str(len(norm)), grown(norm), others] if norm else [""] * 3
            growth = [exponent_text(results.get("tangent")), growth_text(results.get("finite"))]
            cells += growth if when == "start" else [""] * 2
            body.append([f"{name}, {when}", *cells])
    return study.table(head, body).splitlines()


def grown(norm: Sequence[float]) -> str:
    """The last norm over the first, as text."""
    return f"{norm[-1] / norm[0]:.3g} times"


def exponent_text(result: Mapping[str, Any] | None) -> str:
    """An exponent with its standard error, or the reason why it is missing."""
    if result is None:
        return "not run"
    return "none: ran away" if result["exponent"] is None else f"{result['exponent']:+.4f} ± {result['stderr']:.4f}"


def growth_text(result: Mapping[str, Any] | None) -> str:
    """Mean local exponent over the steps in which the released run is calm."""
    return "not run" if result is None else f"{np.mean(result['local'][CALM]):+.2f}"


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the norm of the parameters and cumulated local exponents over steps, a line a condition."""
    labels = {
        "norm": "norm of the parameters (start = 1)",
        "tangent": "cumulated local exponent (nats)",
        "finite": f"cumulated growth at {DELTA:g} (nats)",
    }
    shown = [name for name in labels if any(name in results for results in content["cnn7"].values())]
    figure = empty_figure(1 + 4 * len(shown), 3.6)
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for color, (name, results) in zip(PALETTE, content["cnn7"].items(), strict=False):
            if quantity not in results:
                continue
            style = {"color": color, "ls": ":" if "drift" in name else "--" if "z = 0" in name else "-"}
            if quantity == "norm":
                axes.plot(np.array(results["norm"]) / results["norm"][0], label=name, **style)
                for norm in results.get("others", ()):
                    axes.plot(np.array(norm) / norm[0], lw=0.8, **style)
            else:
                axes.plot(np.cumsum(np.array(results[quantity]["local"], float)), label=name, **style)
        axes.set(xlabel="step", ylabel=labels[quantity], yscale="log" if quantity == "norm" else "linear")
        axes.legend(fontsize="small")
    study.save_figure(figure, out, "cnn7")
