"""The UCI optical digits, which ship inside the package."""

import functools
import json
import pathlib
import zlib
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csbp_jax.config import Config, Rule, check_rules, flatten
from csbp_jax.data.source import ArraySource

SIDE = 8


def fingerprint(config: Config, data_dir: pathlib.Path) -> str:
    """Return checksums of the digits and of their splits."""
    del config, data_dir
    shipped = resources.files("csbp_jax.data")
    return str([zlib.crc32(shipped.joinpath(file).read_bytes()) for file in ("digits.npz", "digits_split.json")])


def class_names(config: Config, data_dir: pathlib.Path) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels."""
    del config, data_dir
    return tuple("0123456789")


_RULES = (
    Rule("data.size", ("data.name",), lambda size, name: size is None, "None"),
    Rule("data.augment", ("data.name",), lambda names, name: {*names} <= {"mixup", "cutmix"}, "mixup and cutmix"),
)


def load(config: Config, data_dir: pathlib.Path) -> dict[str, ArraySource]:
    """Load the UCI optical digits (``DIGITS.md``): train, validation and test, grey values in [0, 1].

    Raises:
      ConfigError: ``data.size`` is set, or an augmentation that runs on the host: these images are used as they are.
    """
    del data_dir
    check_rules(_RULES, flatten(config.data, "data."))
    x = arrays()["x"].astype(np.float32)[:, None, :, :, None] / 16
    y = arrays()["y"].astype(np.int32)
    return {split: ArraySource(x[indices], y[indices], classes=10) for split, indices in splits().items()}


@functools.cache
def arrays() -> dict[str, NDArray[Any]]:
    """Read the shipped digits: grey values ``x [1797, 8, 8]`` from 0 to 16, and labels ``y [1797]``."""
    with resources.files("csbp_jax.data").joinpath("digits.npz").open("rb") as file, np.load(file) as content:
        return dict(content)


def splits() -> dict[str, list[int]]:
    """Read the numbers of the digits of each split."""
    text = resources.files("csbp_jax.data").joinpath("digits_split.json").read_text()
    return json.loads(text)


def from_picture(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Average a square picture ``[N, N, 1]`` over blocks: ``[8, 8, 1]`` in [0, 1].

    The data set was made in this way from bitmaps of 32x32 pixels.
    """
    grey = Image.fromarray(picture[..., 0].astype(np.float32))  # uint8 would be rounded twice
    averaged: NDArray[np.float32] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    return averaged[..., None] / np.float32(255)
