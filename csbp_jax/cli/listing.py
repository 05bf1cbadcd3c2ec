"""Tables of what the options take by name: data sets, presets, networks, taps, norms, neurons, augmentations, ..."""

import inspect
import sys
from collections.abc import Sequence
from typing import get_args, get_type_hints

from csbp_jax import configs, data, models, surrogate
from csbp_jax.config import Config, ConfigError, Model, Neuron, suggestion
from csbp_jax.reporting.terminal import Console, print_table

_SURROGATES: tuple[str, ...] = get_args(get_type_hints(Neuron)["surrogate"])

NETWORKS = {
    "small_conv": "convolutions and pooling; the length of features is their number",
    "dense": "dense layers",
    "recurrent": "recurrent layers, for sequences",
    "cnn6": "CNN6 of TEBN: four convolutions",
    "cnn7": "CNN7 of TEBN, as CSBP uses it: six convolutions",
    "vgg9": "VGG-9 of TEBN: seven convolutions",
    "vggsnn": "VGGSNN of TET",
    "vggsnn_wo_ap": "VGGSNN of TET without pooling: strided convolutions",
    "resnet19_tet": "ResNet-19 of TET",
    "resnet19_tebn": "ResNet-19 of TEBN",
    "sew_resnet18": "SEW-ResNet-18 for ImageNet",
    "sew_resnet34": "SEW-ResNet-34 for ImageNet",
    "sew_resnet50": "SEW-ResNet-50 for ImageNet",
    "sew_resnet101": "SEW-ResNet-101 for ImageNet",
    "sew_resnet152": "SEW-ResNet-152 for ImageNet",
    "sew_7b": "7B-Net of SEW, for DVS-Gesture",
    "sew_wide_7b": "Wide-7B-Net of SEW, for DVS-CIFAR10",
    "ms_resnet18": "MS-ResNet-18 for ImageNet: residuals of membranes",
    "ms_resnet34": "MS-ResNet-34 for ImageNet: residuals of membranes",
    "max_resnet18": "Max-ResNet-18 of MaxFormer, for CIFAR",
    "plif_mnist": "the PLIF article's network for MNIST",
    "plif_cifar10": "the PLIF article's network for CIFAR-10",
    "plif_cifar10_dvs": "the PLIF article's network for DVS-CIFAR10",
    "plif_dvs_gesture": "the PLIF article's network for DVS-Gesture",
    "spikformer_cifar": "Spikformer for CIFAR",
    "spikformer_imagenet": "Spikformer for ImageNet",
    "spikformer_dvs": "Spikformer for event cameras",
    "qkformer_cifar": "QKFormer for CIFAR",
    "qkformer_imagenet": "QKFormer for ImageNet",
    "qkformer_dvs": "QKFormer for event cameras",
    "sdt_cifar": "Spike-driven Transformer for CIFAR",
    "sdt_imagenet": "Spike-driven Transformer for ImageNet",
    "sdt_dvs": "Spike-driven Transformer for event cameras",
}
"""Networks (models) in words."""

NORMS = {
    "batch": "batch norm, over batch, time and space",
    "tdbn": "threshold-dependent batch norm: scaled by the threshold",
    "tebn": "temporal effective batch norm: a learned scale per time step",
    "bntt": "batch norm through time: statistics and scale per time step",
    "none": "no norm",
}
"""Norms (models/norms.py) in words."""

NEURONS = {
    "lif": "leaky integrate-and-fire (LIF); with learn layer or channel, its decay is learned (PLIF)",
    "cuba": "current-based LIF: its input passes a leaky synapse (Synaptic)",
    "alif": "adaptive LIF: each spike raises the threshold for some time",
    "clif": "complementary LIF: recent spikes make the reset stronger",
    "ilif": "integer LIF: up to levels spikes per time step",
    "psn": "parallel spiking neuron: learned weights between all time steps, no reset",
    "masked_psn": "PSN whose time steps see the last order steps alone",
    "sliding_psn": "PSN whose weights, of the last order steps, are shared by all time steps",
}
"""Neurons (models.neuron) in words."""

AUGMENTATIONS = {
    "crop": "random crop of the image padded with 4 black pixels; images and events",
    "flip": "mirrored left to right with probability 1/2; images and events",
    "cutout": "a square without content; images and events",
    "autoaugment": "one of 25 pairs of operations (policy for CIFAR-10); images",
    "randaugment": "random operations of one strength; images",
    "random_erasing": "a random rectangle without content; images",
    "resized_crop": "random crop of 8 to 100 % of the area, resized; images",
    "roll": "cyclic shift; events",
    "rotate": "rotation; events",
    "shear": "shear; events",
    "event_drop": "some events are dropped; events",
    "nda": "one of roll, rotate and shear; events",
    "batch_crop_flip": "one crop and flip for the whole batch; events",
    "mixup": "two examples are blended, and their labels; images, events and sound",
    "cutmix": "a rectangle is of another example, and labels by area; images and events",
}
"""Augmentations (data.augment) in words."""

