"""The fields of a run, as frozen dataclasses, and the name that follows from them.

A field's comment is its help text on the command line.
"""

import dataclasses
import hashlib
import json
from typing import Any, Literal, get_type_hints

SurrogateName = Literal["triangle", "rectangle", "sigmoid", "arctan", "fast_sigmoid", "erf", "piecewise_exp"]


class ConfigError(ValueError):
    """A wrong option, value or file, told in one line that names it and what is allowed."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be written, or none of a run can be used."""


class Diverged(RuntimeError):
    """Loss or gradient was not finite for three steps in a row."""


class Lost(RuntimeError):
    """Another process of the same run has ended."""


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
    norm_groups: int = 1
    """Ghost batch norm: statistics of so many equal groups of a batch, each its own; 1: of the whole batch."""
    remat: bool = False
    """Keep only what goes from layer to layer, and compute the rest anew in reverse: less memory, more time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the synapses' products and of spikes; weights, norms, membranes, chaos term, read-out and loss are float32."""
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
    term: Literal["chaos", "drift", "linear", "cbp"] = "chaos"
    """The term itself, or a control in its place: a parabola of its pull at h = 0 and its zero, or a constant pull; or
    cbp: CBP's rule, no loss but a kick of z (I0 - mean of s(h/k)) on the weights that make h, outside the rate."""
    unit: Literal["plain", "flip"] = "plain"
    """flip: z0 (one number) is the term's flip ratio; its z is measured at the first step, with the rate of that step,
    and anew each flip_every steps, if there are such, so that the ratio follows the annealing."""
    substeps: int = 1
    """A control: the term's gradient is the mean over so many small steps of plain descent at the learning rate, which
    is the same force and cannot overshoot with plain sgd. Adam scales that mean: its steps are not those small ones."""


@dataclasses.dataclass(frozen=True)
class Loss:
    name: Literal["rate", "tet", "mse"] = "rate"
    """Cross-entropy of time-averaged logits, temporal efficient training (every time step), or squared error."""
    lam: float = 0.001
    """TET: weight of the pull of all logits to 1."""
    smoothing: float = 0.0
    """Share of each training label that is spread evenly over all classes, in [0, 1); evaluation's losses know none."""


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
    accumulate: int = 1
    """Take the gradient in so many parts of the batch, one after the other: less memory. Norms then see a part."""
    eps_root: float = 0.0
    """adam, adamw: added under the root. Above 0, training can be differentiated (Lyapunov exponents)."""
    ema: float = 0.0
    """Decay a step, in [0, 1), of a moving average of the weights, which is evaluated beside them; 0: none."""


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
    flip_every: int = 0
    """Steps between measurements of the flip ratios (above 1: past the flip), from step 1 on; 0: none. One costs as
    much as some 60 to 200 steps."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch always has one."""
    patience: int = 0
    """Stop when so many epochs in a row were no better in validation than the best before; 0: never."""
    weights: str = ""
    """A PyTorch checkpoint whose weights and running statistics the network starts with; see docs/weights.md."""
    layout: Literal["data", "fsdp", "zero1"] = "data"
    """Over devices, the batch is split, and: nothing else; weights and optimiser state too; the latter alone."""
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


def replaced(config: Any, name: str, value: Any) -> Any:
    """The config with another value of a field, named as in :func:`flatten`."""
    first, _, rest = name.partition(".")
    return dataclasses.replace(config, **{first: replaced(getattr(config, first), rest, value) if rest else value})


def to_json(config: Config) -> dict[str, Any]:
    """As nested plain types, equal after a round trip through JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(content: dict[str, Any]) -> Config:
    """The config of :func:`to_json`."""
    return _read(Config, content)


def _read(kind, content):
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], value) for name, value in content.items()})
    return tuple(content) if isinstance(content, list) else content


def run_name(config: Config) -> str:
    """The data set plus a short hash of the whole config: other options never resume the wrong run."""
    text = json.dumps(to_json(config), sort_keys=True)
    return f"{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
