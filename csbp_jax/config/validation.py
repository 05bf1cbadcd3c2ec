"""Validation of the values of a config."""

import dataclasses
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from csbp_jax.config.errors import ConfigError
from csbp_jax.config.forms import flatten
from csbp_jax.config.ranges import ABOVE_0, BETWEEN_0_AND_1, FROM_0, FROM_0_BELOW_1, FROM_0_TO_1, Range
from csbp_jax.config.schema import Config

_MAX_DEPTH = 1000
"""Most layers, blocks, or steps of a PSN's order: configs come from others too, and to build 10^9 would not end."""
_MAX_STEPS = 10**5
"""Most time steps, which are traced one by one where a still image is repeated (models/static.py)."""
_MAX_SIZE = 10**7
"""Largest size of one axis of an array; beyond it, products of sizes would not fit into 64 bits."""
_MAX_VALUES = 2**28
"""Most values of one frame, as of one recording (data/events/binning.py)."""
_MAX_EPOCHS = 10**6
_MAX_EVERY = 10**9


def _from(least: int, most: int, optional: bool = False) -> Range:
    words = f"from {least} to {most:,}" + ", or None" * optional
    return Range(words, lambda v: (v is None and optional) or least <= v <= most)


RANGES: dict[str, Range] = {
    "seed": Range("from 0 to 2**32 - 1", lambda v: 0 <= v < 2**32),
    "epochs": _from(1, _MAX_EPOCHS),
    "batch_size": _from(1, _MAX_SIZE),
    "eval_batch_size": _from(1, _MAX_SIZE),
    "log_every": _from(1, _MAX_EVERY),
    "checkpoint_every": _from(1, _MAX_EVERY),
    "data.validation": Range("above 0 and at most 0.5", lambda v: 0 < v <= 0.5),
    "data.size": Range(
        f"two positive whole numbers, of a product up to {_MAX_VALUES:,}",
        lambda v: v is None or (min(v) >= 1 and math.prod(v) <= _MAX_VALUES),
    ),
    "data.shorter_side": _from(16, 4096, optional=True),
    "data.window": _from(1, _MAX_EVERY),
    "data.frames": _from(1, _MAX_STEPS, optional=True),
    "data.augment": Range("different names", lambda v: len(set(v)) == len(v)),
    "data.randaugment_operations": _from(1, _MAX_DEPTH),
    "data.randaugment_magnitude": _from(0, 30),
    "data.erasing_probability": FROM_0_TO_1,
    "data.mix_off_epochs": FROM_0,
    "data.workers": _from(0, 1024),
    "data.threads": _from(1, 1024),
    "model.input_shape": Range(
        f"positive whole numbers, of a product up to {_MAX_VALUES:,}, or empty",
        lambda v: all(n >= 1 for n in v) and math.prod(v) <= _MAX_VALUES,
    ),
    "model.classes": Range(f"from 2 to {_MAX_SIZE:,}, or 0", lambda v: 2 <= v <= _MAX_SIZE or v == 0),
    "model.time_steps": _from(1, _MAX_STEPS),
    "model.features": Range(
        f"1 to {_MAX_DEPTH} whole numbers from 1 to {_MAX_SIZE:,}, or None",
        lambda v: v is None or (1 <= len(v) <= _MAX_DEPTH and all(1 <= n <= _MAX_SIZE for n in v)),
    ),
    "model.width": Range("above 0 and at most 1000, or None", lambda v: v is None or 0 < v <= 1000),
    "model.embed": _from(1, _MAX_SIZE, optional=True),
    "model.depth": _from(1, _MAX_DEPTH, optional=True),
    "model.heads": _from(1, _MAX_SIZE, optional=True),
    "model.patch": Range("1, 2, 4, 8 or 16, or None", lambda v: v in (None, 1, 2, 4, 8, 16)),
    "model.init_rate": Range("above 0 and below 0.5, or None", lambda v: v is None or 0 < v < 0.5),
    "model.dropout": Range("at least 0 and below 1, or None", lambda v: v is None or 0 <= v < 1),
    "model.drop_path": Range("at least 0 and below 1, or None", lambda v: v is None or 0 <= v < 1),
    "model.max_delay": _from(1, _MAX_STEPS, optional=True),
    "model.norm_groups": _from(1, _MAX_SIZE),
    "model.neuron.decay": FROM_0_TO_1,
    "model.neuron.threshold": ABOVE_0,
    "model.neuron.surrogate_param": ABOVE_0,
    "model.neuron.synapse_decay": FROM_0_TO_1,
    "model.neuron.adaptation": FROM_0,
    "model.neuron.adaptation_decay": FROM_0_TO_1,
    "model.neuron.levels": _from(1, 256),
    "model.neuron.order": _from(1, _MAX_DEPTH),
    "chaos.z0": Range("0 or more, at least one number", lambda v: len(v) >= 1 and all(z >= 0 for z in v)),
    "chaos.beta": FROM_0_TO_1,
    "chaos.target": BETWEEN_0_AND_1,
    "chaos.scale": ABOVE_0,
    "chaos.cut": Range("two numbers, low < high", lambda v: v is None or v[0] < v[1]),
    "chaos.taps": Range("different names", lambda v: len(set(v)) == len(v)),
    "chaos.substeps": _from(1, _MAX_EVERY),
    "patience": _from(0, _MAX_EVERY),
    "loss_limit": Range("above 1, or 0", lambda v: v > 1 or v == 0),
    "loss.lam": FROM_0_TO_1,
    "loss.smoothing": FROM_0_BELOW_1,
    "loss.firing": FROM_0,
    "loss.firing_low": FROM_0,
    "loss.firing_high": FROM_0,
    "loss.membrane": FROM_0,
    "optimizer.lr": FROM_0,
    "optimizer.momentum": FROM_0_BELOW_1,
    "optimizer.weight_decay": FROM_0,
    "optimizer.layer_decay": Range("above 0 and at most 1", lambda v: 0 < v <= 1),
    "optimizer.warmup_epochs": FROM_0,
    "optimizer.step_epochs": _from(1, _MAX_EPOCHS),
    "optimizer.step_factor": ABOVE_0,
    "optimizer.clip": Range("above 0, or None", lambda v: v is None or v > 0),
    "optimizer.accumulate": _from(1, _MAX_SIZE),
    "optimizer.eps_root": FROM_0,
    "optimizer.ema": FROM_0_BELOW_1,
    "optimizer.sam_radius": FROM_0,
}
"""Allowed values of single fields."""

