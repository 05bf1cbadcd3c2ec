"""Networks, one family per module, and their construction from a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax import config as configuration
from csbp_jax import neurons, surrogate
from csbp_jax.config import ConfigError
from csbp_jax.models import (
    ms_resnet,
    plif_net,
    qkformer,
    resnet19,
    sew_resnet,
    spike_driven,
    spikformer,
    vgg,
)
from csbp_jax.models.base import Network
from csbp_jax.models.basic import Dense, Recurrent, SmallConv
from csbp_jax.models.streaming import stream as stream
from csbp_jax.neurons import psn
from csbp_jax.neurons.plif import PLIF, Scaled

_NETWORKS: dict[str, Callable[..., Network]] = {
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
    "sew_resnet101": sew_resnet.RESNET101,
    "sew_resnet152": sew_resnet.RESNET152,
    "sew_7b": sew_resnet.SEVEN_B,
    "sew_wide_7b": sew_resnet.WIDE_SEVEN_B,
    "ms_resnet18": ms_resnet.MS_RESNET18,
    "ms_resnet34": ms_resnet.MS_RESNET34,
    "max_resnet18": ms_resnet.MAX_RESNET18,
    "plif_mnist": plif_net.MNIST,
    "plif_cifar10": plif_net.CIFAR10,
    "plif_cifar10_dvs": plif_net.CIFAR10_DVS,
    "plif_dvs_gesture": plif_net.DVS_GESTURE,
    "spikformer_cifar": spikformer.CIFAR,
    "spikformer_imagenet": spikformer.IMAGENET,
    "spikformer_dvs": spikformer.DVS,
    "qkformer_cifar": qkformer.CIFAR,
    "qkformer_imagenet": qkformer.IMAGENET,
    "qkformer_dvs": qkformer.DVS,
    "sdt_cifar": spike_driven.CIFAR,
    "sdt_imagenet": spike_driven.IMAGENET,
    "sdt_dvs": spike_driven.DVS,
}


def neuron(config: configuration.Neuron, time_steps: int = 4) -> neurons.TracingNeuron | nn.Module:
    """Build the neuron of a config: a pytree, or a Linen module if it has parameters of its own.

    time_steps: T of all sequences, for psn and masked_psn.
    """
    spike = getattr(surrogate, config.surrogate)(config.surrogate_param)
    options: dict[str, Any] = {"spike": spike} | {
        name: getattr(config, name) for name in ("decay", "threshold", "reset", "detach_reset", "at_threshold")
    }

    def without(*names: str) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in names}

    if config.learn != "none":
        return PLIF(**options, per_channel=config.learn == "channel")
    built: neurons.TracingNeuron
    match config.name:
        case "lif":
            built = neurons.LIF(**options)
        case "cuba":
            built = neurons.CuBaLIF(**options, synapse_decay=config.synapse_decay)
        case "alif":
            built = neurons.ALIF(**options, adaptation=config.adaptation, adaptation_decay=config.adaptation_decay)
        case "clif":
            built = neurons.CLIF(**without("reset"))
        case "ilif":
            built = neurons.ILIF(**without("reset", "spike"), levels=config.levels)
        case "psn":
            return psn.PSN(time_steps, **without("decay", "reset", "detach_reset"))
        case "masked_psn":
            return psn.MaskedPSN(time_steps, **without("decay", "reset", "detach_reset"), order=config.order)
        case "sliding_psn":
            return psn.SlidingPSN(config.order, **without("decay", "reset", "detach_reset"))
    return Scaled(built, 1 - config.decay) if config.scale_input else built


def options_of(name: str) -> tuple[str, ...]:
    """Return those of :data:`csbp_jax.config.NETWORK_OPTIONS` that a network has."""
    network = _NETWORKS[name]
    # A variant is a partial of its family; nested partials are flat, so that func is the class.
    family: Any = getattr(network, "func", network)
    known = {field.name for field in dataclasses.fields(family)}
    return tuple(option for option in configuration.NETWORK_OPTIONS if option in known)


def tap_names(config: configuration.Model) -> tuple[str, ...]:
    """Return the names of all tensors of a network that can be tapped, without computing anything."""
    return _tap_names(build(config), config.input_shape)


def layer_names(network: Any, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the layers of a network that can be tapped, in the order of its forward pass, without computing anything.

    The network is one of :func:`build`, or any module that returns ``(logits, Aux)``.
    """
    return tuple(dict.fromkeys(name.partition(".")[0] for name in _tap_names(network, input_shape)))


def _tap_names(network: Any, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    x = jax.ShapeDtypeStruct((1, 1, *input_shape), jnp.float32)
    _, aux = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, False)[0], x)
    names: tuple[str, ...] = getattr(aux, "names", ())
    return names


def build(config: configuration.Model, custom_neuron: neurons.Neuron | nn.Module | None = None) -> Network:
    """Build the network of a config, with the config's neuron or a custom one.

    Its ``apply(variables, x, train, *, neuron, tap, taps, inspect)`` returns ``(logits [B, T, C], aux)``; see
    :class:`csbp_jax.models.base.Network` and :class:`csbp_jax.models.taps.Aux`.

    Raises:
      ConfigError: an option is set that the network does not have, or the network needs images but the input shape is
        not (height, width, channels).
    """
    if config.name not in ("dense", "recurrent") and len(config.input_shape) != 3:
        raise ConfigError(
            f"model.input_shape: {config.input_shape} is not possible; {config.name} takes (height, width, channels)"
        )
    known = options_of(config.name)
    values = {name: getattr(config, name) for name in configuration.NETWORK_OPTIONS}
    options = {name: value for name, value in values.items() if value is not None}
    for name in options:
        if name not in known:
            raise ConfigError(f"model.{name}: {config.name} has no such option; leave it at None")
    return _NETWORKS[config.name](
        classes=config.classes,
        time_steps=config.time_steps,
        neuron=neuron(config.neuron, config.time_steps) if custom_neuron is None else custom_neuron,
        norm_groups=config.norm_groups,
        remat=config.remat,
        dtype={"float32": None, "bfloat16": jnp.bfloat16}[config.precision],
        **options,
    )
