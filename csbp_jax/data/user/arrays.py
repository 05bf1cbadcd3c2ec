"""Splits that a user's ``data`` function returns, as arrays or as sources, checked and completed."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.device import transform
from csbp_jax.data.source import Array, ArraySource, DataSource, UserSource, example_batch
from csbp_jax.data.splits import stratified
from csbp_jax.data.user import folder_files

Pair = tuple[Array, Array]
"""Records ``x [N, T or 1, ...]`` and labels ``y [N]``."""

MAX_CLASSES = 100_000
"""Most classes of data of one's own: the network has an output for each label up to the largest."""

_SPLITS = ("train", "validation", "test")
_PAIR = "(x [N, T or 1, ...], y [N])"


def sources(returned: Any, config: Config, origin: str) -> dict[str, UserSource]:
    """Convert the result of a user's ``data`` function to sources of train, validation and test.

    Args:
      returned: ``{split: pair or source}``. Without "validation", it is the share ``data.validation`` of train.
      config: gives the number of classes of pairs, if ``model.classes`` is above 0; otherwise it is that of the sources
        beside them, or more if a label needs it.
      origin: what messages begin with.

    Raises:
      ConfigError: a split is missing, or has another form than it should or than train; the message says which.
    """
    if not isinstance(returned, Mapping) or not {"train", "test"} <= set(returned) <= set(_SPLITS):
        names = f" with {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else ""
        raise ConfigError(
            f"{origin}: data gives a {type(returned).__name__}{names}; expected is a dict of train, test and "
            f"optionally validation, each {_PAIR} or a source"
        )
    pairs = {
        split: _checked_pair(value, f"{origin}: data: {split}")
        for split, value in returned.items()
        if isinstance(value, tuple)
    }
    _check_pairs(pairs, config, origin)
    if "validation" not in returned:
        if "train" not in pairs:
            raise ConfigError(f"{origin}: data gives no validation; it can be taken from train only if that is {_PAIR}")
        x, y = pairs["train"]
        train, validation = stratified(y, config.data.validation)
        pairs |= {"train": (x[train], y[train]), "validation": (x[validation], y[validation])}
    own = {split: _checked_source(returned[split], config, origin, split) for split in _SPLITS if split not in pairs}
    classes = config.model.classes or max(
        [int(y.max()) + 1 for _, y in pairs.values() if len(y)] + [source.classes for source in own.values()]
    )
    splits = {
        split: own[split]
        if split in own
        else UserSource(ArraySource(*pairs[split], classes), f"{origin}: data: {split}")
        for split in _SPLITS
    }
    _check_one_form(splits, config)
    return splits


def fingerprint(splits: Mapping[str, UserSource]) -> str:
    """Return a text that changes with a source's ``fingerprint``, or with its length if it has none."""
    return str([(split, len(source), source.fingerprint) for split, source in splits.items()])


def reader(source: DataSource) -> Callable[[pathlib.Path], Array]:
    """Build ``read(path)``, which reads the only array of an npy or npz file as a record like the source's.

    ``read`` raises a ConfigError for a file of another kind or shape, and for a still input whose numbers would mean
    something else in the source's type.
    """
    example = example_batch(source)["x"][0]

    def read(path: pathlib.Path) -> Array:
        if path.suffix.lower() not in (".npy", ".npz"):
            raise ConfigError(f"{path}: unsupported file format; allowed are .npy, .npz, as the run has its own data")
        x = folder_files.read_array(path)
        x = x[0] if x.shape[1:] == example.shape else x
        if x.shape != example.shape:
            raise ConfigError(f"{path}: is {x.shape} with its time steps, but this run's records are {example.shape}")
        if source.events:
            return x.astype(np.float32)  # counts are the same numbers in any type
        return _in_type(x, example.dtype, path)

    return read


