"""Loss barriers: whether two trained networks lie in the same basin of the loss.

On the line between their parameters, networks in one basin have a low loss throughout (linear mode connectivity:
Frankle, Dziugaite, Roy & Carbin, ICML 2020). Statistics of batch norm belong to their parameters, so they are estimated
again at each point, without which averaged parameters have a high loss in any case (Jordan et al., ICLR 2023). Hidden
units have no order, so they are matched first (unit_matching.py).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from numpy.typing import ArrayLike, NDArray

from csbp_jax import controls, learner
from csbp_jax.config import ConfigError
from csbp_jax.instruments import unit_matching
from csbp_jax.instruments.training_map import TrainingMap, repeated, to_default_precision
from csbp_jax.learner import Batch, Recipe, State, measures
from csbp_jax.models.norms import BatchNorm

POINTS = 21
"""Points on the line, both ends included."""


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """When and by how much a run is perturbed.

    Attributes:
      steps: of the run.
      times: steps after which a copy of the run is perturbed; 0 is the start, and ``steps`` the end.
      sizes: root mean squares of the Gaussian perturbation of each tensor, over that of the tensor at the start.
    """

    steps: int = 300
    times: tuple[int, ...] = (0, 10, 100)
    sizes: tuple[float, ...] = (1e-6, 1e-4, 1e-2)


def loss_barrier(losses: ArrayLike) -> float:
    """Compute the largest of the losses along a line minus the mean of both ends; NaN if one is not a number.

    Around 0: no barrier. Ends with different losses alone give half their difference.

    Raises:
      ValueError: there are fewer than three losses, or they are not a list.
    """
    values = _losses_of_a_line(losses, "loss_barrier")
    return float(values.max() - (values[0] + values[-1]) / 2)


def barrier_above_line(losses: ArrayLike) -> float:
    """Compute the largest excess of losses at even distances over the straight line between both ends; at least 0.

    ``max over t of L(w(t)) - ((1 - t) L(w(0)) + t L(w(1)))`` (Entezari, Sedghi, Saukh & Neyshabur, ICLR 2022). A
    convex loss has none, even where the losses of the ends differ. NaN if one is not a number.

    Raises:
      ValueError: there are fewer than three losses, or they are not a list.
    """
    values = _losses_of_a_line(losses, "barrier_above_line")
    return float((values - np.linspace(values[0], values[-1], len(values))).max())


def _losses_of_a_line(losses: ArrayLike, caller: str) -> NDArray[np.float64]:
    values = np.asarray(losses, float)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"{caller}: losses are {list(values.shape)}; pass three or more, with both ends")
    return values


def between(
    run: TrainingMap,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    batches: Sequence[Batch],
    points: int = POINTS,
) -> dict[str, Any]:
    """Measure the barrier on the line between two networks of a config; plain numbers.

    At each point, batch norm's statistics are the mean of those of the batches, computed as in training; the network is
    then evaluated on the same batches with these statistics. Running statistics of both ends are not used.

    Args:
      run: of ``training_map.make``; its task loss is measured, without the chaos term.
      first, second: ``{"params", ...}``: ``learner.weights_of`` a state, or the variables of ``csbp_jax.load``. For a
        barrier up to a permutation of units, pass ``unit_matching.match_units(model, first, second)`` as ``second``.
      batches: of the training data (``training_map.batches``).
      points: on the line, evenly spaced, both ends included.

    Returns:
      ``{barrier, losses [points], accuracies [points]}``; these are means over the batches, and accuracies those of
      classes, of labels F1, of values R2.

    Raises:
      ConfigError: the two networks differ in shape.
    """
    start, end = (to_default_precision(jax.tree.map(jnp.asarray, network["params"])) for network in (first, second))
    if jax.tree.map(jnp.shape, start) != jax.tree.map(jnp.shape, end):
        raise ConfigError("between: the two networks differ in their layers; pass two networks of the same config")
    data = list(repeated(batches, len(batches)))
    line = (jax.tree.map(lambda a, b, t=t: (1 - t) * a + t * b, start, end) for t in np.linspace(0, 1, points))
    measured = [_evaluate(run.recipe, params, data) for params in line]
    losses, accuracies = ([float(value) for value in column] for column in zip(*measured, strict=True))
    return {"barrier": loss_barrier(losses), "losses": losses, "accuracies": accuracies}


def after_perturbation(
    run: TrainingMap, batches: Sequence[Batch], plan: Perturbations = Perturbations(), seed: int = 0
) -> list[dict[str, Any]]:
    """Measure the barrier between a run and copies of it that were perturbed on the way; plain numbers.

    A copy is perturbed once, by Gaussian noise on its parameters, and is then trained on the same batches as the run.
    If an early, small perturbation makes a barrier and a late one does not, training chose its basin in between
    (Altintas, Kwok, Raffel & Rolnick, ICML 2025).

    Args:
      run: of ``training_map.make``, annealed as its config says.
      batches: repeated in their order; barriers are measured on all of them.
      plan: of the perturbations.
      seed: of the start and of the perturbations.

    Returns:
      For each time and size ``{time, size, distance, barrier, matched, losses}``: the distance of both ends in units of
      the norm of the run's parameters, the barrier between them, the same after matching of units (None where units of
      the network cannot be matched), and the losses at both ends.

    Raises:
      ValueError: a time is not in the run, or no batch.
    """
    wrong = [time for time in plan.times if not 0 <= time <= plan.steps]
    if wrong or not batches:
        raise ValueError(
            f"after_perturbation: times {wrong}, {len(batches)} batches; pass times from 0 to {plan.steps} and a batch"
        )
    start, step = run.start(seed, False), jax.jit(run.step)
    stream = list(repeated(batches, plan.steps))

    def train(state: State, first_step: int, last_step: int) -> State:
        for batch in stream[first_step:last_step]:
            state = step(state, batch)
        return state

    states, state, before = {}, start, 0
    for time in sorted({*plan.times, plan.steps}):
        states[time] = state = train(state, before, time)
        before = time
    end, results = state, []
    for i, (time, size) in enumerate((time, size) for time in plan.times for size in plan.sizes):
        key = jax.random.fold_in(jax.random.key(seed), i)
        params = _perturbed(states[time].params, start.params, size, key)
        copy = train(dataclasses.replace(states[time], params=params), time, plan.steps)
        results.append({"time": time, "size": size, **_compare_ends(run, end, copy, batches)})
    return results


def _compare_ends(run: TrainingMap, end: State, copy: State, batches: Sequence[Batch]) -> dict[str, Any]:
    config = run.recipe.config
    model, first, second = config.model, *(learner.weights_of(state) for state in (end, copy))
    line, matched = between(run, first, second, batches), None
    if model.name in unit_matching.PREFIXES:
        matched = between(run, first, unit_matching.match_units(model, first, second), batches)["barrier"]
    ours, other = (ravel_pytree(network["params"])[0] for network in (first, second))
    return {
        "distance": float(jnp.linalg.norm(other - ours) / jnp.linalg.norm(ours)),
        "barrier": line["barrier"],
        "matched": matched,
        "losses": [line["losses"][0], line["losses"][-1]],
    }


def _perturbed(params: optax.Params, start: optax.Params, size: float, key: jax.Array) -> optax.Params:
    """Add Gaussian noise to each tensor, in units of the tensor's root mean square at the start."""

    def noisy(tensor: jax.Array, rms: jax.Array, key: jax.Array) -> jax.Array:
        return tensor + size * rms * jax.random.normal(key, tensor.shape, tensor.dtype)

    return jax.tree.map(noisy, params, controls.tensor_rms(start), optax.tree.split_key_like(key, params))