_OF_DATA_SETS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "data.dir": ("", ("folder",)),
    "data.test_speaker": ("", ("fsdd",)),
    "data.split": ("last", ("cifar10_dvs",)),
    "data.shorter_side": (None, ("imagenet",)),
    "data.resizer": ("pillow", ("imagenet", "folder")),
}
"""Fields that only some data sets have: the value with all others, and those data sets."""


def _check_types(config: Any, prefix: str = "") -> None:
    """Check the types of all fields: values from Python have not passed the command line's parser."""
    for name, hint in get_type_hints(type(config)).items():
        value, field = getattr(config, name), prefix + name
        if dataclasses.is_dataclass(hint):
            _check_types(value, f"{field}.")
        elif get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise ConfigError(f"{field}: {value!r} is not possible; allowed are {', '.join(get_args(hint))}")
        elif names := _unknown_names(value, hint):
            allowed = get_args(get_args(hint)[0])
            raise ConfigError(f"{field}: {', '.join(names)} is not possible; allowed are {', '.join(allowed)}")
        elif not _fits(value, hint):
            raise ConfigError(f"{field}: {value!r} is not possible; allowed is {getattr(hint, '__name__', hint)}")


def _unknown_names(value: Any, hint: Any) -> list[str]:
    """Return the items of a tuple of names that are none of those of its Literal."""
    if get_origin(hint) is not tuple or get_origin(get_args(hint)[0]) is not Literal or not isinstance(value, tuple):
        return []
    return [repr(item) for item in value if item not in get_args(get_args(hint)[0])]


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return (
            isinstance(value, tuple)
            and all(_fits(item, kinds[0]) for item in value)
            and (kinds[-1] is Ellipsis or len(value) == len(kinds))
        )
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is not None:  # X | None
        return any(_fits(value, kind) for kind in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return bool(isinstance(value, hint)) and (hint is bool or not isinstance(value, bool))


def check(config: Config) -> Config:
    """Check all values and return the config itself.

    Raises:
      ConfigError: a value is not allowed; the message names the first such field and the allowed values.
    """
    _check_types(config)
    flat = flatten(config)
    for name, value in flat.items():
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, float)]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(f"{name}: {value} is not finite")
    for name, allowed in RANGES.items():
        if not allowed.contains(flat[name]):
            raise ConfigError(f"{name}: {flat[name]} is not possible; allowed is {allowed.words}")
    for field, (without, names) in _OF_DATA_SETS.items():
        if flat[field] != without and config.data.name not in names:
            raise ConfigError(
                f"{field}: {flat[field]!r}, but {config.data.name} has no such option; it is for the data set "
                f"{' or '.join(names)}"
            )
    if config.model.max_delay is not None and config.model.max_delay >= config.model.time_steps:
        raise ConfigError(
            f"model.max_delay: {config.model.max_delay} is not possible; allowed is less than model.time_steps "
            f"({config.model.time_steps}), or None"
        )
    if config.model.init_rate is not None and config.model.norm != "none":
        norm = config.model.norm or "None (the network's own norm)"
        raise ConfigError(
            f"model.init_rate: {config.model.init_rate} is not possible with model.norm {norm}, which undoes a scale "
            "of the weights; set model.norm to none"
        )
    if config.model.init_rate is not None and config.weights:
        raise ConfigError(
            f"model.init_rate: {config.model.init_rate} is not possible with weights, which are the initial ones"
        )
    most = config.model.neuron.most_spikes
    if config.loss.firing_high > most:
        raise ConfigError(f"loss.firing_high: {config.loss.firing_high} is not possible; allowed is from 0 to {most}")
    if not config.loss.firing_low < config.loss.firing_high:
        raise ConfigError(
            f"loss.firing_low: {config.loss.firing_low} is not possible; allowed is less than loss.firing_high "
            f"({config.loss.firing_high})"
        )
    if config.weights_table and not config.weights:
        raise ConfigError(f"weights_table: {config.weights_table!r}, but weights is empty; name the checkpoint, too")
    _check_neuron(config)
    if config.model.drop_path and config.model.connect in ("and", "iand"):
        raise ConfigError(
            f"model.drop_path: {config.model.drop_path} is not possible with model.connect {config.model.connect}, "
            "whose product needs spikes of 0 and 1; set model.connect to add, or model.drop_path to 0"
        )
    _check_chaos(config)
    _check_training(config, flat)
    return config


