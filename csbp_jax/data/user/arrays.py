"""Splits that a user's ``data`` function returns, as arrays or as sources, checked and completed."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import targets
from csbp_jax.data.buckets import check_lengths
from csbp_jax.data.device import transform
from csbp_jax.data.source import Array, ArraySource, DataSource, UserSource, example_batch
from csbp_jax.data.splits import divided
from csbp_jax.data.user import folder_files

Records = Array | list[Array]
Pair = tuple[Records, Records]
"""Records ``x [N, T or 1, ...]`` and targets ``y [N, ...]``, or lists of ``[T_i, ...]``."""

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
    name = f"{origin}: data: {{}}".format
    pairs = {split: value for split, value in returned.items() if isinstance(value, tuple)}
    several = any(_have_several_lengths(value[0]) for value in pairs.values() if value)
    pairs = {split: _pair(value, config, name(split), several) for split, value in pairs.items()}
    own = {
        split: _source(value, config, name(split), augmented=split == "train")
        for split, value in returned.items()
        if split not in pairs
    }
    if "validation" not in returned:
        if "train" not in pairs:
            raise ConfigError(f"{origin}: data gives no validation; it can be taken from train only if that is {_PAIR}")
        x, y = pairs["train"]
        parts = divided(y, config.data.validation, config.loss)
        for split, rows in zip(("train", "validation"), parts, strict=True):
            pairs[split] = _rows(x, rows), _rows(y, rows)
    loss = config.loss
    classes = _classes(pairs, own, config, origin) if loss.task == "class" else 0
    for split, (x, y) in pairs.items():
        records = ArraySource(x, y, classes or np.shape(y[0])[-1], loss.per == "step")
        own[split] = UserSource(records, name(split), loss=loss)
    splits = {split: own[split] for split in _SPLITS}
    equal = all(source.lengths is None or not np.ptp(source.lengths) for source in splits.values())
    examples = {split: np.asarray(example_batch(source)["x"]) for split, source in splits.items()}
    for split, source in splits.items():
        source.lengths = None if equal else source.lengths
        if source.lengths is None:
            _check_records(examples[split], config, source.name)
    _check_options(splits["train"], examples["train"].shape[1:], config)
    forms = {split: _form(source, examples[split], config) for split, source in splits.items()}
    for split, form in forms.items():
        if form != forms["train"]:
            raise ConfigError(f"{name(split)}: holds {form}, but train {forms['train']}; give all splits one form")
    return splits


def _classes(pairs: Mapping[str, Pair], own: Mapping[str, UserSource], config: Config, origin: str) -> int:
    """Return the number of classes, that of the config or else of the labels."""
    of_pairs = [y.ravel() if isinstance(y, np.ndarray) else np.concatenate(y) for _, y in pairs.values()]
    labels = np.unique(np.concatenate(of_pairs or [np.zeros(1, int)]))
    if not config.model.classes and labels[0] > 0:
        raise ConfigError(
            f"{origin}: data: labels are from {labels[0]} to {labels[-1]}, but classes are numbered from 0; subtract "
            f"{labels[0]}, or if there are such classes without examples, give model.classes {labels[-1] + 1}"
        )
    return config.model.classes or max(
        [int(labels[-1]) + 1] * bool(pairs) + [source.classes for source in own.values()]
    )


def _rows(records: Records, rows: Array) -> Records:
    return records[rows] if isinstance(records, np.ndarray) else [records[i] for i in rows]


def fingerprint(splits: Mapping[str, UserSource]) -> str:
    """Return a text that changes with a source's ``fingerprint``, or with its length if it has none."""
    return str([(split, len(source), source.fingerprint) for split, source in splits.items()])


