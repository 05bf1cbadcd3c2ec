"""Measure phases of the XOR net over strength and target, by the plan of docs/results/xor_phase/plan.md.

    python -m experiments.xor.phase [--out docs/results/xor_phase] [--starts 128] [--orbits 16] [--steps 5000]

Finished rows of the plane are read from ``phase.json`` and not repeated.
"""

import argparse
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from experiments import study
from experiments.study import Content, finite_or_none, to_float64
from experiments.xor.maps import STRENGTHS, TARGETS, TERMS, draw, lines, page, summary
from experiments.xor.net import Kind, Params, Setting, start, task_loss, term_gradient, train

MODULE = "python -m experiments.xor.phase"

LR, DELTA = 0.5, 1e-2
# Steps before anything is measured, steps in which directions align, and steps that exponents are taken over.
TRANSIENT, ALIGN, COUNTED = 450, 50, 500


def gradient(params: Params, setting: Setting, term: str) -> Params:
    """The gradient of the task and z times the term."""
    task = jax.grad(task_loss, has_aux=True)(params, setting)[0]
    pull = term_gradient(params, setting, Kind(term=term), setting.z0, setting.lr)
    return jax.tree.map(jnp.add, task, pull)


def step(term: str, state: Any, _: Any) -> Any:
    """A step at fixed z, as a map of ``(params, setting)``."""
    params, setting = state
    return jax.tree.map(lambda p, g: p - setting.lr * g, params, gradient(params, setting, term)), setting


STEP = {term: functools.partial(step, term) for term in TERMS}
GRADIENT = {term: functools.partial(gradient, term=term) for term in TERMS}
VISIT = {term: jax.jit(jax.vmap(functools.partial(step, term), (0, None))) for term in TERMS}


def settings(target: float) -> Setting:
    """Settings of all strengths, z = 0 first, stacked."""
    z0 = jnp.array([0.0, *(a / LR for a in STRENGTHS)])
    base = Setting(*(jnp.asarray(float(value)) for value in Setting(lr=LR, target=target)))
    return jax.tree.map(lambda value: jnp.broadcast_to(value, z0.shape), base)._replace(z0=z0)


def orbits(term: str, target: float, count: int) -> dict[str, np.ndarray]:
    """Exponents and flip ratio of each strength, ``[1 + strengths, count]``, in float64."""
    with study.float64():
        over_starts = jax.vmap(lambda seed, setting: (start(seed, setting), setting), (0, None))
        states = jax.vmap(over_starts, (None, 0))(jnp.arange(count), settings(target))
        states = to_float64(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), states))
        leaves = (dict.fromkeys(states[0], True), Setting(*(False,) * len(Setting._fields)))
        for _ in range(TRANSIENT):
            states = VISIT[term](states, None)
        batches = functools.partial(itertools.repeat, None, ALIGN + COUNTED)
        options: dict[str, Any] = {"warmup": ALIGN, "dynamical_leaves": leaves}
        tangent = dynamics.lyapunov_many(STEP[term], states, batches(), **options)[0][:, 0]
        sized = dynamics.finite_size_many(STEP[term], states, batches(), jnp.array([DELTA]), **options)[0][:, 0]
        flips = [ratio(term, jax.tree.map(lambda leaf, i=i: leaf[i], states)) for i in range(len(tangent))]
        return {
            name: np.asarray(values).reshape(-1, count)
            for name, values in (("tangent", tangent), ("finite_size", sized), ("flip_ratio", flips))
        }


def ratio(term: str, state: tuple[Params, Setting]) -> float:
    """Flip ratio of task and term together; NaN where the run has run away."""
    params, setting = state
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        return np.nan
    return dynamics.flip_ratio(GRADIENT[term], params, LR, args=(setting,))


def solved(term: str, target: float, starts: int, steps: int) -> list[float]:
    """Share of starts that solve XOR, annealed, for each strength."""
    kind, seeds = Kind(term=term), jnp.arange(starts)
    runs = jax.vmap(lambda seed, setting: train(seed, setting, kind=kind, steps=steps)[0], (0, None))
    stacked = jax.tree.map(jnp.float32, settings(target))
    return [float(runs(seeds, jax.tree.map(lambda v, i=i: v[i], stacked)).mean()) for i in range(len(stacked.z0))]


def row(term: str, target: float, options: argparse.Namespace) -> Content:
    """Numbers of a target at all strengths, medians over the starts."""
    measured = orbits(term, target, options.orbits)
    # A run that ran away has no exponent; where most did, the cell has none either.
    medians = {name: [finite_or_none(np.median(cell)) for cell in values] for name, values in measured.items()}
    return medians | {"solved": solved(term, target, options.starts, options.steps)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor_phase")
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--orbits", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args(arguments)
    file = options.out / "phase.json"
    sizes = {"starts": options.starts, "orbits": options.orbits, "steps": options.steps}
    content = study.resume(parser, file, sizes, {"planes": {term: {} for term in TERMS}})
    for term, target in itertools.product(TERMS, TARGETS):
        if f"{target:.2f}" not in content["planes"][term]:
            content["planes"][term][f"{target:.2f}"] = row(term, target, options)
            study.store(file, content, MODULE)
            print(f"{term}, I0 = {target:.2f}", flush=True)
    content |= {
        "strengths": STRENGTHS,
        "targets": TARGETS,
        "lines": lines(),
        "summary": summary(content["planes"]),
    }
    draw(content, options.out)
    study.write(options.out, "phase", content, page(content))


if __name__ == "__main__":
    study.run(main)
