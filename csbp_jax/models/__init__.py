"""Whole networks, one family a file, and how a config names them."""

import flax.linen as nn

from csbp_jax import config as configuration
from csbp_jax import neurons, surrogate
from csbp_jax.models.dense import Dense
from csbp_jax.models.recurrent import Recurrent
from csbp_jax.models.small_conv import SmallConv

_FAMILIES = {"small_conv": SmallConv, "dense": Dense, "recurrent": Recurrent}


def neuron(config: configuration.Neuron) -> neurons.LIF:
    """The neuron of a config."""
    spike = getattr(surrogate, config.surrogate)(config.surrogate_param)
    return neurons.LIF(config.decay, config.threshold, spike, config.reset, config.detach_reset)


def build(config: configuration.Model) -> nn.Module:
    """The network of a config.

    Its ``apply(variables, x, train, *, neuron, tap, taps, inspect)`` gives ``(logits [B, T, C], aux)``; see
    :class:`csbp_jax.models.network.Network` and :class:`csbp_jax.layers.Aux`.
    """
    family = _FAMILIES[config.name]
    return family(config.features, config.classes, config.time_steps, neuron(config.neuron))
