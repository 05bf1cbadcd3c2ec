"""The training on a fold of the recordings as a system of experiments: folds, augmentation, one run."""

import dataclasses
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from csbp_jax import data, learner
from csbp_jax.config import Chaos, Config, ConfigError, Data, Model, Neuron, Optimizer, to_json
from csbp_jax.data.device import augment
from csbp_jax.data.device.transform import Transform
from csbp_jax.data.source import ArraySource
from csbp_jax.data.splits import stratified
from csbp_jax.learner import Batch, State
from csbp_jax.training.compiled import CompiledRun, compile_run
from csbp_jax.training.progress import NO_EPOCH, is_better

Array = NDArray[Any]

FOLDS = 10
FRAME, WINDOW = 34, 32
SHIFT, ANGLE, SHEAR, SCALE = 2, 12.0, 10.0, 0.1
"""Largest shift (pixels), rotation, shear (degrees) and change of the logarithm of the size."""
EPOCHS, FEATURES, TIME_STEPS = 60, (16, 32, 64), 5
BETA = 0.6 ** (10 / EPOCHS)
"""z ends at the fraction to which the preset ``nmnist`` anneals it in its 10 epochs."""


class Setting(NamedTuple):
    """What conditions and pilots differ in."""

    term: str = "chaos"
    z0: float = 0.0
    lr: float = 4e-3


