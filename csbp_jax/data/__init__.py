"""Data sets by name: ``load(config, folder) -> {"train": source, "validation": source, "test": source}``."""

import pathlib
from typing import Any

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import bundled
from csbp_jax.data.pipeline import eval_batches, train_batches

__all__ = ["eval_batches", "load", "train_batches"]

_LOADERS = {"digits": bundled.digits}


def load(config: Config, folder: str | pathlib.Path = "data") -> dict[str, Any]:
    """The three parts of the config's data set, as random-access sources (see ``pipeline``).

    Args:
      config: ``config.data`` says which and in what form; events become ``config.model.time_steps`` frames.
      folder: where prepared data sets are kept.

    Raises:
      ConfigError: no such data set (lists those there are), or it is not prepared.
    """
    name = config.data.name
    if name not in _LOADERS:
        raise ConfigError(f"data.name: there is no data set {name!r}; there are {', '.join(_LOADERS)}")
    return _LOADERS[name](config, pathlib.Path(folder))