def _in_type(x: Array, dtype: np.dtype[Any], path: pathlib.Path) -> Array:
    """Convert a still input to the type of a run's records: an integer's brightness is relative to its type."""
    if dtype.kind == "f":
        if x.dtype == np.uint8:
            raise ConfigError(
                f"{path}: is uint8, but this run's records are {dtype}; save the same numbers as its data give as "
                "float32"
            )
        return x.astype(dtype)
    # Floats and booleans that are all 0 or 1 are brightness in [0, 1], not 1 of 255.
    if x.dtype != dtype and (x.dtype.kind in "bf" or (x.astype(dtype) != x).any()):
        raise ConfigError(
            f"{path}: is {x.dtype} from {x.min()} to {x.max()}, but this run's records are {dtype}; save {dtype}"
        )
    return x.astype(dtype)


def _checked_pair(pair: tuple[Any, ...], origin: str) -> Pair:
    if len(pair) != 2:
        raise ConfigError(f"{origin} is a tuple of {len(pair)}; expected is {_PAIR}")
    x, y = (_as_array(array, f"{origin}: {name}") for name, array in zip("xy", pair, strict=True))
    if x.ndim < 3 or x.dtype.kind not in "buif" or 0 in x.shape:
        raise ConfigError(
            f"{origin}: x is {x.dtype} {x.shape}; expected are numbers [N, T, ...], or [N, 1, ...] for still inputs "
            "(time is axis 1)"
        )
    if y.shape != x.shape[:1] or y.dtype.kind not in "ui" or y.min() < 0:
        raise ConfigError(f"{origin}: y is {y.dtype} {y.shape}; expected are labels from 0 on, integers [{len(x)}]")
    if y.max() >= MAX_CLASSES:  # before it is cast to int32, where it could become another label
        raise ConfigError(
            f"{origin}: y has a label {y.max()}; allowed are 0 to {MAX_CLASSES - 1}; number the classes from 0 on"
        )
    x = _uint8_or_float32(x)
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise ConfigError(f"{origin}: x holds values that are not finite in float32; expected are finite ones")
    return x, y.astype(np.int32)


def _as_array(values: Any, origin: str) -> Array:
    try:
        return np.asarray(values)
    except ValueError:
        raise ConfigError(f"{origin} holds records of several shapes; expected is {_PAIR}, of one shape") from None


def _uint8_or_float32(x: Array) -> Array:
    """Keep uint8, which is brightness in still inputs and counts in frames; convert all else to float32."""
    with np.errstate(over="ignore"):
        return x if x.dtype == np.uint8 else x.astype(np.float32)


def _check_pairs(pairs: Mapping[str, Pair], config: Config, origin: str) -> None:
    """Check labels, time steps, and options that arrays do not support."""
    for split, (x, y) in pairs.items():
        if config.model.classes and y.max() >= config.model.classes:
            raise ConfigError(
                f"{origin}: data: {split}: y has a label {y.max()}; expected are 0 to {config.model.classes - 1} "
                "(model.classes)"
            )
        _check_time_steps(x.shape[1:], config, f"{origin}: data: {split}")
        _check_brightness(x, config, f"{origin}: data: {split}")
        if option := _unsupported_option(config, x.shape[1:]):
            raise ConfigError(f"{option} is not possible for arrays of your own ({origin}); leave it out")


def _check_one_form(splits: Mapping[str, UserSource], config: Config) -> None:
    """Check that all splits hold what train holds, whose form is that of the network and of its transforms."""
    expected = _form(splits["train"], config)
    for source in splits.values():
        if len(source) and (form := _form(source, config)) != expected:
            raise ConfigError(f"{source.name}: holds {form}, but train {expected}; give all splits one form")


def _form(source: UserSource, config: Config) -> str:
    x = np.asarray(example_batch(source)["x"])
    resized_to = config.data.size if source.events and config.data.resize != "events" else None
    shape = (*resized_to, *x.shape[4:]) if resized_to else x.shape[2:]
    # Counts are the same numbers in any type, but an integer's brightness is relative to its type.
    scale = str(x.dtype) if x.dtype.kind in "iu" else "floats"
    kind = "frames" if source.events else f"still inputs of {scale}"
    return f"{kind} {shape}, {source.classes} classes"


