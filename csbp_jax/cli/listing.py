"""Tables of what the options take by name: data sets, presets, networks, taps, norms, neurons, augmentations, ..."""

import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import get_args, get_type_hints

from csbp_jax import configs, data, models, surrogate
from csbp_jax.config import ConfigError, Model, Neuron, replaced, suggestion
from csbp_jax.data.device import transform
from csbp_jax.models import norms, taps
from csbp_jax.reporting.terminal import Console, print_table


def show(what: Sequence[str] = ()) -> None:
    """Print all tables, or those named: a kind, such as presets, or a network, with all tensors that can be tapped.

    Raises:
      ConfigError: there is no such kind or network.
    """
    for name in what:
        if name not in TABLES and name in configs.NAMES:
            raise ConfigError(f"WHAT: {name!r} is a preset; its network is {configs.load(name).model.name}")
        if name not in TABLES and name not in models.NETWORKS:
            raise ConfigError(f"WHAT: there is no {name!r}; {suggestion(name, (*TABLES, *models.NETWORKS))}")
    # Not cut to the width of a terminal where there is none.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    for name in what or TABLES:
        if name not in TABLES:
            # The names do not depend on the input shape, as long as the pooling layers can halve it.
            model = replaced(replaced(Model(), "name", name), "input_shape", (128, 128, 2))
            for _, taps_of_layer in itertools.groupby(models.tap_names(model), lambda tap: tap.partition(".")[0]):
                console.print(" ".join(taps_of_layer), soft_wrap=True)
            continue
        for title, headings, rows in TABLES[name]():
            print_table(console, title, headings, rows, text_columns=len(headings))


_Tables = list[tuple[str, list[str], list[list[str]]]]


def _presets() -> _Tables:
    presets = {name: configs.load(name) for name in configs.NAMES}
    others = {name: preset for name, preset in presets.items() if name not in data.NAMES}
    same = {other: name for name, other in configs.RENAMED.items()}
    ours = [name for name, preset in others.items() if not configs.is_published(preset.data.name, preset.model.name)]
    published = [name for name in others if name not in ours]

    def row(name: str) -> list[str]:
        return [name, others[name].model.name, str(others[name].model.time_steps)]

    return [
        (
            "data sets: DATASET trains the network with CSBP, unless z0 is 0; any NAME_bp is its control, with z0 = 0",
            ["DATASET", "frame", "classes", "network", "T"],
            [_data_set(name, presets[name].model) for name in data.NAMES],
        ),
        (
            "more presets: smaller networks, other neurons, other splits",
            ["DATASET", "network", "T"],
            [row(name) for name in ours],
        ),
        (
            "presets of published results",
            ["DATASET", "network", "T", "same as"],
            [[*row(name), same.get(name, "")] for name in published],
        ),
    ]


def _networks() -> _Tables:
    rows = [[name, words, " ".join(models.options_of(name))] for name, (_, words) in models.NETWORKS.items()]
    title = "networks: --model.name; csbp_jax list NETWORK lists its layers and their tensors"
    return [(title, ["network", "meaning", "options"], rows)]


def _meanings(title: str, headings: list[str], meanings: Mapping[str, str]) -> Callable[[], _Tables]:
    return lambda: [(title, headings, [[name, words] for name, words in meanings.items()])]


TABLES: dict[str, Callable[[], _Tables]] = {
    "presets": _presets,
    "networks": _networks,
    "tensors": _meanings("tensors of a layer: --chaos.taps LAYER.TENSOR", ["tensor", "meaning"], taps.TAPS),
    "norms": _meanings("norms: --model.norm", ["norm", "meaning"], norms.NORMS),
    "neurons": _meanings(
        "neurons: --model.neuron.name",
        ["neuron", "meaning"],
        {name: words for name, (_, words) in models.NEURONS.items()},
    ),
    "augmentations": _meanings(
        "augmentations: --data.augment", ["augmentation", "meaning; for which data"], transform.AUGMENTATIONS
    ),
    "surrogates": _meanings(
        "surrogates: --model.neuron.surrogate",
        ["surrogate", "derivative of the spike"],
        {
            name: inspect.cleandoc(getattr(surrogate, name).__doc__).replace("``", "")
            for name in get_args(get_type_hints(Neuron)["surrogate"])
        },
    ),
}
"""Tables of each kind, by the name that ``csbp_jax list`` takes."""


def _data_set(name: str, model: Model) -> list[str]:
    frame = "x".join(map(str, model.input_shape)) or "that of the files"
    return [name, frame, str(model.classes or "one per folder"), model.name, str(model.time_steps)]
