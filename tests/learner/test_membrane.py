"""The membrane regulariser against its equations, in the loss and in the gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import learner, losses, neurons
from csbp_jax.config import replaced
from csbp_jax.surrogate import triangle
from tests.support import small_net


def test_the_gradient_passes_through_the_membranes_and_not_through_the_target(x64):
    """Two time steps of u[0] = x[0], u[1] = d u[0] (1 - s[0]) + x[1], differentiated by hand."""
    d, x = 0.5, np.array([[0.3, 0.9], [1.2, 0.4], [0.9, 1.6]])
    neuron = neurons.LIF(decay=d, spike=triangle(1.0))

    def error(x):
        spikes, _, u = neuron.trace(x)
        return losses.membrane_error(u, spikes)

    value, gradient = jax.jit(jax.value_and_grad(error))(jnp.asarray(x))
    s0 = (x[:, 0] > 1).astype(float)
    u = np.stack([x[:, 0], d * x[:, 0] * (1 - s0) + x[:, 1]], axis=1)
    distance = u - (u > 1)
    np.testing.assert_allclose(value, np.mean(distance**2), rtol=1e-12)
    of_u = 2 * distance / u.size
    surrogate = np.maximum(0, 1 - np.abs(x[:, 0] - 1))
    expected = np.stack([of_u[:, 0] + of_u[:, 1] * d * (1 - s0 - x[:, 0] * surrogate), of_u[:, 1]], axis=1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_it_is_the_mean_over_layers_and_part_of_the_plain_loss(x64):
    # With the term, whose gradient is another one, and whose programs other tests have.
    plain, regularised = small_net.recipe(), small_net.recipe(replaced(small_net.CONFIG, "loss.membrane", 0.5))
    state, batch = small_net.first_state(plain), small_net.batch()

    @jax.jit
    def inspected(weights, x):
        (_, aux), _ = plain.model.apply(weights, x, True, inspect=("fc1", "fc2"), mutable=["batch_stats"])
        return aux

    aux = inspected(learner.weights_of(state), batch["x"])
    by_layer = [np.mean((np.asarray(aux.membranes[name]) - aux.spikes[name]) ** 2) for name in ("fc1", "fc2")]
    metrics = small_net.train_step(regularised, state, batch)[1]
    np.testing.assert_allclose(metrics["membrane_loss"], 0.5 * np.mean(by_layer), rtol=1e-12)
    parts = [float(metrics[f"{name}_loss"]) for name in ("task", "membrane", "chaos")]
    np.testing.assert_allclose(metrics["loss"], sum(parts), rtol=1e-12)
    gradients, expected = jax.device_get([small_net.gradients(r, state, batch) for r in (regularised, plain)])
    kernel, of_task = (parts["task"]["fc1"]["dense"]["kernel"] for parts in (gradients, expected))
    assert np.abs(kernel - of_task).max() > 1e-3
    chex.assert_trees_all_close(gradients["chaos"], expected["chaos"], rtol=1e-12, atol=1e-15)
    assert "membrane_loss" not in jax.eval_shape(small_net.train_step, plain, state, batch)[1]
