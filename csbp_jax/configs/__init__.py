"""One file a data set, and one for each result of the literature that we can name; each defines ``config``."""

import dataclasses
import importlib
import pkgutil

from csbp_jax.config import Config, ConfigError

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def known(name: str) -> bool:
    """Whether ``load`` has a config of this name."""
    return name in NAMES or name.removesuffix("_bp") in NAMES


def load(name: str) -> Config:
    """The config of this name; ``NAME_bp`` is its twin by plain backpropagation, with z0 = 0 and all else alike.

    Raises:
      ConfigError: there is none of this name; lists those there are.
    """
    if name.endswith("_bp") and name not in NAMES:
        config = load(name.removesuffix("_bp"))
        return dataclasses.replace(config, chaos=dataclasses.replace(config.chaos, z0=(0.0,)))
    if name not in NAMES:
        raise ConfigError(f"DATASET: there is no config {name!r}; there are {', '.join(NAMES)}")
    config: Config = importlib.import_module(f"csbp_jax.configs.{name}").config
    return config
