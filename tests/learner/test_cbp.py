"""CBP's rule against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from csbp_jax import chaos
from csbp_jax.learner import cbp


def test_target_and_scale_are_those_of_the_paper_unless_others_are_given(x64):
    h = np.linspace(-30, 30, 12).reshape(4, 3)
    expected = 0.65 - (1 / (1 + np.exp(-h / 10))).mean(0)
    np.testing.assert_allclose(cbp.shortfall(h), expected, rtol=1e-12)
    updates, _ = cbp.kick(2.0).update({"a": jnp.zeros(3)}, cbp.kick(2.0).init({}), outputs={"a": h})
    np.testing.assert_allclose(updates["a"], 2 * expected, rtol=1e-12)


def test_kicks_are_the_formula_on_all_arrays_of_the_named_layers_and_follow_the_schedule(x64):
    generator = np.random.default_rng(0)
    params = {name: {"kernel": jnp.asarray(generator.normal(size=(3, 3, 2, 4))), "bias": jnp.zeros(4)} for name in "ab"}
    h = generator.normal(scale=3, size=(5, 2, 6, 6, 4))
    tx = optax.chain(optax.sgd(0.1), cbp.kick(lambda n: chaos.strength(n, 0.8, 0.5), target=0.7, scale=2.0))
    state = tx.init(params)
    update = jax.jit(tx.update)
    for z in (0.8, 0.4):
        updates, state = update(params, state, params, outputs={"b": h})
        expected = z * (0.7 - (1 / (1 + np.exp(-h / 2))).mean((0, 1, 2, 3)))
        for name, leaf in params["b"].items():
            np.testing.assert_allclose(updates["b"][name], -0.1 * np.asarray(leaf) + expected, rtol=1e-12)
            np.testing.assert_allclose(updates["a"][name], -0.1 * params["a"][name], rtol=1e-12)