def reader(source: DataSource) -> Callable[[pathlib.Path], Array]:
    """Build ``read(path)``, which reads the only array of an npy or npz file as a record like the source's.

    ``read`` raises a ConfigError for a file of another kind or shape, and for a still input whose numbers would mean
    something else in the source's type.
    """
    example = example_batch(source)["x"][0]
    fixed = source.lengths is None
    dtype = np.dtype(np.float32) if source.events else example.dtype  # counts are the same numbers in any type

    def read(path: pathlib.Path) -> Array:
        if path.suffix.lower() not in (".npy", ".npz"):
            raise ConfigError(f"{path}: unsupported file format; allowed are .npy, .npz, as the run has its own data")
        shape = folder_files.stated_shape(path)
        shape = shape[1:] if len(shape) > example.ndim and shape[0] == 1 else shape
        if (shape[1:], shape[0] * fixed) != (example.shape[1:], len(example) * fixed):
            raise ConfigError(f"{path}: is {shape} with its time steps, but this run's records are {example.shape}")
        x = folder_files.read_array(path).reshape(shape)
        # An integer's brightness is relative to its type, and floats and booleans are brightness in [0, 1].
        other = x.dtype == np.uint8 if dtype.kind == "f" else x.dtype.kind in "bf" or (x.astype(dtype) != x).any()
        if other and x.dtype != dtype and not source.events:
            raise ConfigError(
                f"{path}: is {x.dtype} from {x.min()} to {x.max()}, but this run's records are {dtype}; save {dtype}, "
                "the same numbers as its data give"
            )
        return x.astype(dtype)

    return read


def _have_several_lengths(records: Any) -> bool:
    try:
        return isinstance(records, list | tuple) and len({np.shape(record)[:1] for record in records}) > 1
    except ValueError:
        return False


def _pair(pair: tuple[Any, ...], config: Config, name: str, several: bool) -> Pair:
    """Return a split's records and targets; ``several``: whether records of any split differ in length."""
    if len(pair) != 2:
        raise ConfigError(f"{name} is a tuple of {len(pair)}; expected is {_PAIR}")
    x, classes = _inputs(pair[0], name, several), config.model.classes
    if isinstance(x, np.ndarray):
        _check_records(x, config, name)
        steps = [config.model.time_steps] * len(x)  # those of still inputs, too
    else:
        steps = [len(record) for record in x]
        check_lengths(np.array(steps), config, name)
    return x, targets.of_records(pair[1], steps, config.loss, classes, classes or MAX_CLASSES, name)


def _inputs(records: Any, name: str, several: bool) -> Records:
    """Return x as uint8, which is brightness in still inputs and counts in frames, or as float32."""
    several = several and isinstance(records, list | tuple) and len(records) > 0
    try:
        x = [np.asarray(record) for record in (records if several else [records])]
    except ValueError:
        raise ConfigError(f"{name}: x or y holds records of several shapes; expected is {_PAIR}") from None
    if several:
        forms = {(array.shape[1:], array.ndim > 1 and array.dtype.kind in "buif") for array in x}
        if len(forms) > 1 or not forms.pop()[1]:
            shapes = ", ".join(dict.fromkeys(f"{array.dtype} {array.shape}" for array in x[:10]))
            raise ConfigError(f"{name}: x holds records {shapes}; expected are numbers [T, ...], equal but for T")
        if 0 in (sizes := [array.size for array in x]):
            raise ConfigError(f"{name}: x of record {sizes.index(0)} is {x[sizes.index(0)].shape}, which is empty")
    elif x[0].ndim < 3 or x[0].dtype.kind not in "buif" or 0 in x[0].shape:
        raise ConfigError(
            f"{name}: x is {x[0].dtype} {x[0].shape}; expected are numbers [N, T, ...], or [N, 1, ...] for still "
            "inputs (time is axis 1)"
        )
    with np.errstate(over="ignore"):
        if any(array.dtype != np.uint8 for array in x):
            x = [array.astype(np.float32) for array in x]
    for i, array in enumerate(x):
        if array.dtype == np.float32 and not np.isfinite(array).all():
            of = f" of record {i}" * several
            raise ConfigError(f"{name}: x{of} holds values that are not finite in float32; expected are finite ones")
    return x if several else x[0]


