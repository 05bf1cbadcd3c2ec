"""What a run is: frozen dataclasses, their checks, and the name that follows from them.

A field's comment is its help text on the command line. ``check`` holds every rule about values; it raises one
``ConfigError`` that names the field, what it was given and what is allowed.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

SurrogateName = Literal["triangle", "rectangle", "sigmoid", "arctan", "fast_sigmoid", "erf", "piecewise_exp"]


class ConfigError(ValueError):
    """A wrong option, value or file, told in one line that names it and what is allowed."""


class Diverged(RuntimeError):
    """Loss or gradient was not finite for three steps in a row."""


AugmentName = Literal[
    "crop", "flip", "cutout", "autoaugment", "resized_crop", "roll", "rotate", "shear", "event_drop", "nda",
    "batch_crop_flip", "mixup", "cutmix",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Data:
    name: str = "digits"
    """Data set."""
    dir: str = ""
    """folder only: where your class folders are."""
    validation: float = 0.1
    """Share of each class that is taken from the training part for validation, where the data set has none."""
    split: Literal["last", "first"] = "last"
    """cifar10_dvs only: which tenth of each class is the test part, files 900-999 or files 0-99."""
    size: tuple[int, int] | None = None
    """Height and width of a frame; as the data set has them, if None."""
    resize: Literal["events", "nearest", "bilinear", "antialias"] = "events"
    """Events to this size: by their coordinates before they are counted, or frame by frame on the device."""
    bins: Literal["number", "time", "window"] = "number"
    """Events to T frames: of equally many events, of equally long times, or of fixed windows of ``window`` each."""
    window: int = 50_000
    """bins=window only: microseconds; what is later than T windows is counted in the last."""
    frames: int | None = None
    """Events: train on so many of the T frames, another random sorted choice each step."""
    normalise: Literal["none", "standard", "max"] = "none"
    """Pictures by the data set's published mean and deviation; frames of events by each one's largest count."""
    augment: tuple[AugmentName, ...] = ()
    """What is done to training examples, in this order."""
    encode: Literal["direct", "rate", "latency"] = "direct"
    """A still picture as T steps: repeated, as random spikes at the rate of its brightness, or one spike each."""
    bad: Literal["fail", "skip"] = "fail"
    """A record that cannot be read: stop, or leave it out, counted and reported."""
    workers: int = 0
    """Processes that read ahead; changes no result."""
    threads: int = 1
    """Threads that read ahead in each process; changes no result."""


@dataclasses.dataclass(frozen=True)
class Neuron:
    decay: float = 0.25
    """Share of the membrane that stays from one time step to the next, in [0, 1]; 1 does not leak."""
    threshold: float = 1.0
    """A neuron fires strictly above it."""
    surrogate: SurrogateName = "triangle"
    """Formula that stands for the derivative of the spike."""
    surrogate_param: float = 1.0
    """The formula's parameter: the width of triangle and rectangle, slope or alpha of the others."""
    reset: Literal["hard", "soft", "none"] = "hard"
    """To zero, by subtracting the threshold, or none."""
    detach_reset: bool = False
    """Let no gradient flow through the spike in the reset."""
    learn: Literal["none", "layer", "channel"] = "none"
    """PLIF: train the decay, one of each layer or channel; the input is multiplied by 1 - decay."""