def _evaluate(recipe: Recipe, params: optax.Params, batches: Sequence[Batch]) -> tuple[float, float]:
    """Return mean loss and primary measure, with batch statistics that are the mean of those of the batches."""
    each_batch = [_batch_statistics(recipe, params, batch) for batch in batches]
    statistics = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *each_batch)
    measured = np.array([_loss_and_accuracy(recipe, params, statistics, batch) for batch in batches])
    loss, accuracy = measured.mean(axis=0)
    return float(loss), float(accuracy)


@functools.partial(jax.jit, static_argnums=0)
def _batch_statistics(recipe: Recipe, params: optax.Params, batch: Batch) -> Any:
    """Return means and unbiased variances of one batch, from running statistics that were 0 before it."""
    lengths = learner.lengths_of(batch)
    initial = jax.eval_shape(lambda: recipe.model.init(jax.random.key(0), batch["x"], False, **lengths))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, batch["x"].dtype), initial.get("batch_stats", {}))
    _, mutated = recipe.model.apply(
        {"params": params, "batch_stats": zeros},
        batch["x"],
        True,
        rngs={"dropout": jax.random.key(0)},
        mutable=["batch_stats"],
        **lengths,
    )
    return jax.tree.map(lambda leaf: leaf / (1 - BatchNorm.momentum), mutated.get("batch_stats", {}))


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_accuracy(recipe: Recipe, params: optax.Params, statistics: Any, batch: Batch) -> jax.Array:
    lengths = learner.lengths_of(batch)
    logits, _ = recipe.model.apply({"params": params, "batch_stats": statistics}, batch["x"], False, **lengths)
    measured = measures.of_batch(recipe.config, logits, batch["y"], **lengths)
    return jnp.stack([recipe.loss(logits, batch["y"], **lengths), *measured.values()])
