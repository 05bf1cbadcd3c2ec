"""Training of many runs as one program, in which all that the study of generalisation varies is traced.

A run is a draw of the data (:class:`Draw`, by its seed) and knobs (:data:`OFF`, by its condition and setting). Steps
are those of ``csbp_jax.learner``. What a config holds as a constant (smoothing, decay, dropout, regulariser, radius) is
put in from outside, so that all conditions and settings share four compiled programs.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from csbp_jax import controls, dynamics, learner, losses, models
from csbp_jax.config import Config, Loss, replaced
from csbp_jax.learner import Recipe, objective, optimizer, sharpness, substeps
from csbp_jax.training.selection import is_better

Knobs = dict[str, Any]
OFF: Knobs = {
    "lr": 0.1,
    "width": 1.0,
    "z0": 0.0,
    "beta": 1.0,
    "chaos": 1.0,
    "drift": 0.0,
    "linear": 0.0,
    "smoothing": 0.0,
    "decay": 0.0,
    "dropout": 0.0,
    "membrane": 0.0,
    "radius": 0.0,
}
"""Knobs of plain backpropagation. chaos, drift and linear weigh the three terms; decay is the weight decay."""
SUBSTEPS = 10
BLOCK = 500
"""Pictures that are evaluated at once."""


Labelled = tuple[NDArray[Any], NDArray[Any]]
"""Inputs ``[N, T, ...]``, T = 1 for still pictures, and labels ``[N]``."""


class Task(NamedTuple):
    """Labelled inputs of a data set ("pictures" below), and the config that trains on them.

    labels: number of training pictures of each class.
    """

    config: Config
    labels: int
    train: Labelled
    validation: Labelled
    test: Labelled

    @property
    def size(self) -> int:
        """Number of training pictures of a run."""
        return self.labels * self.config.model.classes

    @property
    def data_mark(self) -> str:
        """A text that changes with the inputs."""
        parts = (self.train, self.validation, self.test)
        return " ".join(str(zlib.crc32(np.ascontiguousarray(x).data)) for x, _ in parts)

    @property
    def steps_per_epoch(self) -> int:
        return self.size // self.config.batch_size


class Draw(NamedTuple):
    """What a seed draws: the key of initial weights, pictures ``[n]``, labels ``[n]``, ``order [E, steps, B]``."""

    key: jax.Array
    pictures: Any
    labels: Any
    order: Any


def draw(task: Task, seed: int, wrong: float) -> Draw:
    """Draw a run's data: ``task.labels`` pictures of each class, of which a share ``wrong`` gets another class."""
    y, classes = task.train[1], task.config.model.classes
    of_pictures, of_labels, of_order = (np.random.default_rng([seed, stream]) for stream in range(3))
    pictures = np.concatenate(
        [of_pictures.choice(np.flatnonzero(y == c), task.labels, replace=False) for c in range(classes)]
    )
    labels = y[pictures].astype(np.int32)
    changed = of_labels.choice(task.size, round(wrong * task.size), replace=False)
    labels[changed] = (labels[changed] + of_labels.integers(1, classes, len(changed))) % classes
    used = task.steps_per_epoch * task.config.batch_size
    order = [of_order.permutation(task.size)[:used] for _ in range(task.config.epochs)]
    shape = (task.config.epochs, task.steps_per_epoch, task.config.batch_size)
    return Draw(jax.random.key(seed), pictures, labels, np.stack(order).reshape(shape))


# --- the recipe of a run ------------------------------------------------------------------------------------------


