"""The gradients of the two losses."""

import jax
import numpy as np
import optax

from csbp_jax import learner
from csbp_jax.learner import objective
from tests.support.small_net import batch, first_state, gradients, recipe


def test_gradient_norms_are_those_of_the_two_losses(x64):
    state = first_state(recipe())
    norms = learner.gradient_norms(gradients(recipe(), state, batch()))

    @jax.jit
    def separate(params):
        def loss(params, name):
            return objective.objective(recipe(), params, state, batch())[1].metrics[name]

        return {part: jax.grad(loss)(params, f"{part}_loss") for part in ("task", "chaos")}

    for part, gradient in separate(state.params).items():
        np.testing.assert_allclose(norms[part], optax.tree.norm(gradient), rtol=1e-12)
        assert norms[part] > 0