def _check_chaos(config: Config) -> None:
    if any(config.chaos.z0) and not config.chaos.taps:
        raise ConfigError(f"chaos.taps: empty, but chaos.z0 is {config.chaos.z0}; name a tensor, or set chaos.z0 to 0")
    if len(config.chaos.z0) not in (1, len(config.chaos.taps)):
        raise ConfigError(
            f"chaos.z0: {len(config.chaos.z0)} numbers for {len(config.chaos.taps)} taps; give one, or one for each tap"
        )


def _check_training(config: Config, flat: dict[str, Any]) -> None:
    if config.optimizer.accumulate > 1:
        for field, needed in (("chaos.reduce", "mean or neuron"), ("chaos.substeps", "1")):
            if str(flat[field]) not in needed.split(" or "):
                raise ConfigError(
                    f"optimizer.accumulate: {config.optimizer.accumulate} is not possible with {field} {flat[field]}; "
                    f"set {field} to {needed}, or optimizer.accumulate to 1"
                )
    if config.batch_size % (config.optimizer.accumulate * config.model.norm_groups):
        raise ConfigError(
            f"batch_size: {config.batch_size} is not possible; allowed are multiples of optimizer.accumulate times "
            f"model.norm_groups, {config.optimizer.accumulate} x {config.model.norm_groups}"
        )
    if config.optimizer.layer_decay != 1:
        option = f"optimizer.layer_decay {config.optimizer.layer_decay}"
        _check_allowed(flat, option, {"chaos.substeps": (1,)})
    if config.data.mix_off_epochs and not {"mixup", "cutmix"} & set(config.data.augment):
        raise ConfigError(
            f"data.mix_off_epochs: {config.data.mix_off_epochs}, but data.augment has neither mixup nor cutmix; add "
            "one of them, or set data.mix_off_epochs to 0"
        )
    if config.data.mix_off_epochs >= config.epochs:
        raise ConfigError(
            f"data.mix_off_epochs: {config.data.mix_off_epochs} is not possible; allowed is less than epochs "
            f"({config.epochs})"
        )
    if config.optimizer.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"optimizer.warmup_epochs: {config.optimizer.warmup_epochs} is not possible; allowed is less than "
            f"epochs ({config.epochs})"
        )