def make_config(setting: Setting, side: int = WINDOW // 2) -> Config:
    """The config of a setting; ``side`` is that of the frames."""
    neuron = Neuron(decay=0.5)
    return Config(
        epochs=EPOCHS,
        batch_size=32,
        data=Data(name="nmnist"),
        model=Model("small_conv", (side, side, 2), time_steps=TIME_STEPS, features=FEATURES, neuron=neuron),
        chaos=Chaos(
            z0=(setting.z0,),
            beta=BETA,
            taps=("conv1.membrane",),
            reduce="neuron",
            term=setting.term,  # type: ignore[arg-type]
        ),
        optimizer=Optimizer("adamw", lr=setting.lr, weight_decay=0.01, warmup_epochs=1),
    )


# --- recordings ---------------------------------------------------------------------------------------------------


def recordings(data_dir: str) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Frames ``[1100, T, 34, 34, 2]`` and labels of the recordings 1 to 1000 and 60001 to 60100, in this order.

    Raises:
      ConfigError: the data are not prepared, or lack some of them.
    """
    splits = data.load(make_config(Setting(), FRAME), data_dir)
    folder = splits["train"].path.parent  # type: ignore[attr-defined]  # the cached frames of an event data set
    parts = json.loads((folder / "frames.json").read_text())["parts"]
    frames = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in parts}
    numbered = {
        int(pathlib.PurePosixPath(entry).stem): (name, row, label)
        for name, part in parts.items()
        for entry, row, label in zip(part["ids"], part["rows"], part["labels"], strict=True)
        if row >= 0
    }
    wanted = [*range(1, 1001), *range(60_001, 60_101)]
    if missing := [number for number in wanted if number not in numbered]:
        raise ConfigError(f"{folder}: {len(missing)} of the 1,100 recordings are missing, the first is {missing[0]:05}")
    rows = [numbered[number] for number in wanted]
    return np.stack([frames[name][row] for name, row, _ in rows]), np.array([label for *_, label in rows], np.int32)


def folds(y: NDArray[np.int32]) -> NDArray[np.int_]:
    """Fold of each recording: those of each class are shuffled (seed 0) and dealt out in turn."""
    generator, fold, dealt = np.random.default_rng(0), np.empty(len(y), int), 0
    for label in np.unique(y):
        members = generator.permutation(np.flatnonzero(y == label))
        fold[members] = (dealt + np.arange(len(members))) % FOLDS
        dealt += len(members)
    return fold


def split(y: NDArray[np.int32], fold: int) -> dict[str, NDArray[np.intp]]:
    """Indices of train, validation (a tenth of each class of the other folds) and test."""
    is_test = folds(y) == fold
    rest = np.flatnonzero(~is_test)
    train, validation = stratified(y[rest], 0.1)
    return {"train": rest[train], "validation": rest[validation], "test": np.flatnonzero(is_test)}


# --- augmentation -------------------------------------------------------------------------------------------------


def halved(x: jax.Array) -> jax.Array:
    """Sum the counts of 2x2 pixels of ``[T, H, W, C]``."""
    steps, height, width, channels = x.shape
    return x.reshape(steps, height // 2, 2, width // 2, 2, channels).sum((2, 4))


def centred(x: jax.Array) -> jax.Array:
    """The frame's central window, halved."""
    edge = (FRAME - WINDOW) // 2
    return halved(x[:, edge : edge + WINDOW, edge : edge + WINDOW])


def augmented(key: jax.Array, x: jax.Array) -> jax.Array:
    """Rotate, shear, scale and shift the frames of a recording ``[T, 34, 34, 2]`` at random; halve its window."""
    shape_key, place_key = jax.random.split(key)
    angle, shear, scale = jax.random.uniform(shape_key, (3,), minval=-1) * jnp.array([ANGLE, SHEAR, SCALE])
    c, s = jnp.exp(scale) * jnp.cos(jnp.deg2rad(angle)), jnp.exp(scale) * jnp.sin(jnp.deg2rad(angle))
    slope = jnp.tan(jnp.deg2rad(shear))
    x = augment.warped(
        x, lambda down, right: (c * down + s * (right + slope * down), c * (right + slope * down) - s * down)
    )
    edge = SHIFT - (FRAME - WINDOW) // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    top, left = jax.random.randint(place_key, (2,), 0, 2 * SHIFT + 1)
    return halved(jax.lax.dynamic_slice(padded, (0, top, left, 0), (len(x), WINDOW, WINDOW, x.shape[-1])))


def batched(transform: Callable[[jax.Array, jax.Array], jax.Array]) -> Transform:
    """Lift ``transform(key, frames of a recording)`` to a source's batch."""

    def prepare(key: jax.Array, batch: Batch) -> Batch:
        return batch | {"x": augment.per_example(transform)(key, batch["x"].astype(jnp.float32))}

    return prepare


# --- one run ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Program:
    """Compiled functions of a term, for runs on any fold with any of its settings."""

    run: CompiledRun
    outputs: Callable[[State, Batch], jax.Array]


def make_program(term: str, frames: Array, y: Array) -> Program:
    """Compile for a term; ``frames`` and ``y`` are those of all recordings."""
    indices = split(y, 0)["train"]
    train = ArraySource(frames[indices], y[indices], 10)
    config = make_config(Setting(term))
    run = compile_run(config, train, len(train) // config.batch_size)
    run = dataclasses.replace(run, prepare=batched(augmented), prepare_eval=batched(lambda key, x: centred(x)))

    @jax.jit
    def outputs(state: State, batch: Batch) -> jax.Array:
        """Mean logits over time, ``[B, classes]``."""
        x = run.prepare_eval(state.key, batch)["x"]
        return run.recipe.model.apply(learner.weights_of(state), x, False)[0].mean(1)

    return Program(run, outputs)


def train(program: Program, setting: Setting, frames: Array, y: Array, fold: int, seed: int) -> dict[str, Any]:
    """Train on a fold and test at its last epoch, and at the epoch that validates best.

    Returns:
      ``last_test_accuracy``, ``validation_accuracy`` and ``validation_loss``, means over the last five epochs, and
      ``chosen_epoch``; of each epoch ``validation``, ``loss`` (of validation) and ``training`` (its task loss); and of
      each test recording ``last_solved`` and ``chosen_solved``, whether its class is found.
    """
    indices = split(y, fold)
    source = ArraySource(frames[indices["train"]], y[indices["train"]], 10)
    run, number = program.run, FOLDS * seed + fold
    steps = len(source) // run.config.batch_size
    state = run.init(jax.random.key(number), learner.hyperparameters(make_config(setting), steps))
    batches = data.train_batches(source, run.config.batch_size, number)
    curves: dict[str, list[float]] = {"validation": [], "loss": [], "training": []}
    best, chosen, solved = (NO_EPOCH["accuracy"], NO_EPOCH["loss"]), {}, np.zeros(0)
    for epoch in range(1, run.config.epochs + 1):
        losses = []
        for batch in itertools.islice(batches, steps):
            state, metrics = run.train_step(state, run.shard_batch(batch))
            losses.append(metrics["task_loss"])
        logits = {
            name: program.outputs(state, {"x": jnp.asarray(frames[indices[name]])}) for name in ("validation", "test")
        }
        loss, validated = evaluation(logits["validation"], y[indices["validation"]])
        solved = evaluation(logits["test"], y[indices["test"]])[1]
        for name, value in zip(curves, (validated.mean(), loss, np.mean(jax.device_get(losses))), strict=True):
            curves[name].append(float(f"{value:.5g}"))
        if is_better(validated.mean(), loss, *best):
            best, chosen = (validated.mean(), loss), {"chosen_epoch": epoch, "chosen_solved": solved.astype(int)}
    means = {
        f"validation_{name}": np.mean(curves[of][-5:]) for name, of in (("accuracy", "validation"), ("loss", "loss"))
    }
    return {"last_test_accuracy": solved.mean(), **means, **chosen, **curves, "last_solved": solved.astype(int)}


def evaluation(logits: jax.Array, y: Array) -> tuple[float, Array]:
    """Cross-entropy, and where the class is found."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return float(loss), np.asarray(logits.argmax(1)) == y


@dataclasses.dataclass
class Folds:
    """Training on folds; fields are those of :class:`Setting`, and ``fold``. Conditions share the seed of a fold.

    config, augmentation, crc32: what a folder of runs remembers, of the training and of the recordings.

    Raises:
      ConfigError: as of :func:`recordings`.
    """

    data_dir: dataclasses.InitVar[str]
    config: dict[str, Any] = dataclasses.field(default_factory=lambda: to_json(make_config(Setting())))
    augmentation: tuple[float, ...] = (SHIFT, ANGLE, SHEAR, SCALE)
    crc32: int = dataclasses.field(init=False)

    def __post_init__(self, data_dir: str) -> None:
        self.frames, self.y = recordings(data_dir)
        self.crc32 = zlib.crc32(np.ascontiguousarray(self.frames).data)
        self.programs: dict[str, Program] = {}

    def group(self, fields: Mapping[str, Any]) -> str:
        return str(fields["term"])

    def train(self, term: str, fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Array]:
        if term not in self.programs:
            self.programs[term] = make_program(term, self.frames, self.y)
        runs = []
        for of_run, seed in zip(fields, seeds, strict=True):
            setting = Setting(**{name: of_run[name] for name in Setting._fields})
            runs.append(train(self.programs[term], setting, self.frames, self.y, of_run["fold"], seed))
        return {name: np.array([run[name] for run in runs]) for name in runs[0]}


# --- baseline -----------------------------------------------------------------------------------------------------


def ridge(frames: Array, y: Array, fold: int, penalty: float, on: str = "test") -> Array:
    """Where ridge regression from all counts (in the dual form) finds the class of a fold's recordings.

    ``alpha = (X X' + penalty)^-1 Y``, X [N, T * H * W * 2] and Y [N, classes] one-hot, less their means over training.
    """
    indices = split(y, fold)
    flat = frames.reshape(len(frames), -1).astype(float)
    x, one_hot = flat[indices["train"]], np.eye(10)[y[indices["train"]]]
    mean, targets = x.mean(0), one_hot - one_hot.mean(0)
    x = x - mean
    alpha = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), targets)
    outputs = (flat[indices[on]] - mean) @ (x.T @ alpha) + one_hot.mean(0)
    return outputs.argmax(1) == y[indices[on]]
