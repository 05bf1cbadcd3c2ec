"""The configuration of a run: frozen dataclasses.

All that the library knows of a field stands with it. The docstring below it is its help text on the command line; its
range, in the annotation, is what :func:`csbp_jax.config.check` allows and ends the help text; the marks there
(``marks.py``) say what depends on it, and where it may change.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal, TypeVar, get_args

from csbp_jax.config import validation
from csbp_jax.config.marks import FixedInExperiments, Mark, NoSetting, Traced
from csbp_jax.config.removed import as_current
from csbp_jax.ranges import ABOVE_0, BETWEEN_0_AND_1, FROM_0, FROM_0_BELOW_1, FROM_0_TO_1, Range, integers

MAX_LAYERS = 200
"""Most layers with a number of features each. Configs come from others too, and all layers are traced one by one."""
MAX_BLOCKS = 64
"""Most blocks of a transformer, each of which has several layers."""
MAX_ORDER = 1000
"""Most time steps that a spike of a PSN depends on."""
MAX_STEPS = 10**5
"""Most time steps, which are traced one by one where a still image is repeated (xla/static.py)."""
MAX_SIZE = 10**7
"""Largest size of one axis of an array; beyond it, products of sizes would not fit into 64 bits."""
MAX_VALUES = 2**28
"""Most values of one frame, as of one recording (data/events/binning.py)."""
MAX_EPOCHS = 10**6
MAX_EVERY = 10**9

SEED = Range("from 0 to 2**32 - 1", lambda v: 0 <= v < 2**32)
DIFFERENT = Range("different names", lambda v: len(set(v)) == len(v))
FRAME = Range(
    f"positive whole numbers, of a product up to {MAX_VALUES:,}",
    lambda v: all(n >= 1 for n in v) and math.prod(v) <= MAX_VALUES,
)
LOSS_LIMIT = Range("above 1, or 0", lambda v: v > 1 or v == 0)
STRENGTHS = Range("0 or more, at least one number", lambda v: len(v) >= 1 and all(z >= 0 for z in v))
COUPLING = Range("from -10 to 10", lambda v: abs(v) <= 10)
FEATURES = Range(
    f"1 to {MAX_LAYERS} whole numbers from 1 to {MAX_SIZE:,}",
    lambda v: 1 <= len(v) <= MAX_LAYERS and all(1 <= n <= MAX_SIZE for n in v),
)

SurrogateName = Literal["triangle", "rectangle", "sigmoid", "arctan", "fast_sigmoid", "erf", "piecewise_exp"]

AugmentName = Literal[
    "crop", "flip", "cutout", "autoaugment", "randaugment", "random_erasing", "resized_crop", "roll", "rotate", "shear",
    "event_drop", "nda", "batch_crop_flip", "mixup", "cutmix",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Data:
    """Data set, splits, preprocessing and augmentation."""

    name: Annotated[str, Mark.CHOOSES_DATA] = "digits"
    """Name of the data set."""
    dir: Annotated[str, Mark.CHOOSES_DATA, Mark.EDITABLE, Mark.NO_PROGRAM] = ""
    """folder only: directory that contains the class folders."""
    validation: Annotated[float, Range("above 0 and at most 0.5", lambda v: 0 < v <= 0.5)] = 0.1
    """Fraction of each class of the training split that is held out for validation, if the data set has no validation
    split."""
    split: Annotated[Literal["last", "first"], Mark.CHOOSES_DATA] = "last"
    """cifar10_dvs only: tenth of each class that is the test split: last (files 900-999) or first (files 0-99)."""
    test_speaker: Annotated[str, Mark.CHOOSES_DATA] = ""
    """fsdd only: speaker of the recordings that are the test split; empty: numbers 0 to 4 of every speaker and digit,
    the split of the data's authors."""
    size: Annotated[tuple[int, int] | None, FRAME] = None
    """Height and width of a frame; None: those of the data set. Frames are stretched to it, which changes their aspect
    ratio; only imagenet, and a folder with resized_crop, are cropped to it."""
    shorter_side: Annotated[int | None, integers(16, 4096)] = None
    """imagenet only: its larger images are reduced to this shorter side, in pixels, once, when the data set is prepared
    (JPEG of quality 95); None: the published images."""
    resizer: Literal["pillow", "cykooz"] = "pillow"
    """imagenet, and a folder of pictures: what resizes them on the host: Pillow, or the package cykooz-resizer, which
    is faster; its pixels differ by at most 1 of 255."""
    resize: Literal["events", "nearest", "bilinear", "antialias"] = "events"
    """How event data are resized: events scales coordinates before binning; the others resize frames on the device."""
    bins: Literal["number", "time", "window", "own"] = "number"
    """How events are binned into T frames: equal numbers of events, equal durations, or windows of fixed length
    (``window``); own: such windows, of each recording only those up to its last event."""
    window: Annotated[int, integers(1, MAX_EVERY)] = 50_000
    """bins=window or own: length of a window in microseconds; events after T windows are counted in the last one."""
    frames: Annotated[int | None, integers(1, MAX_STEPS)] = None
    """Event data: number of the T frames used per training step, a new sorted random subset each step; None: all."""
    normalise: Literal["none", "standard", "max"] = "none"
    """Input normalisation: standard (images: published mean and standard deviation) or max (event frames: divided by
    the largest count of the frame)."""
    augment: Annotated[tuple[AugmentName, ...], DIFFERENT] = ()
    """Augmentations of training examples, in this order."""
    crop_padding: Annotated[int, integers(0, 1000)] = 4
    """augment=crop or batch_crop_flip only: pixels without content that are added at each side, before a window of the
    frame's own size is cropped."""
    randaugment_operations: Annotated[int, integers(1, 1000)] = 2
    """augment=randaugment only: number of random operations per image."""
    randaugment_magnitude: Annotated[int, integers(0, 30)] = 9
    """augment=randaugment only: strength of the operations, from 0 to 30."""
    mix_off_epochs: Annotated[int, FROM_0] = 0
    """augment=mixup or cutmix only: number of epochs at the end of training without them."""
    encode: Literal["direct", "rate", "latency"] = "direct"
    """Encoding of a static image over T time steps: repeated, Bernoulli spikes with the brightness as rate, or one
    spike per pixel with the brightness as latency."""
    bad: Literal["fail", "skip"] = "fail"
    """Treatment of unreadable records: stop, or skip them and report their number."""
    buckets: Annotated[int, integers(1, 1024), Mark.NO_PROGRAM] = 4
    """Records of unequal length: most lengths to which batches are padded, each of records of similar length. More:
    less padding, but more programs to compile."""
    workers: Annotated[int, integers(0, 1024), Mark.EDITABLE, Mark.NO_PROGRAM, Mark.NO_EFFECT] = 0
    """Processes that load training data in the background; does not change results. In a sweep, the seeds that train at
    once share them, at least one each."""
    threads: Annotated[int, integers(1, 1024), Mark.EDITABLE, Mark.NO_PROGRAM, Mark.NO_EFFECT] = 1
    """Threads that load data in each of these processes, or in the run's own; does not change results. Evaluation has
    these threads alone."""


