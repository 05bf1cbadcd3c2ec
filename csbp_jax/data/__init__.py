"""Data sets by name, as random-access sources: ``load(config) -> {"train": ..., "validation": ..., "test": ...}``."""

# ruff: noqa: E402
import functools
import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

from csbp_jax.config import Config, ConfigError, extras, suggestion

extras.need("train", "csbp_jax.data")  # before what imports it

from csbp_jax.data.buckets import Buckets, steps_per_epoch
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.pipeline import Readers, configured_readers, epoch_order, eval_batches, eval_order, train_batches
from csbp_jax.data.source import DataSource, Drawn, Unaugmented, example_batch

__all__ = [
    "NAMES",
    "Buckets",
    "DataSource",
    "Drawn",
    "Readers",
    "Unaugmented",
    "classes",
    "configured_readers",
    "epoch_order",
    "eval_batches",
    "eval_order",
    "example_batch",
    "fingerprint",
    "load",
    "prepare",
    "read_all",
    "steps_per_epoch",
    "train_batches",
]

# The module that loads each data set, imported on demand: some need seconds, or packages that are extras.
_LOADERS = {
    "digits": "digits",
    "digits_events": "events.digits_events",
    **dict.fromkeys(("digits_sequential", "digits_permuted", "mnist_sequential", "mnist_permuted"), "pixels"),
    "cifar10_events": "events.cifar10_events",
    **dict.fromkeys(("cifar10", "cifar100", "imagenet", "mnist", "fashion_mnist"), "images.sources"),
    **dict.fromkeys(("cifar10_dvs", "dvs_gesture", "nmnist", "ncaltech101", "shd", "ssc", "fsdd"), "events.sources"),
    **dict.fromkeys(("watch", "seattle_weather", "omniglot_strokes"), "series.sources"),
    "folder": "user.folder",
}
_PREPARERS = {
    "images.sources": "images.preparation",
    "events.sources": "events.preparation",
    "events.cifar10_events": "events.cifar10_events",
    "series.sources": "series.sources",
}
NAMES = tuple(_LOADERS)


def _module(name: str) -> Any:
    return importlib.import_module(f"csbp_jax.data.{name}")


def load(config: Config, data_dir: str | pathlib.Path = "data") -> dict[str, DataSource]:
    """Load the splits train, validation and test of a data set.

    Args:
      config: ``config.data`` names the data set and its form; events become ``config.model.time_steps`` frames.
      data_dir: directory of prepared data sets.

    Raises:
      ConfigError: unknown data set (suggests the nearest ones), or it is not prepared.
    """
    name = config.data.name
    if name not in _LOADERS:
        raise ConfigError(f"data.name: there is no data set {name!r}; {suggestion(name, _LOADERS)}")
    return _module(_LOADERS[name]).load(config, pathlib.Path(data_dir))


def fingerprint(config: Config, data_dir: str | pathlib.Path = "data") -> str:
    """Return a text that changes when the records do, without reading them.

    It is made of checksums of the raw files, or of names, sizes and modification times of a user's files.

    Raises:
      ConfigError: as ``load``.
    """
    return str(_module(_LOADERS[config.data.name]).fingerprint(config, pathlib.Path(data_dir)))


def classes(config: Config, data_dir: str | pathlib.Path = "data") -> list[str]:
    """Return the names of the classes in the order of their labels, or their numbers if no names are known."""
    count = config.model.classes
    try:
        names = _module(_LOADERS[config.data.name]).class_names(config, pathlib.Path(data_dir))
    except ConfigError:
        names = []
    return list(names) if len(names) == count else [str(label) for label in range(count)]


def prepare(
    config: Config,
    raw_dir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path = "data",
    *,
    verify: bool = True,
    show: Show = lambda stage, done, total: None,
) -> None:
    """Prepare a data set for ``load``: locate or download its raw files, verify them, and convert or extract them.

    Args:
      config: ``config.data.name`` and ``config.data.bad`` (whether a record that cannot be read is an error).
      raw_dir: directory of the raw files; None downloads them where that is possible.
      data_dir: directory of prepared data sets.
      verify: compare sizes and checksums with the published ones.
      show: progress callback ``show(stage, done, total)``.

    Raises:
      ConfigError: a raw file is missing (gives address and size) or damaged, or an option has no effect.
    """
    name = config.data.name
    if _LOADERS.get(name) == "pixels":
        name = _module("pixels").pictures(name)
    preparer = _PREPARERS.get(_LOADERS.get(name, ""))
    if preparer:
        path = None if raw_dir is None else pathlib.Path(raw_dir)
        if path is not None and not path.is_dir():
            raise ConfigError(f"--from: {path}: there is no such directory; name that of the raw files of {name}")
        module, folder, side = _module(preparer), pathlib.Path(data_dir), config.data.shorter_side
        original = functools.partial(module.prepare, name, path, folder, verify=verify, bad=config.data.bad, show=show)
        if side is None:
            original()
        else:
            module.prepare_reduced(name, side, folder, original, show, verify=verify)
    else:
        for option, is_set in (("--from", raw_dir is not None), ("--no-verify", not verify)):
            if is_set:
                raise ConfigError(f"{option}: {name} has no raw files; leave it out")


def read_all(sources: Mapping[str, DataSource], show: Show) -> None:
    """Read every record once, as evaluation does.

    Raises:
      ConfigError: a record cannot be read; names it.
    """
    for split, source in sources.items():
        for i, _ in enumerate(eval_batches(source, 100)):
            show(f"read {split}", min(100 * (i + 1), len(source)), len(source))
