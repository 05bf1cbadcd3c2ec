"""Published time series as sources of sequences: prepared as one file of arrays, and standardised when loaded."""

import pathlib
import zlib

import numpy as np

from csbp_jax.config import Config, ConfigError, Rule, check_rules, flatten
from csbp_jax.data.array_files import open_arrays
from csbp_jax.data.buckets import check_lengths
from csbp_jax.data.download.fetch import Show, fetch, not_prepared
from csbp_jax.data.download.locks import locked
from csbp_jax.data.series.readers import DATA_SETS, DAYS, SPLITS, Array
from csbp_jax.data.source import ArraySource
from csbp_jax.runtime import files

_RULES = (
    Rule("data.size", ("data.name",), lambda size, name: size is None, "None"),
    Rule(
        "loss.task",
        ("data.name",),
        lambda task, name: task == DATA_SETS[name].task,
        "class, or value with data.name seattle_weather",
    ),
    Rule(
        "model.time_steps",
        ("data.name",),
        lambda steps, name: name != "seattle_weather" or steps <= DAYS,
        f"up to {DAYS} days",
    ),
)


def prepare(
    name: str,
    raw_dir: pathlib.Path | None,
    folder: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> None:
    """Write ``folder/NAME/series.npz`` from the raw files; without ``raw_dir`` it stays if it is there.

    Args:
      name: one of ``readers.DATA_SETS``.
      raw_dir: directory of the raw files; None downloads to ``folder/downloads/NAME``.
      folder: directory of prepared data sets.
      verify: check sizes and checksums of the raw files.
      bad: without effect; a recording that cannot be read is an error.
      show: progress callback ``show(stage, done, total)``.

    Raises:
      ConfigError: raw files are missing, damaged or differ from the published ones.
    """
    del bad
    target, data_set = folder / name / "series.npz", DATA_SETS[name]
    with locked(target.with_name(".lock")):
        if raw_dir is None and target.exists() and (not verify or _read(name, folder)["verified"]):
            return
        paths = fetch(data_set.raw, raw_dir, folder / "downloads" / name, verify, show)
        series = data_set.read([paths[file.name] for file in data_set.raw])
        with files.replacing(target) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                x=np.concatenate(series.x).astype(np.float32),
                lengths=np.array([len(steps) for steps in series.x]),
                y=series.y.astype(np.float32 if data_set.task == "value" else np.int32),
                split=series.split,
                names=np.array(series.names),
                verified=np.array(verify),
            )


def _read(name: str, folder: pathlib.Path) -> dict[str, Array]:
    """Read the arrays that ``prepare`` wrote.

    Raises:
      ConfigError: the data set is not prepared, or the file is damaged.
    """
    path = folder / name / "series.npz"
    if not path.exists():
        raise not_prepared(name, folder)
    try:
        with open_arrays(path) as arrays:
            return {key: arrays.read(key) for key in ("x", "lengths", "y", "split", "names", "verified")}
    except ConfigError:
        raise ConfigError(f"{path}: is damaged; delete it, and run csbp_jax data {name} again") from None


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Return a checksum of the prepared sequences, their targets and splits."""
    arrays = _read(config.data.name, folder)
    return str([zlib.crc32(arrays[key].tobytes()) for key in ("x", "lengths", "y", "split")])


def class_names(config: Config, folder: pathlib.Path) -> tuple[str, ...]:
    """Return the names of the classes or values."""
    return tuple(_read(config.data.name, folder)["names"].tolist())


def load(config: Config, folder: pathlib.Path) -> dict[str, ArraySource]:
    """Load train, validation and test, as :mod:`csbp_jax.data.series.readers` divides them.

    Records are ``x [T_i, F]``; each channel, and each value to predict, is standardised by its mean and deviation over
    the training split. With ``loss.per`` step, the class of a recording is that of each of its steps. Of a window of
    ``seattle_weather`` the last ``model.time_steps`` days are used; other recordings keep their length.

    Raises:
      ConfigError: the data set is not prepared, an option is not possible, or a recording is longer than
        ``model.time_steps``.
    """
    name = config.data.name
    check_rules(_RULES, flatten(config))
    arrays = _read(name, folder)
    lengths, y, train = arrays["lengths"], arrays["y"], arrays["split"] == 0
    x = np.split(_standardised(arrays["x"], np.repeat(train, lengths)), np.cumsum(lengths)[:-1])
    per_step, steps = config.loss.per == "step", config.model.time_steps
    targets: Array | list[Array] = y
    if DATA_SETS[name].task == "value":
        x, y = [window[-steps:] for window in x], _standardised(y, train)
        targets = y[:, -steps:] if per_step else y[:, -1]
    else:
        check_lengths(lengths, config, name)
        targets = [np.full(length, label) for length, label in zip(lengths, y, strict=True)] if per_step else y
    rows = [np.flatnonzero(arrays["split"] == number) for number in range(len(SPLITS))]
    return {
        split: ArraySource([x[i] for i in of_split], [targets[i] for i in of_split], len(arrays["names"]), per_step)
        for split, of_split in zip(SPLITS, rows, strict=True)
    }


def _standardised(values: Array, train: Array) -> Array:
    """Standardise the last axis of values ``[N, ..., F]``."""
    axes = tuple(range(values.ndim - 1))
    mean, deviation = values[train].mean(axis=axes), values[train].std(axis=axes)
    return (values - mean) / np.where(deviation > 0, deviation, 1)
