"""Data sets by name: ``load(config, folder) -> {"train": source, "validation": source, "test": source}``."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.pipeline import eval_batches, train_batches
from csbp_jax.data.source import DataSource, as_data_source, example_batch, take

__all__ = [
    "NAMES",
    "DataSource",
    "as_data_source",
    "classes",
    "eval_batches",
    "example_batch",
    "fingerprint",
    "load",
    "prepare",
    "read_all",
    "take",
    "train_batches",
]

Show = Callable[[str, int, int], None]

# Which file of this folder loads it, and is imported only then: some need seconds, or packages that are extras.
_LOADERS = {
    "digits": "digits",
    "digits_events": "events.digits_events",
    **dict.fromkeys(("cifar10", "cifar100", "imagenet", "mnist", "fashion_mnist"), "images.sources"),
    **dict.fromkeys(("cifar10_dvs", "dvs_gesture", "nmnist", "ncaltech101", "shd"), "events.sources"),
    "folder": "user.folder",
}
_PREPARERS = {"images.sources": "images.preparation", "events.sources": "events.preparation"}
NAMES = tuple(_LOADERS)


def _module(name):
    return importlib.import_module(f"csbp_jax.data.{name}")


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
    return _module(_LOADERS[name]).load(config, pathlib.Path(folder))


def fingerprint(config: Config, folder: str | pathlib.Path = "data") -> str:
    """Changes when the records that ``load`` gives do: by checksums of the originals, or a user's files' names, sizes
    and times of change; nothing is read anew.

    Raises:
      ConfigError: as ``load``.
    """
    return _module(_LOADERS[config.data.name]).fingerprint(config, pathlib.Path(folder))


def classes(config: Config, folder: str | pathlib.Path = "data") -> list[str]:
    """The classes' names in the order of their labels; their numbers where no names are known."""
    count = config.model.classes
    try:
        names = _module(_LOADERS[config.data.name]).class_names(config, pathlib.Path(folder))
    except ConfigError:
        names = []
    return list(names) if len(names) == count else [str(label) for label in range(count)]


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
    preparer = _PREPARERS.get(_LOADERS.get(name, ""))
    if preparer:
        path = None if originals is None else pathlib.Path(originals)
        _module(preparer).prepare(name, path, pathlib.Path(folder), verify=verify, bad=config.data.bad, show=show)
    elif originals is not None:
        raise ConfigError(f"--from: {name} has no originals; leave it out")


def read_all(parts: dict[str, Any], show: Show) -> None:
    """Reads every record once, as evaluation does.

    Raises:
      ConfigError: one cannot be read; names it.
    """
    for part, source in parts.items():
        for done, _ in enumerate(eval_batches(source, 100)):
            show(f"read {part}", min(100 * (done + 1), len(source)), len(source))