ModelName = Literal[
    "small_conv", "dense", "recurrent", "cnn6", "cnn7", "vgg9", "vggsnn", "vggsnn_wo_ap", "resnet19_tet",
    "resnet19_tebn", "sew_resnet18", "sew_resnet34", "sew_resnet50", "sew_7b", "sew_wide_7b",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Model:
    name: ModelName = "small_conv"
    """Network; see csbp_jax/models."""
    input_shape: tuple[int, ...] = (8, 8, 1)
    """Shape of one frame: height, width, channels. Empty: as the data have it."""
    classes: int = 10
    """Number of classes. 0: as the data have it."""
    time_steps: int = 4
    """T: a static picture is shown for so many time steps."""
    features: tuple[int, ...] | None = None
    """small_conv, dense, recurrent: channels (or units) of the spiking layers. None, here and below: the network's."""
    width: float | None = None
    """The others: multiplies all their numbers of channels and units."""
    norm: Literal["batch", "tdbn", "tebn", "bntt"] | None = None
    """Batch norm, or one of its kin for spiking networks."""
    dropout: float | None = None
    """cnn6, cnn7, vgg*, resnet19_tebn: share of units that are dropped before each dense layer."""
    connect: Literal["add", "and", "iand"] | None = None
    """sew_*: how a block's spikes and its shortcut meet."""
    neuron: Neuron = Neuron()


NETWORK_OPTIONS = ("features", "width", "norm", "dropout", "connect")


@dataclasses.dataclass(frozen=True)
class Chaos:
    z0: tuple[float, ...] = (0.0,)
    """Chaos strength at the start: one for all taps, or one each. 0 is plain backpropagation."""
    beta: float = 0.95
    """z is multiplied by it each epoch (or step), in [0, 1]."""
    anneal: Literal["epoch", "step"] = "epoch"
    """When z is multiplied by beta."""
    taps: tuple[str, ...] = ()
    """Tensors that carry the chaos term: LAYER.conv|dense, LAYER.norm, LAYER.membrane, LAYER.membrane_pre."""
    target: float = 0.65
    """I0 in (0, 1)."""
    scale: float = 10.0
    """k > 0, the scale of h inside the logistic function."""
    cut: tuple[float, float] | None = None
    """Hold h to this range, with no gradient outside (released code: -10 9.9)."""
    reduce: Literal["mean", "sum", "neuron"] = "mean"
    """Over the elements of a tap; neuron: mean over batch, time and space, sum over channels."""


@dataclasses.dataclass(frozen=True)
class Loss:
    name: Literal["rate", "tet", "mse"] = "rate"
    """Cross-entropy of time-averaged logits, temporal efficient training (every time step), or squared error."""
    lam: float = 0.001
    """TET: weight of the pull of all logits to 1."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    name: Literal["sgd", "adam", "adamw"] = "adamw"
    """Weight decay is part of the gradient for sgd and adam (as in PyTorch), apart from it for adamw."""
    lr: float = 0.001
    """Peak learning rate."""
    momentum: float = 0.9
    """sgd only."""
    weight_decay: float = 0.0
    """On all parameters."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """Of the learning rate, after the warm-up; cosine ends at 0."""
    warmup_epochs: int = 0
    """Linear warm-up."""
    step_epochs: int = 30
    """step only: multiply the rate by step_factor each so many epochs."""
    step_factor: float = 0.1
    """step only."""
    clip: float | None = None
    """Clip the gradient's global norm. Off by default: it abolishes chaos; the share of clipped steps is logged."""
    eps_root: float = 0.0
    """adam, adamw: added under the root. Above 0, training can be differentiated (Lyapunov exponents)."""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    """Of the weights and of the order of the data."""
    epochs: int = 30
    """Passes over the training part."""
    batch_size: int = 32
    """Examples a step, over all devices."""
    eval_batch_size: int = 180
    """Examples an evaluation step; changes no result."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch always has one."""
    deterministic: bool = False
    """On the command line: ask XLA for deterministic GPU kernels (slower). CPU runs are deterministic anyway."""
    data: Data = Data()
    model: Model = Model()
    chaos: Chaos = Chaos()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"chaos.z0": (1.0,), ...}``, the names as on the command line."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = value
    return flat


