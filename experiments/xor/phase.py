"""Phases of the XOR net over strength and target: runs docs/results/xor_phase/plan.md.

    python -m experiments.xor.phase [--out docs/results/xor_phase] [--starts 128] [--orbits 16] [--steps 5000]

A finished row of the plane is kept in ``phase.json`` and not run again.
"""

import argparse
import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from csbp_jax.runtime.files import write_json
from experiments.machine import about
from experiments.xor.maps import STRENGTHS, TARGETS, TERMS, draw, lines, page, summary, told
from experiments.xor.net import Kind, Setting, start, task_loss, term_gradient, train

LR, DELTA = 0.5, 1e-2
# Steps that nothing is measured in; in which directions align, neither; that are counted.
TRANSIENT, ALIGN, COUNTED = 450, 50, 500


def gradient(params, setting, term):
    """Of the task and z times the term."""
    task = jax.grad(task_loss, has_aux=True)(params, setting)[0]
    pull = term_gradient(params, setting, Kind(term=term), setting.z0, setting.lr)
    return jax.tree.map(jnp.add, task, pull)


def step(term, state, _):
    """One step at fixed z, as a map of ``(params, setting)``."""
    params, setting = state
    found = gradient(params, setting, term)
    return jax.tree.map(lambda p, g: p - setting.lr * g, params, found), setting


STEP = {term: functools.partial(step, term) for term in TERMS}
GRADIENT = {term: functools.partial(gradient, term=term) for term in TERMS}
VISIT = {term: jax.jit(jax.vmap(functools.partial(step, term), (0, None))) for term in TERMS}


def settings(target):
    """One a strength, z = 0 first, stacked."""
    z0 = jnp.array([0.0, *(a / LR for a in STRENGTHS)])
    return jax.tree.map(lambda value: jnp.broadcast_to(value, z0.shape), wide(target))._replace(z0=z0)


def wide(target):
    return Setting(*(jnp.asarray(float(value)) for value in Setting(lr=LR, target=target)))


def orbits(term, target, count):
    """Exponents and flip ratio of each strength, ``[1 + strengths, count]``, in float64."""
    with jax.enable_x64(True):
        each = settings(target)
        one = jax.vmap(lambda seed, setting: (start(seed, setting), setting), (0, None))
        states = jax.vmap(one, (None, 0))(jnp.arange(count), each)
        states = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]).astype(float), states)
        fed = (dict.fromkeys(states[0], True), Setting(*(False,) * len(Setting._fields)))
        for _ in range(TRANSIENT):
            states = VISIT[term](states, None)
        given = functools.partial(itertools.repeat, None, ALIGN + COUNTED)
        deltas = jnp.array([DELTA])
        tangent = dynamics.lyapunov_many(STEP[term], states, given(), warmup=ALIGN, dynamical_leaves=fed)[0][:, 0]
        sized = dynamics.finite_size_many(STEP[term], states, given(), deltas, warmup=ALIGN, dynamical_leaves=fed)[0][
            :, 0
        ]
        flips = [ratio(term, jax.tree.map(lambda leaf, i=i: leaf[i], states)) for i in range(len(tangent))]
        return {
            name: np.asarray(values).reshape(-1, count)
            for name, values in (("tangent", tangent), ("finite_size", sized), ("flip_ratio", flips))
        }


def ratio(term, state):
    """Flip ratio of task and term together; NaN where the run has run away."""
    params, setting = state
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        return np.nan
    return dynamics.flip_ratio(GRADIENT[term], params, LR, args=(setting,))


def solved(term, target, starts, steps):
    """Share of starts that solve XOR, annealed, one a strength."""
    kind, seeds = Kind(term=term), jnp.arange(starts)
    runs = jax.vmap(lambda seed, setting: train(seed, setting, kind=kind, steps=steps)[0], (0, None))
    each = jax.tree.map(jnp.float32, settings(target))
    return [float(runs(seeds, jax.tree.map(lambda v, i=i: v[i], each)).mean()) for i in range(len(each.z0))]


def row(term, target, options):
    """All that is told of one target, medians over the starts."""
    found = orbits(term, target, options.orbits)
    # A run that ran away has no exponent; where most did, neither has the cell.
    medians = {name: [told(np.median(cell)) for cell in values] for name, values in found.items()}
    return medians | {"solved": solved(term, target, options.starts, options.steps)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/xor_phase"))
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--orbits", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "phase.json"
    sizes = {"starts": options.starts, "orbits": options.orbits, "steps": options.steps}
    content = json.loads(file.read_text()) if file.exists() else {**sizes, "planes": {term: {} for term in TERMS}}
    if {name: content[name] for name in sizes} != sizes:
        parser.error(f"{file} was made with other numbers; give another --out")
    for term, target in itertools.product(TERMS, TARGETS):
        if f"{target:.2f}" not in content["planes"][term]:
            content["planes"][term][f"{target:.2f}"] = row(term, target, options)
            write_json(file, content)
            print(f"{term}, I0 = {target:.2f}", flush=True)
    content |= {
        "command": "python -m experiments.xor.phase",
        "strengths": STRENGTHS,
        "targets": TARGETS,
        "lines": lines(),
        "summary": summary(content["planes"]),
        **about(),
    }
    write_json(file, content)
    draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
