"""Parts that a user hands over, as arrays or as sources of their own, checked."""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.source import DataSource, UserSource, example_batch
from csbp_jax.data.splits import stratified
from csbp_jax.data.user import folder_files

_PARTS = ("train", "validation", "test")
_PAIR = "(x [N, T or 1, ...], y [N])"


class ArraySource(DataSource):
    """A source of records in memory: of still inputs if T is 1, else of frames (``events``).

    fingerprint: changes when a record does.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int):
        self.x, self.y, self.classes, self.events = x, y, classes, x.shape[1] > 1

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"x": self.x[i], "y": self.y[i]}

    def take(self, indices: np.ndarray, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        del uniforms
        return {"x": self.x[indices], "y": self.y[indices]}

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.x.dtype} {self.x.shape}".encode())
        for array in (self.x, self.y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def sources(found: Any, config: Config, place: str) -> dict[str, UserSource]:
    """``{"train", "validation", "test"}`` of what a user's ``data`` gave.

    Args:
      found: ``{part: pair or source}``. Without "validation", ``data.validation`` of each class of train is set aside.
      config: gives the number of classes, if ``model.classes`` is above 0; else it is the largest label and one.
      place: what messages begin with.

    Raises:
      ConfigError: something is missing or has another form; tells which was expected.
    """
    if not isinstance(found, Mapping) or not {"train", "test"} <= set(found) <= set(_PARTS):
        names = f" with {', '.join(map(str, found))}" if isinstance(found, Mapping) else ""
        raise ConfigError(
            f"{place}: data gives a {type(found).__name__}{names}; expected is a dict of train, test and, if you have "
            f"it, validation, each {_PAIR} or a source"
        )
    pairs = {part: _pair(found[part], f"{place}: data: {part}") for part in found if isinstance(found[part], tuple)}
    _check_alike(pairs, config, place)
    if "validation" not in found:
        if "train" not in pairs:
            raise ConfigError(f"{place}: data gives no validation; it can be taken from train only if that is {_PAIR}")
        x, y = pairs["train"]
        rows = stratified(y, config.data.validation)
        pairs |= {part: (x[n], y[n]) for part, n in zip(("train", "validation"), rows, strict=True)}
    classes = config.model.classes or max((int(y.max()) + 1 for _, y in pairs.values() if len(y)), default=0)
    made = {part: ArraySource(x, y, classes) for part, (x, y) in pairs.items()}
    return {
        part: UserSource(made[part] if part in made else _source(found[part], f"{place}: data: {part}"))
        for part in _PARTS
    }


def fingerprint(parts: Mapping[str, UserSource]) -> str:
    """Changes when the records do, as far as a source tells by its ``fingerprint``, or else by its length."""
    return str([(part, len(source), source.fingerprint) for part, source in parts.items()])


def reader(source: DataSource) -> Callable[[pathlib.Path], np.ndarray]:
    """``read(path)`` to a record as the source has them, from the only array of an npy or npz file."""
    like = example_batch(source)["x"][0]

    def read(path):
        if path.suffix.lower() not in (".npy", ".npz"):
            raise ConfigError(f"{path}: not a file of a known kind; allowed are .npy, .npz, as the run's own data")
        x = folder_files.array(path)
        x = x[0] if x.shape[1:] == like.shape else x
        if x.shape != like.shape:
            raise ConfigError(f"{path}: is {x.shape} with its time steps, but this run's records are {like.shape}")
        return _compact(x) if like.dtype == np.float32 else x.astype(like.dtype)

    return read


def _pair(given, place):
    if len(given) != 2:
        raise ConfigError(f"{place} is a tuple of {len(given)}; expected is {_PAIR}")
    x, y = (np.asarray(array) for array in given)
    if x.ndim < 3 or x.dtype.kind not in "buif" or 0 in x.shape:
        raise ConfigError(
            f"{place}: x is {x.dtype} {x.shape}; expected are numbers [N, T, ...], or [N, 1, ...] for still inputs "
            "(time is axis 1)"
        )
    if y.shape != x.shape[:1] or y.dtype.kind not in "ui" or y.min() < 0:
        raise ConfigError(f"{place}: y is {y.dtype} {y.shape}; expected are labels from 0 on, integers [{len(x)}]")
    x = _compact(x)
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise ConfigError(f"{place}: x holds values that are not finite in float32; expected are finite ones")
    return x, y.astype(np.int32)


def _compact(x):
    """uint8 stays, which is brightness in still inputs and counts in frames; all else becomes float32."""
    with np.errstate(over="ignore"):
        return x if x.dtype == np.uint8 else x.astype(np.float32)


def _check_alike(pairs, config, place):
    shapes = {part: x.shape[1:] for part, (x, _) in pairs.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise ConfigError(f"{place}: data has records of several shapes ({listed}); expected is one")
    for part, (x, y) in pairs.items():
        if config.model.classes and y.max() >= config.model.classes:
            raise ConfigError(
                f"{place}: data: {part}: y has a label {y.max()}; expected are 0 to {config.model.classes - 1} "
                "(model.classes)"
            )
        if x.shape[1] not in (1, config.model.time_steps):
            raise ConfigError(
                f"{place}: data: {part}: x has {x.shape[1]} time steps; expected is model.time_steps "
                f"({config.model.time_steps}), or 1 for still inputs"
            )
    if pairs and (given := _unused(config, next(iter(shapes.values())))):
        raise ConfigError(f"{given} is not possible for arrays of your own ({place}); leave it out")


def _unused(config, shape):
    """An option that a source would have to see to, and arrays do not."""
    data = config.data
    by_source = ("resized_crop", "autoaugment", *(("crop", "flip", "cutout") if shape[0] == 1 else ()))
    for name in data.augment:
        if name in by_source or (name == "cutmix" and len(shape) != 4):
            return f"data.augment: {name}"
    return f"data.size: {data.size}" if data.size and data.resize == "events" else ""


def _source(given, place):
    for wanted in ("__len__", "__getitem__", "classes"):
        if not hasattr(given, wanted):
            raise ConfigError(
                f"{place} is a {type(given).__name__} without {wanted}; expected is {_PAIR}, or a source: len(source), "
                'source[i] -> {"x": [T or 1, ...], "y": []}, source.classes'
            )
    record = given[0] if len(given) else {}
    if not isinstance(record, Mapping) or not {"x", "y"} <= set(record):
        raise ConfigError(f'{place}: its record 0 is no dict with x and y; expected is {{"x": [T or 1, ...], "y": []}}')
    return given
