"""Faults of transmission inside a network: spikes that are lost or added between a layer's neurons and its synapses.

    s'[t] = s[t] (1 - a[t]) + (1 - s[t]) b[t]           a ~ Bernoulli(lost), b ~ Bernoulli(added)

independent for each neuron and time step. The neurons themselves are unaffected: their membranes and resets follow
from s, and so does the feedback within a recurrent layer. A spike that is an integer up to ``levels`` (I-LIF) counts as
that many binary spikes in ``levels`` sub-steps.
"""

import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.module import InterceptorContext
from jax.typing import ArrayLike

from csbp_jax.models.taps import Aux
from csbp_jax.neurons.integer import from_binary, to_binary
from csbp_jax.runs.restore import Apply


def faulty(key: jax.Array, spikes: jax.Array, lost: ArrayLike, added: ArrayLike) -> jax.Array:
    """Lose each of the spikes with probability ``lost``, and add one elsewhere with probability ``added``."""
    lost_key, added_key = jax.random.split(key)
    survives = ~jax.random.bernoulli(lost_key, lost, spikes.shape)
    appears = jax.random.bernoulli(added_key, added, spikes.shape)
    return jnp.where(spikes != 0, spikes * survives.astype(spikes.dtype), appears.astype(spikes.dtype))


def with_faults(
    apply: Apply, keys: jax.Array, lost: ArrayLike, added: ArrayLike, levels: int = 1
) -> tuple[Apply, list[str]]:
    """Return ``apply`` with faults in the spikes of all spiking layers, and a list that a call fills with their names.

    keys: ``[B]``, one for each example.
    levels: largest number of spikes of a neuron per time step.
    """
    layers: list[str] = []

    def disturb(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext) -> Any:
        out, name = call(*args, **kwargs), context.module.name
        if context.method_name != "__call__" or not _is_spiking_layer(out, name):
            return out
        layers.append(str(name))
        spikes, aux = out
        binary = to_binary(spikes, levels) if levels > 1 else spikes
        layer_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, np.uint32(zlib.crc32(str(name).encode())))
        binary = jax.vmap(faulty, (0, 0, None, None))(layer_keys, binary, lost, added)
        return from_binary(binary, levels) if levels > 1 else binary, aux

    def disturbed(*args: Any, **kwargs: Any) -> tuple[jax.Array, Aux]:
        layers.clear()
        with nn.intercept_methods(disturb):
            return apply(*args, **kwargs)

    return disturbed, layers


def _is_spiking_layer(out: Any, name: str | None) -> bool:
    """Return whether a module's output is that of a spiking layer: ``(spikes, Aux)`` with its own firing rate alone."""
    return isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], Aux) and set(out[1].rates) == {name}


def reachable(apply: Apply, variables: Any, x: jax.Array) -> bool:
    """Return whether :func:`with_faults` reaches every spiking layer of a network, by tracing it.

    It does not reach layers of a user's own network that do not return ``(spikes, Aux)``.
    """
    disturbed, layers = with_faults(apply, jax.random.split(jax.random.key(0), len(x)), 0.0, 0.0)
    _, aux = jax.eval_shape(disturbed, variables, x)
    return len(aux.rates) > 0 and set(aux.rates) == set(layers)