def to_json(config: Config) -> dict[str, Any]:
    """As nested plain types, equal after a round trip through JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def run_name(config: Config) -> str:
    """The data set plus a short hash of the whole config: other options never resume the wrong run."""
    text = json.dumps(to_json(config), sort_keys=True)
    return f"{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


_POSITIVE = ("a positive whole number", lambda v: v >= 1)
_SHARE = ("from 0 to 1", lambda v: 0 <= v <= 1)
_NOT_NEGATIVE = ("0 or more", lambda v: v >= 0)
_ABOVE_ZERO = ("above 0", lambda v: v > 0)
_SIZES = ("positive whole numbers, at least one", lambda v: len(v) >= 1 and all(n >= 1 for n in v))

_RULES = {
    "seed": ("from 0 to 2**32 - 1", lambda v: 0 <= v < 2**32),
    "epochs": _POSITIVE,
    "batch_size": _POSITIVE,
    "eval_batch_size": _POSITIVE,
    "log_every": _POSITIVE,
    "checkpoint_every": _POSITIVE,
    "data.validation": ("above 0 and at most 0.5", lambda v: 0 < v <= 0.5),
    "data.size": ("two positive whole numbers", lambda v: v is None or min(v) >= 1),
    "data.window": _POSITIVE,
    "data.frames": ("a positive whole number, or None", lambda v: v is None or v >= 1),
    "data.augment": ("different names", lambda v: len(set(v)) == len(v)),
    "data.workers": _NOT_NEGATIVE,
    "data.threads": _POSITIVE,
    "model.input_shape": ("positive whole numbers, or empty", lambda v: all(n >= 1 for n in v)),
    "model.classes": ("2 or more, or 0", lambda v: v >= 2 or v == 0),
    "model.time_steps": _POSITIVE,
    "model.features": ("positive whole numbers, or None", lambda v: v is None or _SIZES[1](v)),
    "model.width": ("above 0, or None", lambda v: v is None or v > 0),
    "model.dropout": ("at least 0 and below 1, or None", lambda v: v is None or 0 <= v < 1),
    "model.neuron.decay": _SHARE,
    "model.neuron.threshold": _ABOVE_ZERO,
    "model.neuron.surrogate_param": _ABOVE_ZERO,
    "chaos.z0": ("0 or more, at least one number", lambda v: len(v) >= 1 and all(z >= 0 for z in v)),
    "chaos.beta": _SHARE,
    "chaos.target": ("between 0 and 1", lambda v: 0 < v < 1),
    "chaos.scale": _ABOVE_ZERO,
    "chaos.cut": ("two numbers, low < high", lambda v: v is None or v[0] < v[1]),
    "chaos.taps": ("different names", lambda v: len(set(v)) == len(v)),
    "loss.lam": _SHARE,
    "optimizer.lr": _NOT_NEGATIVE,
    "optimizer.momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.warmup_epochs": _NOT_NEGATIVE,
    "optimizer.step_epochs": _POSITIVE,
    "optimizer.step_factor": _ABOVE_ZERO,
    "optimizer.clip": ("above 0, or None", lambda v: v is None or v > 0),
    "optimizer.eps_root": _NOT_NEGATIVE,
}


def _check_types(config: Any, prefix: str = "") -> None:
    """What the command line's parser does for strings, for values given in Python."""
    for name, hint in get_type_hints(type(config)).items():
        value, field = getattr(config, name), prefix + name
        if dataclasses.is_dataclass(hint):
            _check_types(value, f"{field}.")
        elif get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise ConfigError(f"{field}: {value!r} is not possible; allowed are {', '.join(get_args(hint))}")
        elif not _fits(value, hint):
            raise ConfigError(f"{field}: {value!r} is not possible; allowed is {getattr(hint, '__name__', hint)}")


def _fits(value, hint):
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
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def check(config: Config) -> Config:
    """The config itself, if all its values are possible.

    Raises:
      ConfigError: names the first impossible field and what is allowed.
    """
    _check_types(config)
    flat = flatten(config)
    for name, value in flat.items():
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, float)]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(f"{name}: {value} is not finite")
    for name, (allowed, holds) in _RULES.items():
        if not holds(flat[name]):
            raise ConfigError(f"{name}: {flat[name]} is not possible; allowed is {allowed}")
    if config.data.dir and config.data.name != "folder":
        raise ConfigError(
            f"data.dir: {config.data.dir!r}, but {config.data.name} has none; it is for the data set folder"
        )
    if config.model.neuron.learn != "none" and not 0 < config.model.neuron.decay < 1:
        raise ConfigError(
            f"model.neuron.decay: {config.model.neuron.decay} is not possible; allowed is between 0 and 1, where it is "
            "learned"
        )
    if any(config.chaos.z0) and not config.chaos.taps:
        raise ConfigError(f"chaos.taps: empty, but chaos.z0 is {config.chaos.z0}; name a tensor, or set chaos.z0 to 0")
    if len(config.chaos.z0) not in (1, len(config.chaos.taps)):
        raise ConfigError(
            f"chaos.z0: {len(config.chaos.z0)} numbers for {len(config.chaos.taps)} taps; give one, or one for each tap"
        )
    if config.optimizer.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"optimizer.warmup_epochs: {config.optimizer.warmup_epochs} is not possible; allowed is less than "
            f"epochs ({config.epochs})"
        )
    return config
