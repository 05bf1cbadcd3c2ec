"""The methods, as configs of small networks, and the pictures and recordings that they train on."""

import argparse
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs
from csbp_jax import data as data_sets
from csbp_jax.config import Chaos, Config, ConfigError, Model, Neuron, Optimizer, replaced
from experiments import study
from experiments.claims import runs


class Method(NamedTuple):
    """A method: the fields of the base config that it changes, its neuron, and the layer that the term acts on."""

    title: str
    fields: dict[str, Any]
    neuron: Neuron = Neuron(decay=0.25)
    layer: str = "conv1"


_SPIKINGJELLY = functools.partial(
    Neuron, surrogate="arctan", surrogate_param=2.0, detach_reset=True, at_threshold="fire"
)
METHODS = {
    "bn": Method("batch norm", {}),
    "tdbn": Method("tdBN", {"model.norm": "tdbn"}, Neuron(decay=0.25, threshold=0.5, surrogate="rectangle")),
    "tebn": Method("TEBN", {"model.norm": "tebn"}),
    "bntt": Method("BNTT", {"model.norm": "bntt"}),
    "tet": Method("TET loss", {"loss.name": "tet"}, Neuron(decay=0.5)),
    "sew": Method(
        "SEW residual",
        {"model.name": "sew_resnet18", "model.features": None, "model.width": 0.125},
        _SPIKINGJELLY(decay=1.0),
        "stem_spike",
    ),
    "plif": Method("PLIF", {}, _SPIKINGJELLY(decay=0.5, learn="layer")),
    "psn": Method("PSN", {}, Neuron(name="psn", surrogate="arctan", surrogate_param=2.0)),
    "spikformer": Method(
        "Spikformer",
        {
            "model.name": "spikformer_cifar",
            "model.features": None,
            "model.embed": 32,
            "model.depth": 1,
            "model.heads": 4,
            "model.patch": 2,
        },
        configs.load("cifar10_spikformer_4_384").model.neuron,
        "stem1",
    ),
}


class DataSet(NamedTuple):
    """How a data set is used: side of its frames, time steps, labels of a class, batch size, epochs."""

    side: int
    time_steps: int
    labels: int
    batch_size: int
    epochs: int


DATA_SETS = {"digits_events": DataSet(8, 5, 10, 20, 20), "cifar10": DataSet(8, 4, 50, 50, 10)}
CHANNELS = (8, 16)
"""Of the convolutional network of all methods but SEW and Spikformer, at width 1."""


def load_task(name: str, options: argparse.Namespace) -> runs.Task:
    """Load a data set, with the config of the first method.

    Raises:
      ConfigError: it is not in the data directory, or has too few labels of a class.
    """
    changes = {field: getattr(options, field) for field in ("side", "labels", "epochs")}
    use = DATA_SETS[name]._replace(**{field: value for field, value in changes.items() if value is not None})
    model = Model(
        name="small_conv",
        input_shape=(use.side, use.side, 3 if name == "cifar10" else 2),
        classes=10,
        time_steps=use.time_steps,
        features=tuple(round(options.width * channels) for channels in CHANNELS),
    )
    config = Config(
        epochs=use.epochs,
        batch_size=use.batch_size,
        data=replaced(configs.load(name).data, "augment", ()),
        model=model,
        chaos=Chaos(
            z0=(1.0,), beta=float(f"{0.05 ** (1 / use.epochs):.4g}"), taps=("conv1.membrane",), reduce="neuron"
        ),
        optimizer=Optimizer(name="sgd", momentum=0.9),
    )
    task = runs.Task(config, use.labels, *_splits(name, config, options.data_dir))
    most = int(np.bincount(task.train[1]).min())
    if use.labels > most or not task.steps_per_epoch:
        fewest = -(-use.batch_size // config.model.classes)
        raise ConfigError(f"--labels {use.labels}: {name} takes {fewest} to {most}")
    return task


def _splits(name: str, config: Config, folder: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Frames and labels of training, validation and test, as the plan has them."""
    side, generator = config.model.input_shape[0], np.random.default_rng(0)
    if name == "digits_events":
        splits = data_sets.load(replaced(config, "data.size", (side, side)), folder)
        train, validation, test = (study.all_records(splits[split]) for split in ("train", "validation", "test"))
        # Few labels are needed, so that half of the training split can be tested on.
        rows = generator.permutation(len(train[1]))
        pool, rest = rows[:600], rows[600:]
        extended = [np.concatenate([of_test, of_train[rest]]) for of_test, of_train in zip(test, train, strict=True)]
        return [(train[0][pool], train[1][pool]), validation, (extended[0], extended[1])]
    splits = data_sets.load(config, folder)
    train, test = (_reduced(*study.all_records(splits[split]), side) for split in ("train", "test"))
    count = len(train[1]) * 9 // 10
    return [
        (train[0][:count], train[1][:count]),
        _subset(generator, 500, train[0][count:], train[1][count:]),
        _subset(generator, 2000, *test),
    ]


def _reduced(x: NDArray[Any], y: NDArray[Any], side: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Pictures of 8 bits as means over blocks, ``[N, 1, side, side, C]``, each channel with mean 0 and deviation 1."""
    count, _, height, _, channels = x.shape
    block = height // side
    means = x.reshape(count, 1, side, block, side, block, channels).mean(axis=(3, 5), dtype=np.float32) / 255
    return ((means - 0.47) / 0.22).astype(np.float32), y


def _subset(
    generator: np.random.Generator, count: int, x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw examples, once for all runs."""
    rows = generator.choice(len(y), count, replace=False)
    return x[rows], y[rows]


def with_method(config: Config, method: Method, width: float = 1.0) -> Config:
    """The config of a method; ``width`` multiplies the sizes of SEW and Spikformer."""
    config = replaced(config, "model.neuron", method.neuron)
    for field, value in method.fields.items():
        scaled = type(value)(value * width) if field in ("model.width", "model.embed") else value
        config = replaced(config, field, scaled)
    return replaced(config, "chaos.taps", (f"{method.layer}.membrane",))
