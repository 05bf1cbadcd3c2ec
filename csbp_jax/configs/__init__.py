"""One file a data set; each defines ``config``."""

import importlib
import pkgutil

from csbp_jax.config import Config, ConfigError

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Config:
    """The config of a data set.

    Raises:
      ConfigError: there is none of this name; lists those there are.
    """
    if name not in NAMES:
        raise ConfigError(f"DATASET: there is no config {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"csbp_jax.configs.{name}").config
