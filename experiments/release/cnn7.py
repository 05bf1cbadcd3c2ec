"""Part 1: CNN7 as released, and at a tenth of its rate."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, dynamics, learner
from csbp_jax.config import Data, replaced
from csbp_jax.dynamics.state import summary
from csbp_jax.instruments import training_map
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training import flip_meter
from experiments.release.common import STEPS, WARMUP, prepared, steps

FEW, DELTA, AWAY, OTHERS, CALM = 20, 1e-2, 1e3, (1, 2, 3), slice(20, 70)


def released():
    """The released config, on the recordings that are at hand."""
    config = configs.load("cifar10_dvs_tebn_cnn7")
    frames = Data(name="digits_events", bins="time", size=(48, 48), resize="antialias")
    return dataclasses.replace(config, batch_size=8, data=frames)


def conditions(given):
    """With the term and without, at the released rate and at a tenth of it; at the released one, its drift too."""
    silent = replaced(given, "chaos.z0", (0.0,))
    pairs = {"as released": given, "as released, z = 0": silent}
    rate = given.optimizer.lr / 10
    slow = {
        name.replace("as released", f"rate {rate:g}"): replaced(c, "optimizer.lr", rate) for name, c in pairs.items()
    }
    return pairs | {"as released, drift": replaced(given, "chaos.term", "drift")} | slow


def measure(content, save, data_dir):
    """Quantity by quantity, the cheapest first, over all conditions."""
    given, batch, steps_per_epoch = prepared(released(), data_dir)
    quantities = {"norm": norms, "flip_ratio": flip_ratios, "tangent": tangent, "finite": finite, "others": others}
    for (quantity, of), (name, config) in itertools.product(quantities.items(), conditions(given).items()):
        found = content.setdefault("cnn7", {}).setdefault(name, {})
        if quantity not in found:
            run = training_map.make(config, batch, steps_per_epoch)
            lasted = [len(one["norm"]) for one in content["cnn7"].values() if "norm" in one]
            count = min(lasted) if quantity == "finite" else len(found.get("norm", ()))
            found[quantity] = of(run, run.start(0, True), batch, count)
            save(f"{name}, {quantity}")


def flip_ratios(run, start, batch, _):
    """At the start and a few steps later."""
    later, step = start, jax.jit(run.step)
    for _ in range(FEW):
        later = step(later, batch)
    places = {"start": start, f"after {FEW} steps": later}
    return {
        when: {part: run.flip_ratio(part, state, batch) for part in flip_meter.PARTS} for when, state in places.items()
    }


def norms(run, state, batch, _):
    """Of the parameters before each step, until they have grown a thousandfold."""
    step, found = jax.jit(run.step), []
    for given in steps(batch):
        found.append(float(jnp.linalg.norm(ravel_pytree(state.params)[0])))
        if found[-1] > AWAY * found[0]:
            break
        state = step(state, given)
    return found


def others(run, _, batch, __):
    """The norms of other starts."""
    return [norms(run, run.start(seed, True), batch, 0) for seed in OTHERS]


def tangent(run, start, batch, count):
    """Local exponents of the steps of which the norms are known."""
    return told(
        dynamics.lyapunov(run.step, start, steps(batch, count), 1, dynamical_leaves=learner.dynamical_leaves(start))
    )


def finite(run, start, batch, count):
    """The same at a distance of DELTA, of the steps that no condition's run ended before."""
    options = {"dynamical_leaves": training_map.without_second_moments(start)}
    found = dynamics.finite_size(run.step, start, steps(batch, count), jnp.array([DELTA]), **options)
    return {"delta": DELTA, "local": told(found)["local"]}


def told(found):
    """The local exponents, and their mean and standard error past the warm-up where the run got so far."""
    local = np.asarray(found[2], float)[:, 0]
    kept = {"exponent": None, "stderr": None, "local": [value if np.isfinite(value) else None for value in local]}
    if len(local) < STEPS or not np.isfinite(local).all():
        return kept
    exponent, stderr, _ = summary([*local[WARMUP:]])
    return kept | {"exponent": float(exponent), "stderr": float(stderr)}


def rows(content):
    """In Markdown."""
    head = (
        "| CNN7 | flip ratio of the term | of the task | of both | steps | parameters, grown | of three other starts "
        "| exponent (nats a step) | at distance 1e-2, steps 20 to 70 |"
    )
    lines = [head, "|---" * 9 + "|"]
    for name, found in content["cnn7"].items():
        for when, ratios in found.get("flip_ratio", {"start": None}).items():
            cells = [f"{ratios[part]:.3g}" if ratios else "not run" for part in ("chaos", "task", "both")]
            norm = found.get("norm") if when == "start" else None
            others = ", ".join(f"{grown(one)} in {len(one)}" for one in found.get("others", ())) or "not run"
            cells += [str(len(norm)), grown(norm), others] if norm else [""] * 3
            exponents = [told_exponent(found.get("tangent")), told_growth(found.get("finite"))]
            cells += exponents if when == "start" else [""] * 2
            lines.append(f"| {name}, {when} | {' | '.join(cells)} |")
    return lines


def grown(norm):
    """How many times the last is the first."""
    return f"{norm[-1] / norm[0]:.3g} times"


def told_exponent(found):
    """An exponent with its standard error, or why there is none."""
    if found is None:
        return "not run"
    return "none: ran away" if found["exponent"] is None else f"{found['exponent']:+.4f} ± {found['stderr']:.4f}"


def told_growth(found):
    """Mean local exponent of the steps that are calm as released."""
    return "not run" if found is None else f"{np.mean(found['local'][CALM]):+.2f}"


def draw(content, out):
    """Norm of the parameters and cumulated local exponents over steps, a line a condition."""
    labels = {
        "norm": "norm of the parameters (start = 1)",
        "tangent": "cumulated local exponent (nats)",
        "finite": f"cumulated growth at {DELTA:g} (nats)",
    }
    shown = [name for name in labels if any(name in found for found in content["cnn7"].values())]
    figure = empty_figure(1 + 4 * len(shown), 3.6)
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for color, (name, found) in zip(PALETTE, content["cnn7"].items(), strict=False):
            if quantity not in found:
                continue
            norm = quantity == "norm"
            line = (
                np.array(found["norm"]) / found["norm"][0]
                if norm
                else np.cumsum(np.array(found[quantity]["local"], float))
            )
            style = {"color": color, "ls": ":" if "drift" in name else "--" if "z = 0" in name else "-"}
            axes.plot(line, label=name, **style)
            for one in found.get("others", ()) if norm else ():
                axes.plot(np.array(one) / one[0], lw=0.8, **style)
        axes.set(xlabel="step", ylabel=labels[quantity], yscale="log" if quantity == "norm" else "linear")
        axes.legend(fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"cnn7.{kind}", dpi=120)
