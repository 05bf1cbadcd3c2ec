"""The gradients of the two losses."""

import chex
import jax
import numpy as np
import optax

from csbp_jax import learner
from csbp_jax.config import Chaos, replaced
from csbp_jax.learner import objective
from tests.support.small_net import CONFIG, batch, first_state, gradients, recipe


def test_gradient_norms_are_those_of_the_two_losses(x64):
    state = first_state(recipe())
    norms = jax.jit(learner.gradient_norms)(gradients(recipe(), state, batch()))

    @jax.jit
    def separate(params):
        def loss(params, name):
            return objective.objective(recipe(), params, state, batch())[1].metrics[name]

        return {part: optax.tree.norm(jax.grad(loss)(params, f"{part}_loss")) for part in ("task", "chaos")}

    for part, norm in separate(state.params).items():
        np.testing.assert_allclose(norms[part], norm, rtol=1e-12)
        assert norms[part] > 0


def test_without_a_term_the_task_has_the_whole_gradient(x64):
    plain = recipe(replaced(CONFIG, "chaos", Chaos(z0=(0.0,), taps=())))
    state = first_state(plain)
    both = gradients(plain, state, batch())
    _, whole = jax.jit(objective.value_and_grad, static_argnums=0)(plain, state, batch())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), both["task"], whole)
    assert optax.tree.norm(both["task"]) > 0 and optax.tree.norm(both["chaos"]) == 0
    chex.assert_trees_all_equal_shapes(both["chaos"], state.params)
