"""Tables of what the options take by name: data sets, presets, networks, taps, norms, neurons, augmentations, ..."""

import inspect
import sys
from collections.abc import Sequence
from typing import get_args, get_type_hints

from csbp_jax import configs, data, models, surrogate
from csbp_jax.config import Config, ConfigError, Model, Neuron, suggestion
from csbp_jax.data.device import transform
from csbp_jax.models import norms, taps
from csbp_jax.reporting.terminal import Console, print_table

_SURROGATES: tuple[str, ...] = get_args(get_type_hints(Neuron)["surrogate"])


def show(networks: Sequence[str] = ()) -> None:
    """Print all tables or, of some networks, the names of all tensors that can be tapped.

    Raises:
      ConfigError: there is no such network.
    """
    for name in networks:
        if name in configs.NAMES:
            raise ConfigError(f"NETWORK: {name!r} is a preset; its network is {configs.load(name).model.name}")
        if name not in models.NETWORKS:
            raise ConfigError(f"NETWORK: there is no network {name!r}; {suggestion(name, tuple(models.NETWORKS))}")
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
        [[name, words, " ".join(models.options_of(name))] for name, (_, words) in models.NETWORKS.items()],
        text_columns=3,
    )
    for title, headings, meanings in (
        ("tensors of a layer: --chaos.taps LAYER.TENSOR", ["tensor", "meaning"], taps.TAPS),
        ("norms: --model.norm", ["norm", "meaning"], norms.NORMS),
        ("neurons: --model.neuron.name", ["neuron", "meaning"], {k: words for k, (_, words) in models.NEURONS.items()}),
        ("augmentations: --data.augment", ["augmentation", "meaning; for which data"], transform.AUGMENTATIONS),
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
