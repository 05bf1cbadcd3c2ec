"""Pictures pixel by pixel, one grey value at each time step: which digit was it?

``digits_sequential`` and ``mnist_sequential`` go through the rows of a picture from left to right, downwards (Le,
Jaitly and Hinton, arXiv:1504.00941, on MNIST). ``digits_permuted`` and ``mnist_permuted`` visit the pixels in an order
that is random, and the same for all pictures and seeds. T is the number of pixels: 64 for the digits, 784 for MNIST.
Pictures and splits are those of ``digits`` and ``mnist``.
"""

import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, Rule, check_rules, flatten, replaced
from csbp_jax.config.rules import refusal
from csbp_jax.data import digits
from csbp_jax.data.images import sources as images
from csbp_jax.data.source import Array, ArraySource

SIDES = {"digits": digits.SIDE, "mnist": 28}
"""Pixels of a side of a picture, by the data set that has the pictures."""

_SEED = 20_261_204
_MODULES: dict[str, Any] = {"digits": digits, "mnist": images}
_RULES = (Rule("data.augment", ("data.name",), lambda names, name: not names, "none"),)


def pictures(name: str) -> str:
    """Return the data set that has the pictures."""
    return name.rpartition("_")[0]


def of_pictures(config: Config) -> Config:
    """Return the config with the data set of the pictures, and their shape."""
    name = pictures(config.data.name)
    height, width = config.data.size or (SIDES[name], SIDES[name])
    return replaced(replaced(config, "data.name", name), "model.input_shape", (height, width, 1))


def fingerprint(config: Config, data_dir: pathlib.Path) -> str:
    """Return the fingerprint of the pictures, and the order of their pixels."""
    base = of_pictures(config)
    of_them = _MODULES[base.data.name].fingerprint(base, data_dir)
    return f"{of_them} {order(config).tolist()}"


def class_names(config: Config, data_dir: pathlib.Path) -> list[str]:
    """Return the names of the classes in the order of their labels."""
    base = of_pictures(config)
    return list(_MODULES[base.data.name].class_names(base, data_dir))


def load(config: Config, data_dir: pathlib.Path) -> dict[str, ArraySource]:
    """Load train, validation and test: ``x [T, 1]``, grey values in [0, 1].

    Raises:
      ConfigError: an augmentation is asked for, ``model.time_steps`` is not the number of pixels, or the pictures
        cannot be loaded.
    """
    check_rules(_RULES, flatten(config))
    base, at_each_step = of_pictures(config), order(config)
    splits = {}
    for split, source in _MODULES[base.data.name].load(base, data_dir).items():
        batch = source.take(np.arange(len(source)), np.zeros((len(source), 0), np.float32))
        splits[split] = ArraySource(sequences(batch["x"], at_each_step), batch["y"], source.classes)
    return splits


def order(config: Config) -> NDArray[np.intp]:
    """Return the pixel that is shown at each time step, ``[T]``, by its number in the order of rows.

    Raises:
      ConfigError: T is not the number of pixels.
    """
    height, width, _ = of_pictures(config).model.input_shape
    if config.model.time_steps != height * width:
        of = {"data.name": config.data.name}
        raise refusal("model.time_steps", config.model.time_steps, f"{height * width}, the pixels of a picture", of)
    if config.data.name.endswith("_sequential"):
        return np.arange(height * width)
    return np.argsort(np.random.Philox(key=_SEED).random_raw(height * width), kind="stable")


def sequences(x: Array, at_each_step: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return pictures ``[N, 1, H, W, 1]``, uint8 or from 0 to 1, as sequences of their pixels, ``[N, T, 1]``."""
    grey = x.reshape(len(x), -1, 1)[:, at_each_step]
    return grey.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)
