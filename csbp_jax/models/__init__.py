"""Whole networks, one family a file, and how a config names them."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from csbp_jax import config as configuration
from csbp_jax import neurons, surrogate
from csbp_jax.config import ConfigError
from csbp_jax.models import resnet19, sew_resnet, vgg
from csbp_jax.models.basic import Dense, Recurrent, SmallConv
from csbp_jax.neurons.plif import PLIF

_NETWORKS: dict[str, Any] = {
    "small_conv": SmallConv,
    "dense": Dense,
    "recurrent": Recurrent,
    "cnn6": vgg.CNN6,
    "cnn7": vgg.CNN7,
    "vgg9": vgg.VGG9,
    "vggsnn": vgg.VGGSNN,
    "vggsnn_wo_ap": vgg.VGGSNN_WO_AP,
    "resnet19_tet": resnet19.TET,
    "resnet19_tebn": resnet19.TEBN,
    "sew_resnet18": sew_resnet.RESNET18,
    "sew_resnet34": sew_resnet.RESNET34,
    "sew_resnet50": sew_resnet.RESNET50,
    "sew_7b": sew_resnet.SEVEN_B,
    "sew_wide_7b": sew_resnet.WIDE_SEVEN_B,
}


def neuron(config: configuration.Neuron) -> neurons.LIF | PLIF:
    """The neuron of a config."""
    spike = getattr(surrogate, config.surrogate)(config.surrogate_param)
    options = (config.decay, config.threshold, spike, config.reset, config.detach_reset)
    if config.learn == "none":
        return neurons.LIF(*options)
    return PLIF(*options, per_channel=config.learn == "channel")


def build(config: configuration.Model, cell: Any = None) -> nn.Module:
    """The network of a config, with its neuron or another one (``cell``).

    Its ``apply(variables, x, train, *, neuron, tap, taps, inspect)`` gives ``(logits [B, T, C], aux)``; see
    :class:`csbp_jax.models.base.Network` and :class:`csbp_jax.models.taps.Aux`.

    Raises:
      ConfigError: an option is given that this network has not, or the frames are no pictures and it needs some.
    """
    if config.name not in ("dense", "recurrent") and len(config.input_shape) != 3:
        raise ConfigError(
            f"model.input_shape: {config.input_shape} is not possible; {config.name} takes (height, width, channels)"
        )
    network = _NETWORKS[config.name]
    known = {field.name for field in dataclasses.fields(getattr(network, "func", network))}
    options = {name: getattr(config, name) for name in configuration.NETWORK_OPTIONS}
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known:
            raise ConfigError(f"model.{name}: {config.name} has no such option; leave it at None")
    return network(
        classes=config.classes,
        time_steps=config.time_steps,
        neuron=neuron(config.neuron) if cell is None else cell,
        norm_groups=config.norm_groups,
        remat=config.remat,
        dtype={"float32": None, "bfloat16": jnp.bfloat16}[config.precision],
        **given,
    )
