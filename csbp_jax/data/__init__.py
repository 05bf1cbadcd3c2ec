"""Data sets by name: ``load(name) -> {"train": source, "validation": source, "test": source}``."""

from csbp_jax.config import ConfigError
from csbp_jax.data import bundled
from csbp_jax.data.pipeline import eval_batches, train_batches

__all__ = ["eval_batches", "load", "train_batches"]

_LOADERS = {"digits": bundled.digits}


def load(name: str):
    """The three parts of a data set, as random-access sources (see ``pipeline``).

    Raises:
      ConfigError: no such data set; lists those there are.
    """
    if name not in _LOADERS:
        raise ConfigError(f"data: there is no data set {name!r}; there are {', '.join(_LOADERS)}")
    return _LOADERS[name]()
