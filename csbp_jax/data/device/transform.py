"""Transforms of a batch on the device: from a source's integers to the float32 frames that a network sees.

Still images:     to [0, 1], normalise, mixup | cutmix, encode. The source has already cropped, flipped ... the uint8.
Frames of events: event_drop, choice of frames, resize, normalise, then ``data.augment`` in its order.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax.config import Config, ConfigError, Rule, check_rules, flatten, replaced
from csbp_jax.data.device import augment, encode, mix, resize

Batch = dict[str, jax.Array]
Transform = Callable[[jax.Array, Batch], Batch]
"""``(key, batch) -> batch``, pure."""

ON_HOST = ("crop", "flip", "cutout", "autoaugment", "randaugment", "random_erasing", "resized_crop")
"""Augmentations of still images, which a source applies while it reads."""

_MIX = {"mixup": mix.mixup, "cutmix": mix.cutmix}
_ON_EVENTS: dict[str, augment.Augmentation] = {
    "event_drop": augment.per_example(augment.event_drop),
    "flip": augment.per_example(augment.flip),
    "crop": augment.per_example(augment.crop),
    "roll": augment.per_example(augment.roll),
    "rotate": augment.per_example(augment.rotate),
    "shear": augment.per_example(augment.shear),
    "nda": augment.per_example(augment.nda),
    "cutout": augment.per_example(augment.cutout),
    "batch_crop_flip": augment.batch_crop_flip,
}
_CROPS = ("crop", "batch_crop_flip")
AUGMENTATIONS = {
    "crop": "random crop of the image padded with data.crop_padding (4) black pixels; images and events",
    "flip": "mirrored left to right with probability 1/2; images and events",
    "cutout": "a square without content; images and events",
    "autoaugment": "one of 25 pairs of operations (policy for CIFAR-10); images",
    "randaugment": "random operations of one strength; images",
    "random_erasing": "a random rectangle without content; images",
    "resized_crop": "random crop of 8 to 100 % of the area, resized; images",
    "roll": "cyclic shift; events",
    "rotate": "rotation; events",
    "shear": "shear; events",
    "event_drop": "some events are dropped; events",
    "nda": "one of roll, rotate and shear; events",
    "batch_crop_flip": "one crop and flip for the whole batch; events",
    "mixup": "two examples are blended, and their labels; images, events and sound",
    "cutmix": "a rectangle is of another example, and labels by area; images and events",
}
"""All augmentations, and for which data they are, in words."""

_EVENT_RULES = (
    Rule("data.augment", (), lambda names: "event_drop" not in names[1:], "event_drop first, for it works on counts"),
    Rule(
        "data.size",
        ("data.resize",),
        lambda size, resize: size is not None or resize == "events",
        "a height and width",
    ),
    Rule(
        "data.frames",
        ("model.time_steps",),
        lambda frames, steps: frames != 1 or steps == 1,
        "from 2 on",
        why="where one frame would be taken for a still image",
    ),
    Rule(
        "data.frames",
        ("model.time_steps",),
        lambda frames, steps: frames is None or frames <= steps,
        "up to model.time_steps",
    ),
)

_ENCODERS = {"direct": encode.direct, "rate": encode.rate, "latency": encode.latency}

# Mean and standard deviation of each channel over the training split, for brightness in [0, 1].
_STANDARD = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # TET's: mean deviation of single images
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def make(config: Config, events: bool) -> tuple[Transform, Transform]:
    """Build the transforms of training and of evaluation batches; they pass on other entries of a batch.

    Args:
      config: ``data`` names the transforms, ``model`` gives T and the number of classes.
      events: whether ``batch["x"]`` holds counts of events ``[B, T, ...]``; else still images ``[B, 1, H, W, C]``, with
        brightness as an unsigned integer or as a float in [0, 1].

    Returns:
      ``(train, evaluate)``. Their ``x`` is float32; with mixup or cutmix, train's ``y`` is probabilities ``[B, C]``.
      ``evaluate`` does not augment; its key is only for ``encode="rate"``.

    Raises:
      ConfigError: an option of ``config.data`` is not possible for these data.
    """
    return _for_events(config) if events else _for_images(config)


def make_unmixed(config: Config, events: bool) -> Transform:
    """Build the transform of training batches without mixup and cutmix, whose labels are probabilities ``[B, C]`` too.

    Raises:
      ConfigError: as :func:`make`.
    """
    augmentations = tuple(name for name in config.data.augment if name not in _MIX)
    train, _ = make(replaced(config, "data.augment", augmentations), events)

    def unmixed(key: jax.Array, batch: Batch) -> Batch:
        batch = train(key, batch)
        return batch | {"y": mix.probabilities(batch["y"], config.model.classes)}

    return unmixed


def _for_images(config: Config) -> tuple[Transform, Transform]:
    data = config.data
    _check("augment", data.augment, (*ON_HOST, *_MIX), "still images")
    _check("resize", [data.resize], ["events"], "still images")
    _check("normalise", [data.normalise], ["none", "standard"], "still images")
    if data.encode != "direct":
        _check("normalise", [data.normalise], ["none"], f"data.encode={data.encode}, which needs brightness in [0, 1]")
    if data.frames is not None:
        raise ConfigError(f"data.frames: {data.frames} is not possible for still images; allowed is None")
    normalise = _standard(data.name) if data.normalise == "standard" else lambda x: x
    mixed = [name for name in data.augment if name in _MIX]

    def evaluate(key: jax.Array, batch: Batch) -> Batch:
        return batch | {"x": encoded(key, normalise(brightness(batch["x"])), batch["x"].dtype)}

    def train(key: jax.Array, batch: Batch) -> Batch:
        key, *keys = jax.random.split(key, 1 + len(mixed))
        dtype = batch["x"].dtype
        batch = batch | {"x": normalise(brightness(batch["x"]))}
        for name, k in zip(mixed, keys, strict=True):
            batch = _mixed(name, k, batch, config.model.classes)
        return batch | {"x": encoded(key, batch["x"], dtype)}

    def encoded(key: jax.Array, x: jax.Array, dtype: np.dtype[Any]) -> jax.Array:
        if data.encode == "latency" and dtype in (np.uint8, np.uint16):
            # Levels again: the rounding of k / 255, which differs in compiled code, could move the spikes of some.
            x = jnp.round(x * np.iinfo(dtype).max).astype(dtype)
        return _ENCODERS[data.encode](key, x, config.model.time_steps)

    return train, evaluate


def _for_events(config: Config) -> tuple[Transform, Transform]:
    data, spatial = config.data, len(config.model.input_shape) == 3
    kind = "frames of events" if spatial else "events without height and width"
    _check("augment", data.augment, (*_ON_EVENTS, *_MIX) if spatial else ["mixup"], kind)
    _check("resize", [data.resize], ["events", *resize.METHODS] if spatial else ["events"], kind)
    _check("encode", [data.encode], ["direct"], kind)
    _check("normalise", [data.normalise], ["none", "max"], kind)
    check_rules(_EVENT_RULES, flatten(config))
    thin, others = data.augment[:1] == ("event_drop",), [name for name in data.augment if name != "event_drop"]

    def frames(x: jax.Array) -> jax.Array:
        if data.resize != "events" and data.size:
            x = resize.METHODS[data.resize](x, data.size)
        return _by_largest(x) if data.normalise == "max" else x

    def evaluate(key: jax.Array, batch: Batch) -> Batch:
        del key
        return batch | {"x": frames(batch["x"].astype(jnp.float32))}

    def train(key: jax.Array, batch: Batch) -> Batch:
        thin_key, frames_key, *keys = jax.random.split(key, 2 + len(others))
        x = batch["x"].astype(jnp.float32)
        x = _ON_EVENTS["event_drop"](thin_key, x) if thin else x
        if data.frames is not None:
            if x.shape[1] < data.frames:  # frames of a folder may have one time step, which is repeated
                raise ConfigError(
                    f"data.frames: {data.frames} is not possible for records of T = {x.shape[1]}; leave it out"
                )
            x = augment.choose_frames(frames_key, x, data.frames)
        batch = batch | {"x": frames(x)}
        for name, k in zip(others, keys, strict=True):
            if name in _MIX:
                batch = _mixed(name, k, batch, config.model.classes)
            else:
                options = {"padding": data.crop_padding} if name in _CROPS else {}
                batch = batch | {"x": _ON_EVENTS[name](k, batch["x"], **options)}
        return batch

    return train, evaluate


def _check(field: str, values: Iterable[Any], allowed: Sequence[str], kind: str) -> None:
    wrong = [value for value in values if value not in allowed]
    if wrong:
        raise ConfigError(
            f"data.{field}: {', '.join(wrong)} is not possible for {kind}; allowed are {', '.join(allowed)}"
        )


def _standard(name: str) -> Callable[[jax.Array], jax.Array]:
    if name not in _STANDARD:
        raise ConfigError(
            f"data.normalise: mean and standard deviation of {name} are not known, only those of {', '.join(_STANDARD)}"
        )
    mean, deviation = (jnp.array(values).reshape(1, 1, 1, 1, -1) for values in _STANDARD[name])
    return lambda x: (x - mean) / deviation


def brightness(x: jax.Array) -> jax.Array:
    """Convert the brightness of pictures, an unsigned integer or a float in [0, 1], to float32 in [0, 1].

    Raises:
      ConfigError: it is an integer with a sign.
    """
    if jnp.issubdtype(x.dtype, jnp.signedinteger):
        raise ConfigError(
            f"data: x of still inputs is {x.dtype}, whose largest number is no brightness; give uint8 from 0 to 255, "
            "or floats from 0 to 1"
        )
    most = np.iinfo(x.dtype).max if jnp.issubdtype(x.dtype, jnp.integer) else 1
    return x.astype(jnp.float32) / most


def _by_largest(x: jax.Array) -> jax.Array:
    """Divide each frame by its largest count; an empty frame stays empty."""
    largest = x.max(tuple(range(2, x.ndim)), keepdims=True)
    return x / jnp.where(largest > 0, largest, 1)


def _mixed(name: str, key: jax.Array, batch: Batch, classes: int) -> Batch:
    x, y = _MIX[name](key, batch["x"], mix.probabilities(batch["y"], classes))
    return batch | {"x": x, "y": y}