NeuronName = Literal["lif", "cuba", "alif", "adlif", "clif", "ilif", "psn", "masked_psn", "sliding_psn"]


@dataclasses.dataclass(frozen=True)
class Neuron:
    """The spiking neuron."""

    decay: Annotated[float, FROM_0_TO_1, Traced(0.5, only_if_varied=True)] = 0.25
    """Factor of the membrane potential from one time step to the next, in [0, 1]; 1: no leak."""
    threshold: Annotated[float, ABOVE_0, Traced(1.0, only_if_varied=True)] = 1.0
    """Firing threshold; a neuron fires if its membrane potential is above it."""
    surrogate: SurrogateName = "triangle"
    """Surrogate derivative of the spike; ilif has its own."""
    surrogate_param: Annotated[float, ABOVE_0, Traced(1.0, only_if_varied=True)] = 1.0
    """Parameter of the surrogate: width of triangle and rectangle, slope (alpha) of the others."""
    reset: Literal["hard", "soft", "none"] = "hard"
    """Reset after a spike: hard (to zero), soft (subtract the threshold), or none."""
    detach_reset: bool = False
    """Stop the gradient through the spike in the reset."""
    learn: Literal["none", "layer", "channel"] = "none"
    """PLIF: learn the decay, one per layer or per channel; the input is then scaled by 1 - decay."""
    scale_input: bool = False
    """Scale the input by 1 - decay, as SpikingJelly does by default."""
    at_threshold: Literal["silent", "fire"] = "silent"
    """What a neuron does at exactly its threshold: stay silent, or fire (as in SpikingJelly)."""
    name: NeuronName = "lif"
    """Neuron: lif (leaky integrate-and-fire, or PLIF with learn), cuba (lif behind a leaky synapse), alif (lif with an
    adaptive threshold), adlif (lif with an adaptation that follows the membrane, too), clif (complementary lif), ilif
    (integer lif), or a parallel neuron with learned weights over time: psn, masked_psn or sliding_psn. Of these, decay
    is used by the lif family, reset by lif, cuba, alif and adlif, and detach_reset by all that are reset."""
    synapse_decay: Annotated[float, FROM_0_TO_1] = 0.5
    """cuba only: factor of the synaptic current from one time step to the next, in [0, 1]."""
    adaptation: Annotated[float, FROM_0] = 0.2
    """alif: rise of the threshold with each spike; adlif: factor b of the spike in the adaptation. 0 or more."""
    adaptation_decay: Annotated[float, FROM_0_TO_1] = 0.9
    """alif and adlif: factor of the adaptation from one time step to the next, in [0, 1]."""
    coupling: Annotated[float, COUPLING] = 0.5
    """adlif only: factor a of the membrane potential in the adaptation."""
    adaptation_scale: Annotated[float | None, ABOVE_0] = None
    """adlif only: factor q of coupling and adaptation; None: 120, or 60 with form euler. Form bittar has none."""
    form: Literal["symplectic", "euler", "bittar"] = "symplectic"
    """adlif only: symplectic (SE-adLIF: the adaptation follows membrane and spike of the same step), euler (of the step
    before) or bittar (of the step before, and it acts at once)."""
    levels: Annotated[int, integers(1, 256)] = 4
    """ilif only: largest number of spikes per time step."""
    order: Annotated[int, integers(1, MAX_ORDER)] = 2
    """masked_psn and sliding_psn only: number of time steps, the present one included, that a spike depends on."""

    @property
    def most_spikes(self) -> int:
        """Largest number of spikes of a neuron in a time step."""
        return self.levels if self.name == "ilif" else 1