TAPS = {
    "conv, dense": "output of the synapses, before the norm",
    "norm": "after the norm: the neuron's input, unless another current is added",
    "current": "the neuron's input, where it is a sum of currents",
    "membrane": "membrane after the last time step and its reset",
    "membrane_pre": "membrane before reset, at every time step",
}
"""Kinds of tensors that a layer has for ``chaos.taps`` (models/taps.py) in words."""


def show(networks: Sequence[str] = ()) -> None:
    """Print all tables or, of some networks, the names of all tensors that can be tapped.

    Raises:
      ConfigError: there is no such network.
    """
    for name in networks:
        if name in configs.NAMES:
            raise ConfigError(f"NETWORK: {name!r} is a preset; its network is {configs.load(name).model.name}")
        if name not in NETWORKS:
            raise ConfigError(f"NETWORK: there is no network {name!r}; {suggestion(name, tuple(NETWORKS))}")
    # Not cut to the width of a terminal where there is none.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    if networks:
        for name in networks:
            for layers, kinds in _layers_by_kinds(name):
                for layer in layers:
                    console.print(" ".join(f"{layer}.{kind}" for kind in kinds), soft_wrap=True)
        return
    presets = {name: configs.load(name) for name in configs.NAMES}
    print_table(
        console,
        "data sets: DATASET trains the network with CSBP; any NAME_bp is its control, with z0 = 0",
        ["DATASET", "frame", "classes", "network", "T"],
        [_data_set(name, presets[name].model) for name in data.NAMES],
        text_columns=5,
    )
    others = {name: preset for name, preset in presets.items() if name not in data.NAMES}
    print_table(
        console,
        "more presets: smaller networks, other neurons, other splits",
        ["DATASET", "data set", "network", "T"],
        [_network(name, preset) for name, preset in others.items() if not configs.is_published(preset)],
        text_columns=4,
    )
    print_table(
        console,
        "presets of published results",
        ["DATASET", "data set", "network", "T", "same as"],
        [
            [*_network(name, preset), preset.data.name if preset == presets[preset.data.name] else ""]
            for name, preset in others.items()
            if configs.is_published(preset)
        ],
        text_columns=5,
    )
    print_table(
        console,
        "networks: --model.name; csbp_jax list NETWORK lists its layers and their tensors",
        ["network", "meaning", "options"],
        [[name, words, " ".join(models.options_of(name))] for name, words in NETWORKS.items()],
        text_columns=3,
    )
    for title, headings, meanings in (
        ("tensors of a layer: --chaos.taps LAYER.TENSOR", ["tensor", "meaning"], TAPS),
        ("norms: --model.norm", ["norm", "meaning"], NORMS),
        ("neurons: --model.neuron.name", ["neuron", "meaning"], NEURONS),
        ("augmentations: --data.augment", ["augmentation", "meaning; for which data"], AUGMENTATIONS),
    ):
        print_table(console, title, headings, list(meanings.items()), text_columns=2)
    print_table(
        console,
        "surrogates: --model.neuron.surrogate",
        ["surrogate", "derivative of the spike"],
        [[name, inspect.cleandoc(getattr(surrogate, name).__doc__).replace("``", "")] for name in _SURROGATES],
        text_columns=2,
    )


def _data_set(name: str, model: Model) -> list[str]:
    frame = "x".join(map(str, model.input_shape)) or "that of the files"
    return [name, frame, str(model.classes or "one per folder"), model.name, str(model.time_steps)]


def _network(name: str, preset: Config) -> list[str]:
    return [name, preset.data.name, preset.model.name, str(preset.model.time_steps)]


def _layers_by_kinds(network: str) -> list[tuple[list[str], tuple[str, ...]]]:
    """Group a network's layers, with its default options, by the tensors that they have: ``[(layers, tensors), ...]``.

    The names do not depend on the input shape, as long as the pooling layers can halve it.
    """
    kinds: dict[str, list[str]] = {}
    for tap in models.tap_names(Model(name=network, input_shape=(128, 128, 2), time_steps=1)):  # type: ignore[arg-type]  # one of the names
        layer, _, kind = tap.partition(".")
        kinds.setdefault(layer, []).append(kind)
    groups: dict[tuple[str, ...], list[str]] = {}
    for layer, names in kinds.items():
        groups.setdefault(tuple(names), []).append(layer)
    return [(layers, names) for names, layers in groups.items()]
