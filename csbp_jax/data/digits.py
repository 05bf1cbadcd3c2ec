"""Data sets that ship inside the package."""

import json
import pathlib
import zlib
from importlib import resources

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.source import ArraySource


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """A checksum of the digits and of their split."""
    del config, folder
    shipped = resources.files("csbp_jax.data")
    return str([zlib.crc32(shipped.joinpath(file).read_bytes()) for file in ("digits.npz", "digits_split.json")])


def class_names(config: Config, folder: pathlib.Path) -> tuple[str, ...]:
    del config, folder
    return tuple("0123456789")


def load(config: Config, folder: pathlib.Path) -> dict[str, ArraySource]:
    """UCI optical digits (``DIGITS.md``): train, validation and test, grey values in [0, 1].

    Raises:
      ConfigError: another size, or an augmentation that a source would do: these pictures are shown as they are.
    """
    if config.data.size:
        raise ConfigError(f"data.size: {config.data.size} is not possible for digits; leave it out")
    if others := [name for name in config.data.augment if name not in ("mixup", "cutmix")]:
        raise ConfigError(f"data.augment: {', '.join(others)} is not possible for digits; allowed are mixup, cutmix")
    shipped = resources.files("csbp_jax.data")
    with shipped.joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        x, y = arrays["x"].astype(np.float32)[:, None, :, :, None] / 16, arrays["y"].astype(np.int32)
    split = json.loads(shipped.joinpath("digits_split.json").read_text())
    return {part: ArraySource(x[indices], y[indices], classes=10) for part, indices in split.items()}
