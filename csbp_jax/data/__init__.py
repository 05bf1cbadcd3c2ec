"""Data sets by name: ``load(config, folder) -> {"train": source, "validation": source, "test": source}``."""

import pathlib
from collections.abc import Callable
from typing import Any

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import bundled
from csbp_jax.data.pipeline import eval_batches, take, train_batches

__all__ = ["eval_batches", "load", "prepare", "take", "train_batches"]

Show = Callable[[str, int, int], None]

_LOADERS = {"digits": bundled.digits}
_PREPARERS: dict[str, Callable] = {}


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


def prepare(
    config: Config,
    originals: str | pathlib.Path | None = None,
    folder: str | pathlib.Path = "data",
    *,
    verify: bool = True,
    show: Show = lambda stage, done, total: None,
) -> None:
    """Makes a data set ready for ``load``: its originals found or downloaded, verified, and converted or extracted.

    Args:
      config: ``config.data.name`` and ``config.data.bad`` (what to do with a record that cannot be read).
      originals: where the archives lie; None downloads them where that is possible.
      folder: where prepared data sets are kept.
      verify: compare sizes and checksums with the published ones.
      show: told the stage, what is done and how much there is, now and then.

    Raises:
      ConfigError: an original is missing (tells where it comes from and how large it is) or damaged.
    """
    name = config.data.name
    if name in _PREPARERS:
        path = None if originals is None else pathlib.Path(originals)
        _PREPARERS[name](name, path, pathlib.Path(folder), verify=verify, bad=config.data.bad, show=show)
    elif originals is not None:
        raise ConfigError(f"--from: {name} has no originals; leave it out")