def _source(source: Any, config: Config, name: str, augmented: bool) -> UserSource:
    for member in ("__len__", "__getitem__", "classes"):
        if not hasattr(source, member):
            raise ConfigError(
                f"{name} is a {type(source).__name__} without {member}; expected is {_PAIR}, or a source: "
                'len(source), source[i] -> {"x": [T or 1, ...], "y": []}, source.classes'
            )
    if not isinstance(source.classes, int | np.integer) or not 1 <= source.classes <= MAX_CLASSES:
        raise ConfigError(f"{name}: has {source.classes} classes; allowed are 1 to {MAX_CLASSES}")
    checked = UserSource(source, name, thread_safe=config.data.threads > 1, loss=config.loss)
    if not len(checked):
        raise ConfigError(f"{name}: is empty; expected is at least one record")
    if checked.lengths is not None:
        if checked.lengths.shape != (len(checked),) or checked.lengths.dtype.kind not in "iu":
            wrong = f"{checked.lengths.dtype} {checked.lengths.shape}"
            raise ConfigError(f"{name}: has lengths {wrong}; expected is an integer for each of {len(checked)} records")
        check_lengths(checked.lengths, config, name)
    plain = np.asarray(checked[0]["x"])  # so that data of another form are refused now, not after compilation
    # Of a batch, since a source's own take may choose time steps of its records.
    example = np.asarray(example_batch(checked)["x"])
    # Frames are the same numbers in any type, but an integer's brightness is relative to its type.
    other_type = (
        not checked.events and plain.dtype != example.dtype and {plain.dtype.kind, example.dtype.kind} & set("iu")
    )
    if not augmented and checked.num_uniforms and (plain.shape != example.shape[1:] or other_type):
        raise ConfigError(
            f"{name}: x of record 0 is {plain.dtype} {plain.shape}, but {example.dtype} {example.shape[1:]} by take, "
            "which evaluation does not call if there are num_uniforms; give this split none, or records of one form"
        )
    return checked


def _check_records(x: Array, config: Config, name: str) -> None:
    """Check the time steps of ``x [N, T or 1, ...]``, and that floats are brightness if still inputs are encoded."""
    if x.shape[1:2] not in ((1,), (config.model.time_steps,)):
        raise ConfigError(
            f"{name}: x has {x.shape[1] if x.ndim > 1 else 'no'} time steps; expected is model.time_steps "
            f"({config.model.time_steps}), or 1 for still inputs"
        )
    if config.data.encode != "direct" and x.shape[1] == 1 and x.dtype.kind == "f" and (x.min() < 0 or x.max() > 1):
        raise ConfigError(
            f"{name}: x is from {x.min()} to {x.max()}, but data.encode {config.data.encode} needs brightness in "
            "[0, 1]; scale it, or give uint8 from 0 to 255"
        )


def _check_options(train: UserSource, shape: tuple[int, ...], config: Config) -> None:
    """Check options that other sources implement; those that events lack are refused by transform."""
    data = config.data
    lacking = {*(() if train.num_uniforms else transform.ON_HOST), *(() if len(shape) == 4 else ("cutmix",))}
    wrong = [f"data.augment: {name}" for name in data.augment if name in lacking and not train.events]
    if isinstance(train.source, ArraySource) and data.size and data.resize == "events":
        wrong.append(f"data.size: {data.size}")
    if wrong:
        raise ConfigError(
            f"{wrong[0]} is not possible for {train.name}, records {shape} with {train.num_uniforms} num_uniforms for "
            "its take; leave it out"
        )


def _form(source: UserSource, x: Array, config: Config) -> str:
    """Describe what a split holds, by a batch; its form is that of the network and of its transforms."""
    resized_to = config.data.size if source.events and config.data.resize != "events" else None
    shape = (*resized_to, *x.shape[4:]) if resized_to else x.shape[2:]
    # Counts are the same numbers in any type, but an integer's brightness is relative to its type.
    scale = str(x.dtype) if x.dtype.kind in "iu" else "floats"
    kind = "frames" if source.events else f"still inputs of {scale}"
    outputs = {"class": "classes", "labels": "labels", "value": "values"}[config.loss.task]
    return f"{kind} {shape}, {source.classes} {outputs}"
