"""Inference on a sequence that arrives in chunks: the states of all neurons are carried from one chunk to the next."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.models.base import Network
from csbp_jax.models.graph import GraphNetwork
from csbp_jax.neurons import Neuron, State


def stream(
    network: Network,
    variables: Any,
    x: jax.Array,
    states: Mapping[str, State] | None = None,
    *,
    neuron: Neuron | nn.Module | None = None,
) -> tuple[jax.Array, dict[str, State]]:
    """Apply a network to the next chunk of a sequence, in evaluation mode, one time step after another.

    A network is causal, and its only memory are its neurons' states, of a recurrent layer the last spikes, and of one
    with delays the last inputs. With these carried, chunks of any lengths give the same logits and states as the whole
    sequence in one call, bit for bit: every time step has the same shapes, and so the same order of summation, wherever
    a chunk ends.

    ``network.apply`` on the whole sequence multiplies all time steps at once. It is faster, but may sum in another
    order or form; then its logits differ in their last bits, and now and then in a spike that such a bit decides.

    Args:
      network: of ``models.build``; static under jit. Its ``time_steps`` plays no part: a chunk of one time step is one
        step of a sequence, not a static input to be repeated.
      variables: ``{"params", "batch_stats"}``.
      x: ``[B, t, ...]``, t from 1.
      states: those of the chunk before, a pytree with the batch as first axis; None at the start of the sequence.
      neuron: replaces the network's own neuron.

    Returns:
      ``(logits [B, t, classes], states)``. The decision of a network trained by the loss ``rate`` is the largest mean
      logit over all time steps so far.

    Raises:
      ValueError: x has no time step, or the states are not those of this network and batch.
      ConfigError: the network's read-out is over time (``model.read_out``, ``model.read_out_decay``), its norm has
        parameters for each of its time steps, a layer is called more than once, or it
        was read from an NIR graph.
    """
    if network.norm in ("tebn", "bntt"):
        raise ConfigError(f"stream: not possible with model.norm {network.norm}, whose parameters are per time step")
    if isinstance(network, GraphNetwork):
        raise ConfigError("stream: not possible for a network of an NIR graph, whose integrators carry no state")
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"stream: x has shape {x.shape}, but must be [B, t, ...] with t >= 1 (time is axis 1)")
    single = network.clone(time_steps=1)

    def step(states: Mapping[str, State], x_t: jax.Array) -> tuple[dict[str, State], jax.Array]:
        result: Any = single.apply(variables, x_t[:, None], False, neuron=neuron, states=states)
        logits, aux = result
        return aux.states, logits[:, 0]

    expected, _ = jax.eval_shape(step, {}, x[:, 0])
    if states is None:
        states = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), expected)
    elif not isinstance(states, Mapping) or jax.eval_shape(lambda: dict(states)) != expected:
        raise ValueError("stream: states are of another network or batch; pass those of the chunk before, or None")
    end, logits = jax.lax.scan(step, dict(states), jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(logits, 0, 1), end
