"""Fully connected layer whose connections have learned delays, after Hammouamri et al. (ICLR 2024, arXiv:2306.17670).

    h[t, i] = sum over inputs j and steps s of  w[j, i] k(s - d[j, i]) x[t - s, j]         s = 0 ... D
    k(r) = max(0, 1 - |r|)        d = D / (1 + exp(-delay))

A delay d, in time steps, is learned as a weight is. Between two whole numbers it interpolates: the connection is then
two, with delays floor(d) and floor(d) + 1. Before the sequence, x is 0.

The article has a Gaussian in place of k, whose width shrinks during training, and rounds delays for evaluation; here
both compute the same function, and the logistic function keeps d within its range.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from csbp_jax.models import layers, norms
from csbp_jax.models.precision import to_compute_dtype, to_float32
from csbp_jax.models.taps import Aux, Probe, run_neuron
from csbp_jax.neurons import Neuron
from csbp_jax.xla.memory import save
from csbp_jax.xla.static import repeat_over_time


def interpolate(weights: jax.Array, delays: jax.Array, max_delay: int) -> jax.Array:
    """Return the weights of every delay, ``[max_delay + 1, ...]``: ``w k(s - d)``.

    Args:
      weights: ``[...]``.
      delays: ``[...]``, in time steps, from 0 to ``max_delay``.
      max_delay: D.
    """
    steps = jnp.arange(max_delay + 1, dtype=delays.dtype).reshape(-1, *(1,) * delays.ndim)
    return weights[None] * jnp.maximum(0, 1 - jnp.abs(steps - delays[None]))


class DelayedSynapse(nn.Module):
    """The synapse: parameters ``kernel`` (w) and ``delay``, both ``[inputs, features]``.

    Initially, the d are uniform over the middle 98 % of their range.
    """

    features: int
    max_delay: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, before: jax.Array) -> jax.Array:
        """Return ``h [B, T, features]`` of ``x [B, T, inputs]`` and the D steps before it, ``[B, D, inputs]``."""
        shape = x.shape[-1], self.features
        weights = self.param("kernel", layers.HE_FAN_IN, shape)
        delays = self.max_delay * nn.sigmoid(self.param("delay", _uniform, shape))
        kernel = interpolate(weights, delays, self.max_delay)
        x, kernel = nn.dtypes.promote_dtype(jnp.concatenate([before, x], 1), kernel[::-1], dtype=self.dtype)
        convolved = jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NTC", "TIO", "NTC"))
        return save(convolved)


class DelayedDense(nn.Module):
    """Fully connected synapse with learned delays, norm and neuron.

    Its state, for a sequence in chunks, is that of the neuron, and the last D inputs as ``LAYER.inputs``.
    """

    features: int
    max_delay: int
    norm: norms.Norm = norms.BatchNorm
    time_steps: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        # Also a static input differs from step to step once it is delayed.
        x, name = repeat_over_time(x, self.time_steps), str(self.name)
        at_rest = jnp.zeros((x.shape[0], self.max_delay, x.shape[-1]), x.dtype)
        before: Any = (probe.states or {}).get(f"{name}.inputs", at_rest)
        h = to_float32(DelayedSynapse(self.features, self.max_delay, self.dtype, name="dense")(x, before))
        tensors = {"dense": h, "norm": norms.over_time(self.norm(name="norm"), h, train, h.shape[1], probe.lengths)}
        current = to_compute_dtype(tensors["norm"], self.dtype)
        spikes, aux = run_neuron(name, tensors, current, layers.bind_neuron(neuron, self.features), probe)
        if probe.states is None:
            return spikes, aux
        inputs = jnp.concatenate([before, x], 1)[:, x.shape[1] :]
        return spikes, dataclasses.replace(aux, states={**aux.states, f"{name}.inputs": inputs})


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    share = jax.random.uniform(key, shape, dtype, 0.01, 0.99)
    return jnp.log(share / (1 - share))