def _check_time_steps(shape: tuple[int, ...], config: Config, origin: str) -> None:
    """Check ``[T or 1, ...]``, the shape of a record."""
    if shape[:1] not in ((1,), (config.model.time_steps,)):
        raise ConfigError(
            f"{origin}: x has {shape[0] if shape else 'no'} time steps; expected is model.time_steps "
            f"({config.model.time_steps}), or 1 for still inputs"
        )


def _check_brightness(x: Array, config: Config, origin: str) -> None:
    """Check that floats ``[N, 1, ...]`` are brightness, if they are encoded; transform refuses to encode frames."""
    if config.data.encode != "direct" and x.shape[1] == 1 and x.dtype.kind == "f" and (x.min() < 0 or x.max() > 1):
        raise ConfigError(
            f"{origin}: x is from {x.min()} to {x.max()}, but data.encode {config.data.encode} needs brightness in "
            "[0, 1]; scale it, or give uint8 from 0 to 255"
        )


def _unsupported_option(config: Config, shape: Sequence[int]) -> str:
    """Return the first option that only other sources implement; empty if there is none."""
    data = config.data
    by_source = transform.ON_HOST if shape[0] == 1 else ()  # transform refuses those that events lack
    for name in data.augment:
        if name in by_source or (name == "cutmix" and len(shape) != 4):
            return f"data.augment: {name}"
    return f"data.size: {data.size}" if data.size and data.resize == "events" else ""


def _checked_source(source: Any, config: Config, origin: str, split: str) -> UserSource:
    origin = f"{origin}: data: {split}"
    for member in ("__len__", "__getitem__", "classes"):
        if not hasattr(source, member):
            raise ConfigError(
                f"{origin} is a {type(source).__name__} without {member}; expected is {_PAIR}, or a source: "
                'len(source), source[i] -> {"x": [T or 1, ...], "y": []}, source.classes'
            )
    if not isinstance(source.classes, int | np.integer) or not 1 <= source.classes <= MAX_CLASSES:
        raise ConfigError(f"{origin}: has {source.classes} classes; allowed are 1 to {MAX_CLASSES}")
    checked = UserSource(source, origin, thread_safe=config.data.threads > 1)
    if not len(checked):
        raise ConfigError(f"{origin}: is empty; expected is at least one record")
    record = checked[0]  # so that data of another form are refused now, not after the network is compiled
    # Of a batch, since a source's own take may choose time steps of its records.
    example = np.asarray(example_batch(checked)["x"])
    shape = example.shape[1:]
    _check_time_steps(shape, config, origin)
    _check_brightness(example, config, origin)
    if split == "train" and not checked.events:
        _check_augment(checked, shape, config, origin)
    plain = np.asarray(record["x"])
    # Frames are the same numbers in any type, but an integer's brightness is relative to its type.
    other_type = (
        not checked.events and plain.dtype != example.dtype and {plain.dtype.kind, example.dtype.kind} & set("iu")
    )
    if split != "train" and checked.num_uniforms and (plain.shape != shape or other_type):
        raise ConfigError(
            f"{origin}: x of record 0 is {plain.dtype} {plain.shape}, but {example.dtype} {shape} by take, which "
            f"evaluation does not call if there are num_uniforms; give this split none, or records of {example.dtype} "
            f"{shape}"
        )
    return checked


def _check_augment(source: UserSource, shape: Sequence[int], config: Config, origin: str) -> None:
    """Check ``data.augment`` of still inputs ``[T or 1, ...]``, some of which the source's ``take`` has to apply."""
    for name in config.data.augment:
        if name in transform.ON_HOST and not source.num_uniforms:
            obstacle = "a source without num_uniforms, whose take would apply it"
        elif name == "cutmix" and len(shape) != 4:
            obstacle = f"still inputs {tuple(shape)}, without height and width"
        else:
            continue
        raise ConfigError(f"{origin}: data.augment: {name} is not possible for {obstacle}; leave it out")