def make_recipe(task: Task, kind: str, knobs: Mapping[str, Any]) -> Recipe:
    """Build the recipe of a run; ``kind`` is a name in :data:`KINDS`, and the knobs may be traced."""
    config = replaced(task.config, "chaos.substeps", SUBSTEPS if kind == "substeps" else 1)
    if kind == "plain":
        config = replaced(config, "loss.membrane", 1.0)  # weighed by the knob in _regularised
    tx = optimizer.build(config.optimizer, config.epochs, task.steps_per_epoch)
    tx = optax.chain(optax.add_decayed_weights(knobs["decay"]), tx)
    classes = config.model.classes

    def loss(logits: jax.Array, labels: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
        labels = optax.smooth_labels(jax.nn.one_hot(labels, classes), knobs["smoothing"])
        return losses.rate_cross_entropy(logits, labels, where)

    def term(h: jax.Array, target: Any, scale: Any, **options: Any) -> jax.Array:
        return sum(knobs[name] * controls.TERMS[name](h, target, scale, **options) for name in _TERMS)

    recipe = learner.make_recipe(models.build(config.model), tx, loss, config, task.steps_per_epoch, term)
    value_and_grad = KINDS[kind](knobs)
    if kind == "sam":
        recipe = dataclasses.replace(recipe, config=replaced(recipe.config, "optimizer.sam_radius", knobs["radius"]))

    def with_dropout(*arguments: Any) -> Any:
        with nn.intercept_methods(functools.partial(_drop, knobs["dropout"])):
            return value_and_grad(*arguments)

    return dataclasses.replace(recipe, value_and_grad=with_dropout)


_TERMS = ("chaos", "drift", "linear")


def _drop(rate: Any, call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Drop inputs of the read-out, drawn per example and unit, and the same at all time steps."""
    if context.module.name != "readout":
        return call(*args, **kwargs)
    (x,) = args
    mask = jax.random.bernoulli(context.module.make_rng("dropout"), 1 - rate, (x.shape[0], 1, x.shape[-1]))
    return call(jnp.where(mask, x / (1 - rate), 0))


def _regularised(knobs: Mapping[str, Any]) -> Any:
    """Return the gradient in one pass, with the membrane regulariser times its knob."""

    def value_and_grad(recipe: Recipe, state: learner.State, batch: learner.Batch) -> Any:
        def loss(params: Any) -> Any:
            value, outcome = objective.objective(recipe, params, state, batch)
            return value + (knobs["membrane"] - 1) * outcome.metrics["membrane_loss"], outcome

        return jax.value_and_grad(loss, has_aux=True)(state.params)

    return value_and_grad


def _noisy(knobs: Mapping[str, Any]) -> Any:
    """Return the task's gradient with Gaussian noise, as large as the term's gradient in each tensor, in its place."""
    del knobs

    def value_and_grad(recipe: Recipe, state: learner.State, batch: learner.Batch) -> Any:
        value, _ = objective.value_and_grad(recipe, state, batch)
        parts = objective.separate_gradients(recipe, state, batch)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 3)
        noise = optax.tree.random_like(key, parts["chaos"], jax.random.normal)
        size = controls.tensor_rms(parts["chaos"])
        return value, jax.tree.map(lambda g, s, e: g + s * e, parts["task"], size, noise)

    return value_and_grad


KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "plain": _regularised,
    "substeps": lambda knobs: substeps.substep_value_and_grad,
    "noise": _noisy,
    "sam": lambda knobs: sharpness.sharpness_aware(objective.value_and_grad),
}
"""Programs: how the gradient of a step is made."""


def first_state(task: Task, recipe: Recipe, key: jax.Array, knobs: Mapping[str, Any]) -> learner.State:
    """The first state of a run, with its knobs as hyperparameters."""
    neuron = models.neuron(dataclasses.replace(task.config.model.neuron, surrogate_param=knobs["width"]))
    return learner.init(recipe, key, {name: knobs[name] for name in ("lr", "z0", "beta")} | {"neuron": neuron})


# --- training -----------------------------------------------------------------------------------------------------


def train(task: Task, kind: str, knobs: Sequence[Knobs], draws: Sequence[Draw], pad: int) -> list[dict[str, float]]:
    """Train runs ``pad`` at a time, at most ``pad`` of them.

    Returns:
      ``{validation, validation_loss, test, test_loss, chosen, chosen_test, train, bad}`` of each: accuracies and losses
      after the last epoch; the epoch with the best validation, and its test accuracy; the accuracy on the training
      labels; the number of steps in a row, at the end, that were not finite.
    """
    filled = [*range(len(knobs)), *[0] * (pad - len(knobs))]
    stacked: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(_floats(knobs[i]), draws[i]) for i in filled])
    results = jax.device_get(_program(task.config, task.labels, kind)(*stacked, _pictures(task)))
    return [{name: float(values[i]) for name, values in results.items()} for i in range(len(knobs))]


def _floats(knobs: Knobs) -> Knobs:
    return {name: jnp.float32(value) for name, value in knobs.items()}


def _pictures(task: Task) -> dict[str, Any]:
    """All arrays of a task; validation and test in blocks ``x [blocks, b, ...]``, with the mask of their padding."""

    def blocks(x: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
        count = -(-len(y) // BLOCK)
        size = -(-len(y) // count)
        rows = np.arange(count * size)
        shape = (count, size)
        at = np.minimum(rows, len(y) - 1)
        batch = {"x": x[at], "y": y[at].astype(np.int32), "mask": rows < len(y)}
        return {name: jnp.asarray(values.reshape(*shape, *values.shape[1:])) for name, values in batch.items()}

    return {
        "train": jnp.asarray(task.train[0]),
        "validation": blocks(*task.validation),
        "test": blocks(*task.test),
    }


@functools.cache
def _program(config: Config, labels: int, kind: str) -> Any:
    task = Task(config, labels, *[(np.empty(0), np.empty(0))] * 3)
    member = functools.partial(_train_run, task, kind)

    def run(knobs: Knobs, draws: Draw, pictures: dict[str, Any]) -> Any:
        if config.model.name == "dense":
            return jax.vmap(member, in_axes=(0, 0, None))(knobs, draws, pictures)
        # Convolutions with weights of their own in each run are slower together than one after the other.
        return jax.lax.map(lambda pair: member(pair[0], pair[1], pictures), (knobs, draws))

    return jax.jit(run)


def _train_run(task: Task, kind: str, knobs: Knobs, drawn: Draw, pictures: dict[str, Any]) -> dict[str, jax.Array]:
    recipe = make_recipe(task, kind, knobs)
    plain = dataclasses.replace(recipe, loss=losses.build(Loss()))
    x, y = pictures["train"][drawn.pictures], jnp.asarray(drawn.labels)

    def evaluate(state: learner.State, blocks: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        sums = jax.lax.map(lambda batch: learner.eval_step(plain, state, batch), blocks)
        total = {name: values.sum() for name, values in sums.items()}
        return total["correct"] / total["count"], total["loss"] / total["count"]

    def step(state: learner.State, rows: jax.Array) -> tuple[learner.State, None]:
        return learner.train_step(recipe, state, {"x": x[rows], "y": y[rows]})[0], None

    def epoch(carry: tuple[learner.State, Any], rows: tuple[jax.Array, jax.Array]) -> Any:
        state, best = carry
        state, _ = jax.lax.scan(step, state, rows[1])
        accuracy, loss = evaluate(state, pictures["validation"])
        new = {"accuracy": accuracy, "loss": loss, "epoch": rows[0], "weights": learner.weights_of(state)}
        better = is_better(accuracy, loss, best["accuracy"], best["loss"])
        return (state, jax.tree.map(lambda n, o: jnp.where(better, n, o), new, best)), (accuracy, loss)

    state = first_state(task, recipe, drawn.key, knobs)
    none = {"accuracy": -1.0, "loss": jnp.inf, "epoch": 0, "weights": learner.weights_of(state)}
    best = jax.tree.map(jnp.asarray, none)
    epochs = jnp.arange(1, task.config.epochs + 1)
    (state, best), (accuracies, validation_losses) = jax.lax.scan(epoch, (state, best), (epochs, drawn.order))
    test, test_loss = evaluate(state, pictures["test"])
    chosen, _ = evaluate(dataclasses.replace(state, **best["weights"]), pictures["test"])
    fitted = {"x": x[None], "y": y[None], "mask": jnp.ones((1, len(y)), bool)}
    return {
        "validation": accuracies[-1],
        "validation_loss": validation_losses[-1],
        "test": test,
        "test_loss": test_loss,
        "chosen": best["epoch"],
        "chosen_test": chosen,
        "train": evaluate(state, fitted)[0],
        "bad": state.bad_steps,
    }


def flip_ratio(task: Task, knobs: Knobs, drawn: Draw) -> float:
    """Flip ratio of the chaos term alone at z = 1, on the first batch of a run."""
    knobs = _floats(knobs | {"z0": 1.0, "beta": 1.0})
    recipe = make_recipe(task, "noise", knobs)  # without the membrane regulariser
    state = jax.jit(lambda: first_state(task, recipe, drawn.key, knobs))()
    rows = drawn.order[0, 0]
    batch = {"x": jnp.asarray(task.train[0][drawn.pictures[rows]]), "y": jnp.asarray(drawn.labels[rows])}

    def gradient(params: Any, state: learner.State, batch: learner.Batch) -> Any:
        return objective.separate_gradients(recipe, dataclasses.replace(state, params=params), batch)["chaos"]

    momentum = task.config.optimizer.momentum
    return dynamics.flip_ratio(gradient, state.params, float(knobs["lr"]), momentum, args=(state, batch))