def _check_allowed(flat: dict[str, Any], option: str, allowed: dict[str, tuple[Any, ...]]) -> None:
    """Check the fields that another option restricts to some of their values."""
    for field, values in allowed.items():
        if flat[field] not in values:
            words = " or ".join(map(str, values))
            raise ConfigError(f"{field}: {flat[field]} is not possible with {option}; allowed is {words}")


def _check_neuron(config: Config) -> None:
    neuron = config.model.neuron
    if neuron.scale_input and "psn" in neuron.name:
        raise ConfigError(f"model.neuron.scale_input: True is not possible with {neuron.name}, which has no decay")
    if neuron.scale_input and neuron.decay == 1:
        raise ConfigError(
            f"model.neuron.decay: {neuron.decay} is not possible with model.neuron.scale_input, which would scale all "
            "inputs to 0; set model.neuron.scale_input to False"
        )
    if neuron.name == "ilif" and config.model.connect in ("and", "iand"):
        raise ConfigError(
            f"model.connect: {config.model.connect} is not possible with ilif, whose spikes are numbers up to "
            "model.neuron.levels; set model.connect to add"
        )
    if neuron.name == "ilif" and config.loss.membrane:
        raise ConfigError(
            f"loss.membrane: {config.loss.membrane} is not possible with ilif, whose spikes are numbers up to "
            "model.neuron.levels, not 0 or 1; set loss.membrane to 0"
        )
    if neuron.name in ("psn", "masked_psn"):
        hint = "which computes all time steps at once; take sliding_psn"
        if config.model.name == "recurrent":
            raise ConfigError(f"model.neuron.name: {neuron.name} is not possible in a recurrent network, {hint}")
        if config.data.frames not in (None, config.model.time_steps):
            raise ConfigError(
                f"data.frames: {config.data.frames} is not possible with {neuron.name}, whose weights are for "
                f"model.time_steps ({config.model.time_steps}); leave it at None, or take sliding_psn"
            )
    if neuron.learn != "none" and neuron.name != "lif":
        raise ConfigError(f"model.neuron.learn: {neuron.learn} is not possible with {neuron.name}; allowed is none")
    if neuron.learn != "none" and not 0 < neuron.decay < 1:
        raise ConfigError(
            f"model.neuron.decay: {neuron.decay} is not possible; allowed is between 0 and 1, where it is learned"
        )
