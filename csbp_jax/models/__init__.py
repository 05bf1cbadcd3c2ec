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
from csbp_jax.models.streaming import stream
from csbp_jax.neurons import psn
from csbp_jax.neurons.plif import PLIF, Scaled

__all__ = ["NETWORKS", "NEURONS", "build", "layer_names", "neuron", "options_of", "stream", "tap_names"]

NETWORKS: dict[str, tuple[Callable[..., Network], str]] = {
    "small_conv": (SmallConv, "convolutions and pooling; the length of features is their number"),
    "dense": (Dense, "dense layers"),
    "recurrent": (Recurrent, "recurrent layers, for sequences"),
    "cnn6": (vgg.CNN6, "CNN6 of TEBN: four convolutions"),
    "cnn7": (vgg.CNN7, "CNN7 of TEBN, as CSBP uses it: six convolutions"),
    "vgg9": (vgg.VGG9, "VGG-9 of TEBN: seven convolutions"),
    "vggsnn": (vgg.VGGSNN, "VGGSNN of TET"),
    "vggsnn_wo_ap": (vgg.VGGSNN_WO_AP, "VGGSNN of TET without pooling: strided convolutions"),
    "resnet19_tet": (resnet19.TET, "ResNet-19 of TET"),
    "resnet19_tebn": (resnet19.TEBN, "ResNet-19 of TEBN"),
    "sew_resnet18": (sew_resnet.RESNET18, "SEW-ResNet-18 for ImageNet"),
    "sew_resnet34": (sew_resnet.RESNET34, "SEW-ResNet-34 for ImageNet"),
    "sew_resnet50": (sew_resnet.RESNET50, "SEW-ResNet-50 for ImageNet"),
    "sew_resnet101": (sew_resnet.RESNET101, "SEW-ResNet-101 for ImageNet"),
    "sew_resnet152": (sew_resnet.RESNET152, "SEW-ResNet-152 for ImageNet"),
    "sew_7b": (sew_resnet.SEVEN_B, "7B-Net of SEW, for DVS-Gesture"),
    "sew_wide_7b": (sew_resnet.WIDE_SEVEN_B, "Wide-7B-Net of SEW, for DVS-CIFAR10"),
    "ms_resnet18": (ms_resnet.MS_RESNET18, "MS-ResNet-18 for ImageNet: residuals of membranes"),
    "ms_resnet34": (ms_resnet.MS_RESNET34, "MS-ResNet-34 for ImageNet: residuals of membranes"),
    "max_resnet18": (ms_resnet.MAX_RESNET18, "Max-ResNet-18 of MaxFormer, for CIFAR"),
    "plif_mnist": (plif_net.MNIST, "the PLIF article's network for MNIST"),
    "plif_cifar10": (plif_net.CIFAR10, "the PLIF article's network for CIFAR-10"),
    "plif_cifar10_dvs": (plif_net.CIFAR10_DVS, "the PLIF article's network for DVS-CIFAR10"),
    "plif_dvs_gesture": (plif_net.DVS_GESTURE, "the PLIF article's network for DVS-Gesture"),
    "spikformer_cifar": (spikformer.CIFAR, "Spikformer for CIFAR"),
    "spikformer_imagenet": (spikformer.IMAGENET, "Spikformer for ImageNet"),
    "spikformer_dvs": (spikformer.DVS, "Spikformer for event cameras"),
    "qkformer_cifar": (qkformer.CIFAR, "QKFormer for CIFAR"),
    "qkformer_imagenet": (qkformer.IMAGENET, "QKFormer for ImageNet"),
    "qkformer_dvs": (qkformer.DVS, "QKFormer for event cameras"),
    "sdt_cifar": (spike_driven.CIFAR, "Spike-driven Transformer for CIFAR"),
    "sdt_imagenet": (spike_driven.IMAGENET, "Spike-driven Transformer for ImageNet"),
    "sdt_dvs": (spike_driven.DVS, "Spike-driven Transformer for event cameras"),
}
"""Network of each name, and its words in ``csbp_jax list``."""

NEURONS: dict[str, tuple[Callable[..., Any], str]] = {
    "lif": (neurons.LIF, "leaky integrate-and-fire (LIF); with learn layer or channel, its decay is learned (PLIF)"),
    "cuba": (neurons.CuBaLIF, "current-based LIF: its input passes a leaky synapse (Synaptic)"),
    "alif": (neurons.ALIF, "adaptive LIF: each spike raises the threshold for some time"),
    "adlif": (neurons.AdLIF, "adaptive LIF whose adaptation is a current that follows the membrane, too (SE-adLIF)"),
    "clif": (neurons.CLIF, "complementary LIF: recent spikes make the reset stronger"),
    "ilif": (neurons.ILIF, "integer LIF: up to levels spikes per time step"),
    "psn": (psn.PSN, "parallel spiking neuron: learned weights between all time steps, no reset"),
    "masked_psn": (psn.MaskedPSN, "PSN whose time steps see the last order steps alone"),
    "sliding_psn": (psn.SlidingPSN, "PSN whose weights, of the last order steps, are shared by all time steps"),
}
"""Neuron of each name, and its words."""


def neuron(config: configuration.Neuron, time_steps: int = 4) -> neurons.TracingNeuron | nn.Module:
    """Build the neuron of a config: a pytree, or a Linen module if it has parameters of its own.

    time_steps: T of all sequences, for psn and masked_psn.
    """
    kind: Any = PLIF if config.learn != "none" else NEURONS[config.name][0]
    options = dataclasses.asdict(config) | {
        "spike": getattr(surrogate, config.surrogate)(config.surrogate_param),
        "time_steps": time_steps,
        "per_channel": config.learn == "channel",
    }
    fields = {field.name for field in dataclasses.fields(kind)} - {"name"}  # that of a Linen module
    built = kind(**{name: value for name, value in options.items() if name in fields})
    scaled = config.scale_input and kind is not PLIF  # which scales its input by its own decay
    return Scaled(built, 1 - config.decay) if scaled else built


def options_of(name: str) -> tuple[str, ...]:
    """Return those of :data:`csbp_jax.config.NETWORK_OPTIONS` that a network has."""
    network, _ = NETWORKS[name]
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
    return getattr(aux, "names", ())


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
    network, _ = NETWORKS[config.name]
    return network(
        classes=config.classes,
        time_steps=config.time_steps,
        neuron=neuron(config.neuron, config.time_steps) if custom_neuron is None else custom_neuron,
        norm_groups=config.norm_groups,
        remat=config.remat,
        remat_neurons=config.remat_neurons,
        read_out=config.read_out,
        read_out_decay=config.read_out_decay,
        dtype={"float32": None, "bfloat16": jnp.bfloat16}[config.precision],
        **options,
    )
