"""The tangent map of a training step equals central differences, under every transformation and for both optimisers."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax import learner, neurons, surrogate
from csbp_jax.instruments.training_map import to_default_precision
from tests.support import small_net
from tests.support.small_net import TAPS, batch, first_state, init, recipe, train_step

RECIPES = {
    "sgd": recipe(),
    "adam": recipe(dataclasses.replace(small_net.CONFIG, optimizer=small_net.ADAM)),
}


def dynamical(state):
    """The leaves of a state that are perturbed: parameters and floating-point moments."""
    return [leaf for leaf in jax.tree.leaves((state.params, state.opt_state)) if jnp.issubdtype(leaf.dtype, float)]


def with_dynamical(state, values):
    """The state with these values in place of its dynamical leaves."""
    values = iter(values)
    params, opt_state = jax.tree.map(
        lambda leaf: next(values) if jnp.issubdtype(leaf.dtype, float) else leaf, (state.params, state.opt_state)
    )
    return state.replace(params=params, opt_state=opt_state)


def flat(leaves):
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def direction(x, seed=1):
    """A unit vector in proportion to x, or a second moment of 0 would turn negative."""
    rng = np.random.default_rng(seed)
    v = [np.asarray(leaf) * rng.normal(size=leaf.shape) for leaf in x]
    norm = np.linalg.norm(flat(v))
    return [leaf / norm for leaf in v]


def central_difference(f, x, v, h=1e-6):
    x = jax.device_get(x)
    forward, backward = ([leaf + sign * h * d for leaf, d in zip(x, v, strict=True)] for sign in (1, -1))
    return (flat(f(forward)) - flat(f(backward))) / (2 * h)


def with_silent_neuron(state):
    """A neuron far below threshold: outside the triangle's support, so its gradient is exactly zero."""
    bias = state.params["fc1"]["norm"]["bias"].at[0].set(-20.0)
    params = {**state.params, "fc1": {**state.params["fc1"], "norm": {**state.params["fc1"]["norm"], "bias": bias}}}
    return state.replace(params=params)


def after_three_steps(recipe, state):
    """A state whose moments are not zero."""
    for n in range(3):
        state, _ = train_step(recipe, state, batch(n))
    return state


FORMS: dict[str, Callable] = {
    "jit": jax.jit,
    "remat": lambda f: jax.jit(jax.checkpoint(f)),
    "scan": lambda f: jax.jit(lambda x: lax.scan(lambda c, _: (f(c), None), x, length=3)[0]),
    "eager": lambda f: f,
}
MARKS = {("sgd", "scan"): [], ("adam", "jit"): [pytest.mark.full]}


@pytest.mark.parametrize(
    "name, form",
    [pytest.param(name, form, marks=MARKS.get((name, form), [pytest.mark.slow])) for name in RECIPES for form in FORMS],
)
def test_the_tangent_map_of_a_step_equals_central_differences(x64, name, form):
    state = after_three_steps(RECIPES[name], with_silent_neuron(first_state(RECIPES[name])))
    assert float(state.params["fc1"]["norm"]["bias"][0]) < -19
    data, steps = batch(7), 3 if form == "scan" else 1

    def step(x):
        return dynamical(learner.train_step(RECIPES[name], with_dynamical(state, x), data)[0])

    def compiled_step(x):
        for _ in range(steps):
            x = dynamical(train_step(RECIPES[name], with_dynamical(state, x), data)[0])
        return x

    x = dynamical(state)
    v = direction(x)
    f = FORMS[form](step)

    def tangent_of(v):
        return jax.jvp(f, (x,), (v,))[1]

    run = tangent_of if form == "eager" else jax.jit(tangent_of)
    tangent, reference = flat(run([jnp.asarray(leaf) for leaf in v])), central_difference(compiled_step, x, v)
    assert np.linalg.norm(tangent) > 0.1
    assert np.linalg.norm(tangent - reference) / np.linalg.norm(reference) < 1e-6


@pytest.mark.full
@pytest.mark.parametrize("name", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
@pytest.mark.parametrize("vary", ["width", *(pytest.param(v, marks=pytest.mark.slow) for v in ("z", "decay"))])
def test_the_tangent_map_under_vmap_over_hyperparameters(x64, vary, name):
    K, of_optimizer = 3, RECIPES[name]
    z0 = [{tap: 3.0 if vary != "z" else strength for tap in TAPS} for strength in (0.0, 3.0, 30.0)]
    widths = (0.5, 1.0, 2.0) if vary == "width" else (1.0,) * K
    decays = (0.1, 0.5, 0.9) if vary == "decay" else (0.25,) * K
    starts = [
        to_default_precision(
            init(
                of_optimizer,
                jax.random.key(0),
                {"neuron": neurons.LIF(jnp.asarray(d), jnp.asarray(1.0), surrogate.triangle(jnp.asarray(w))), "z0": z},
            )
        )
        for d, w, z in zip(decays, widths, z0, strict=True)
    ]
    singles = [after_three_steps(of_optimizer, state) for state in starts]
    v = [direction(dynamical(state)) for state in singles]

    def tangent(state, v):
        def step(x):
            return dynamical(learner.train_step(of_optimizer, with_dynamical(state, x), batch())[0])

        return jax.jvp(step, (dynamical(state),), (v,))[1]

    @jax.jit
    def tangents_of(singles, v):
        return jax.vmap(tangent)(*(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (singles, v)))

    tangents = jax.device_get(tangents_of(singles, v))
    batched = [flat([leaf[k] for leaf in tangents]) for k in range(K)]
    assert not np.allclose(batched[0], batched[1], rtol=1e-3)
    for k, state in enumerate(singles):

        def step(x, state=state):
            return dynamical(train_step(of_optimizer, with_dynamical(state, x), batch())[0])

        reference = central_difference(step, dynamical(state), v[k])
        assert np.linalg.norm(batched[k] - reference) / np.linalg.norm(reference) < 1e-6