ModelName = Literal[
    "small_conv", "dense", "recurrent", "cnn6", "cnn7", "vgg9", "vggsnn", "vggsnn_wo_ap", "resnet19_tet",
    "resnet19_tebn", "sew_resnet18", "sew_resnet34", "sew_resnet50", "sew_resnet101", "sew_resnet152", "sew_7b",
    "sew_wide_7b", "ms_resnet18", "ms_resnet34", "max_resnet18", "plif_mnist", "plif_cifar10", "plif_cifar10_dvs",
    "plif_dvs_gesture", "spikformer_cifar", "spikformer_imagenet", "spikformer_dvs", "qkformer_cifar",
    "qkformer_imagenet", "qkformer_dvs", "sdt_cifar", "sdt_imagenet", "sdt_dvs",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Options that are None take the network's own default."""

    name: ModelName = "small_conv"
    """Network; see csbp_jax/models."""
    input_shape: Annotated[tuple[int, ...], FRAME] = (8, 8, 1)
    """Shape of one frame: height, width, channels. Empty: that of the data."""
    classes: Annotated[int, integers(0, MAX_SIZE)] = 10
    """Number of outputs: of classes, labels or values (loss.task). 0: that of the data."""
    time_steps: Annotated[int, integers(1, MAX_STEPS)] = 4
    """Number of time steps T; a static image is repeated T times."""
    features: Annotated[tuple[int, ...] | None, FEATURES] = None
    """small_conv, dense, recurrent: channels (or units) of the spiking layers."""
    width: Annotated[float | None, Range("above 0 and at most 1000", lambda v: 0 < v <= 1000)] = None
    """Networks of the literature other than transformers: multiplier of all channel and unit numbers."""
    embed: Annotated[int | None, integers(1, MAX_SIZE)] = None
    """Transformers: channels of a token; a multiple of 8 and of the number of heads."""
    depth: Annotated[int | None, integers(1, MAX_BLOCKS)] = None
    """Transformers: number of blocks."""
    heads: Annotated[int | None, integers(1, MAX_SIZE)] = None
    """spikformer_*, qkformer_*: number of attention heads."""
    patch: Annotated[int | None, Range("1, 2, 4, 8 or 16", lambda v: v in (1, 2, 4, 8, 16))] = None
    """spikformer_*, sdt_*: pixels of the image per token, in height and in width: 1, 2, 4, 8 or 16."""
    norm: Literal["batch", "tdbn", "tebn", "bntt", "none"] | None = None
    """Normalisation: batch norm, one of its variants for spiking networks, or none."""
    init_rate: Annotated[float | None, Range("above 0 and below 0.5", lambda v: 0 < v < 0.5)] = None
    """norm=none only: scale the initial weights of each layer so that its neurons fire at this rate per time step, as
    measured on 32 training examples; None: the network's own initial weights."""
    dropout: Annotated[float | None, FROM_0_BELOW_1] = None
    """small_conv, cnn6, cnn7, vgg*, resnet19_tebn, plif_*: dropout rate before dense layers."""
    drop_path: Annotated[float | None, FROM_0_BELOW_1] = None
    """Residual networks: rate at which the last block's branch is dropped for an example in training (stochastic
    depth); linear in depth, from 0 at the first block."""
    connect: Literal["add", "and", "iand"] | None = None
    """sew_*: how the spikes of a block are combined with its shortcut."""
    pool: Literal["average", "max"] | None = None
    """2x2 pooling of small_conv (default: average) and plif_* (max). The maximum of spikes is a spike; their average is
    not."""
    max_delay: Annotated[int | None, integers(1, MAX_STEPS)] = None
    """dense: largest delay of a connection, in time steps; delays are then learned. None: no delays."""
    read_out: Literal["mean", "max", "last", "softmax"] = "mean"
    """How the outputs of all time steps decide together: by their mean, their largest value, the value of the last time
    step, or the sum of their softmax."""
    read_out_decay: Annotated[float, FROM_0_BELOW_1] = 0.0
    """Decay per time step, in [0, 1), of a leaky integrator without spikes, through which the outputs pass first; 0:
    none."""
    norm_groups: Annotated[int, integers(1, MAX_SIZE)] = 1
    """Ghost batch norm: number of equal groups of the batch, each with its own statistics."""
    remat: bool = False
    """Rematerialise: in training, store only the inputs of layers and recompute the rest in the backward pass (less
    memory, more time)."""
    remat_neurons: bool = False
    """As remat, but the outputs of synapses are stored as well, so that only norms and neurons are recomputed. On TPUs
    this is always so."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of synaptic products and spikes; weights, norms, membranes, chaos term, read-out and loss are always
    float32. On TPUs and new GPUs, JAX rounds the factors of float32 products, also of the read-out (docs/scale.md)."""
    neuron: Neuron = Neuron()


NETWORK_OPTIONS = (
    "features",
    "width",
    "embed",
    "depth",
    "heads",
    "patch",
    "norm",
    "dropout",
    "drop_path",
    "connect",
    "pool",
    "max_delay",
)
"""Fields of :class:`Model` that only some networks have."""


@dataclasses.dataclass(frozen=True)
class Chaos:
    """The chaos term of CSBP."""

    z0: Annotated[tuple[float, ...], STRENGTHS, Traced((0.0,))] = (0.0,)
    """Initial chaos strength: one value for all taps, or one per tap. 0: plain backpropagation."""
    beta: Annotated[float, FROM_0_TO_1, Traced(1.0)] = 0.95
    """Annealing factor: z is multiplied by it once per epoch (or step), in [0, 1]."""
    anneal: Literal["epoch", "step"] = "epoch"
    """Whether z is annealed once per epoch or once per step."""
    taps: Annotated[tuple[str, ...], DIFFERENT] = ()
    """Tensors that the chaos term acts on, as LAYER.TENSOR: conv or dense (output of the synapses, before the norm),
    norm (after the norm), current (the neuron's input, where it is a sum), membrane (after the last time step and its
    reset), membrane_pre (before reset, at every time step). csbp_jax list NETWORK lists those of a network."""
    target: Annotated[float, BETWEEN_0_AND_1, Traced(0.5)] = 0.65
    """Target value I0 of the logistic function, in (0, 1)."""
    scale: Annotated[float, ABOVE_0, Traced(1.0)] = 10.0
    """Scale k > 0: the logistic function is taken of h / k."""
    cut: Annotated[tuple[float, float] | None, Range("two numbers, low < high", lambda v: v[0] < v[1])] = None
    """Clip h to this range, with zero gradient outside (released code: -10 9.9)."""
    reduce: Literal["mean", "sum", "neuron"] = "mean"
    """Reduction over the elements of a tap; neuron: mean over batch, time and space, sum over channels."""
    term: Literal["chaos", "drift", "linear"] = "chaos"
    """The chaos term, or a control in its place: drift (a parabola with the same gradient at h = 0 and the same zero)
    or linear (a constant gradient)."""
    substeps: Annotated[int, integers(1, MAX_EVERY)] = 1
    """Control: average the gradient of the term over this number of small steps of plain gradient descent at the
    learning rate. It is the same force, but cannot overshoot with plain sgd; adam rescales the average."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """The task loss."""

    name: Literal["rate", "tet", "mse", "mae", "huber"] = "rate"
    """rate: cross-entropy of time-averaged logits (of sigmoids for task=labels); tet: temporal efficient training,
    cross-entropy at every time step; of time-averaged outputs, mse: squared error, mae: absolute error, huber: squared
    error that is linear beyond 1. With per=step, all are of every time step."""
    lam: Annotated[float, FROM_0_TO_1] = 0.001
    """tet only: weight of the squared error between all logits and 1."""
    task: Literal["class", "labels", "value"] = "class"
    """What the targets are: class (the number of one class), labels (0 or 1 for each label, of which several may be 1)
    or value (numbers)."""
    per: Literal["example", "step"] = "example"
    """Whether an example has one target, or one at every time step."""
    smoothing: Annotated[float, FROM_0_BELOW_1, Traced(0.1, only_if_varied=True)] = 0.0
    """Label smoothing of training labels, in [0, 1); evaluation never uses it."""
    firing: Annotated[float, FROM_0] = 0.0
    """Weight of the firing-rate regulariser, which is added to the task loss: the squared distance of each layer's rate
    from the range firing_low to firing_high, averaged over the layers. 0: off."""
    firing_low: Annotated[float, FROM_0] = 0.02
    """Lowest firing rate of a layer, in spikes per neuron per time step, that the regulariser allows."""
    firing_high: Annotated[float, FROM_0] = 0.5
    """Highest firing rate of a layer that the regulariser allows."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimiser and its learning-rate schedule."""

    name: Literal["sgd", "adam", "adamw", "lion", "muon"] = "adamw"
    """Optimiser. Weight decay is part of the gradient for sgd and adam (as in PyTorch), and decoupled for the others.
    lion: sign of a momentum; its rates are 3 to 10 times lower than AdamW's. muon: orthogonalised momentum for kernels
    but the first layer's and the read-out's, adam for all else; rates as AdamW's."""
    lr: Annotated[float, FROM_0, Traced(0.0)] = 0.001
    """Peak learning rate."""
    momentum: Annotated[float, FROM_0_BELOW_1] = 0.9
    """sgd only: momentum."""
    weight_decay: Annotated[float, FROM_0, Traced(0.1, only_if_varied=True)] = 0.0
    """Weight decay, of all parameters."""
    layer_decay: Annotated[float, Range("above 0 and at most 1", lambda v: 0 < v <= 1)] = 1.0
    """Factor of the learning rate from one layer, or residual block, to the one before it, in (0, 1]: the read-out
    learns at the full rate, the first layer at the lowest. 1: off."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """Learning-rate schedule after the warm-up; cosine ends at 0."""
    warmup_epochs: Annotated[int, FROM_0] = 0
    """Epochs of linear warm-up."""
    step_epochs: Annotated[int, integers(1, MAX_EPOCHS)] = 30
    """schedule=step only: number of epochs between multiplications by step_factor."""
    step_factor: Annotated[float, ABOVE_0] = 0.1
    """schedule=step only: factor of the learning rate."""
    clip: Annotated[float | None, ABOVE_0] = None
    """Clip the global norm of the gradient. Off by default, because it suppresses chaos; the fraction of clipped steps
    is logged."""
    accumulate: Annotated[int, integers(1, MAX_SIZE)] = 1
    """Gradient accumulation: number of microbatches per batch (less memory). Norms and loss.firing then use the
    statistics of a microbatch."""
    eps_root: Annotated[float, FROM_0] = 0.0
    """adam, adamw: constant added under the square root. Above 0, training is differentiable (Lyapunov exponents)."""
    ema: Annotated[float, FROM_0_BELOW_1] = 0.0
    """Decay per step, in [0, 1), of an exponential moving average of the weights, which is evaluated too; 0: off."""
    sam_radius: Annotated[float, FROM_0] = 0.0
    """Sharpness-aware minimisation (SAM): the gradient is taken at weights moved by this distance along the gradient of
    the same batch. Two gradients, so about twice the time per step; 0: off."""


@dataclasses.dataclass(frozen=True, repr=False)
class Config:
    """All options of a run."""

    seed: Annotated[int, SEED, Traced(0), NoSetting("which has a place of its own")] = 0
    """Random seed of initialisation and data order."""
    epochs: Annotated[int, integers(1, MAX_EPOCHS), Mark.EDITABLE] = 30
    """Number of passes over the training split."""
    batch_size: Annotated[int, integers(1, MAX_SIZE)] = 32
    """Examples per training step, over all devices."""
    eval_batch_size: Annotated[int, integers(1, MAX_SIZE), Mark.EDITABLE, Mark.NO_PROGRAM] = 180
    """Examples per evaluation step; changes results by rounding at most, but for ``data.encode`` rate, whose spikes
    depend on it."""
    log_every: Annotated[int, integers(1, MAX_EVERY), Mark.EDITABLE, Mark.NO_PROGRAM, Mark.NO_EFFECT] = 10
    """Steps between rows of metrics.jsonl."""
    checkpoint_every: Annotated[int, integers(1, MAX_EVERY), Mark.EDITABLE, Mark.NO_PROGRAM, Mark.NO_EFFECT] = 1
    """Epochs between checkpoints; the last epoch always has one."""
    patience: Annotated[int, integers(0, MAX_EVERY), Mark.EDITABLE, Mark.NO_PROGRAM] = 0
    """Early stopping: number of epochs in a row without a better validation result; 0: off."""
    loss_limit: Annotated[float, LOSS_LIMIT, Mark.EDITABLE, Mark.NO_PROGRAM] = 1000.0
    """Divergence: the run ends when the task loss has been above this many times its value at the first step (or above
    this number, if it began below 1) for 100 steps in a row, or for three epochs if these have fewer steps; 0: off."""
    weights: Annotated[
        str, Mark.NO_PROGRAM, FixedInExperiments("", "whose members start from drawn weights; leave it out")
    ] = ""
    """PyTorch checkpoint with initial weights and running statistics; see docs/weights.md."""
    weights_table: Annotated[str, Mark.NO_PROGRAM] = ""
    """JSON file with the names in that checkpoint, where they are not the published ones; see docs/weights.md."""
    layout: Annotated[
        Literal["data", "fsdp", "zero1"],
        Mark.EDITABLE,
        FixedInExperiments("data", "whose devices hold members; leave it at data"),
    ] = "data"
    """The arrays that are split over devices: the batch only (data), also weights and optimiser state (fsdp), or also
    the optimiser state (zero1)."""
    deterministic: Annotated[bool, Mark.EDITABLE, Mark.NO_PROGRAM, NoSetting("as members share a process")] = False
    """Command line only: ask XLA for deterministic GPU kernels (slower). Runs on CPU are always deterministic."""
    data: Data = Data()
    model: Model = Model()
    chaos: Chaos = Chaos()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()

    replace = validation.replace
    """``config.replace("chaos.z0", 0)``: see :func:`csbp_jax.config.validation.replace`."""

    def __repr__(self) -> str:
        defaults = validation.flatten(Config())
        return f"Config().replace(**{ {k: v for k, v in validation.flatten(self).items() if v != defaults[k]} })"


def from_json(content: dict[str, Any]) -> Config:
    """Convert from the form of :func:`csbp_jax.config.to_json`, which an earlier version may have written.

    Raises:
      ConfigError: it has a value other than the default for an option that this version no longer has.
    """
    return validation.from_json(as_current(content), Config)


MarkOfValue = TypeVar("MarkOfValue", Traced, FixedInExperiments, NoSetting)


def fields_marked(mark: Mark) -> tuple[str, ...]:
    """Return the fields that have a mark, in their order."""
    return tuple(field for field, hint in validation.hints(Config).items() if mark in get_args(hint))


def marks_by_field(kind: type[MarkOfValue]) -> dict[str, MarkOfValue]:
    """Return the marks of a kind by their fields, such as ``{"seed": Traced(0), ...}``."""
    extras = ((field, extra) for field, hint in validation.hints(Config).items() for extra in get_args(hint))
    return {field: extra for field, extra in extras if isinstance(extra, kind)}
