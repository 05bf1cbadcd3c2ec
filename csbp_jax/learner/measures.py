"""How good outputs are: accuracy of classes, F1 of labels, R2 and mean absolute error of values.

Each is a function of sums over the examples of a batch: :func:`sums` of one, :func:`measures` of all. With ``loss.per``
step, all are of every time step that is there.

    accuracy    mean over examples of their share of time steps whose largest logit is that of the class
    f1          2 TP / (2 TP + FP + FN) over all labels together, each predicted at a probability above 1/2
    r2          1 - sum (y - o)**2 / sum (y - mean y)**2 over all numbers together, the mean that of each value over
                examples (and steps); 0 where each value is always the same
    mae         mean |y - o|
"""

from typing import Any

import jax
import jax.numpy as jnp

from csbp_jax.config import Config
from csbp_jax.xla.lengths import mean_over_time, valid

PRIMARY = {"class": "accuracy", "labels": "f1", "value": "r2"}
"""The measure of each task by which a network is chosen, of which more is better."""


def measures(config: Config, batches: dict[str, Any]) -> dict[str, Any]:
    """Compute the measures of a task from sums of batches, its primary one first: numbers, or one for each run.

    Far from 0, the spread of values is a small difference of large sums. So it is that within batches, about their
    means, and that of their means:

        sum (y - mean y)**2 = sum over batches of  sum (y - m)**2  +  n (m - mean y)**2

    Args:
      config: gives the task.
      batches: those of :func:`sums` and, of classes, the ``count`` of examples, ``[batches, ...]``; on the host in
        float64.
    """
    total = {name: values.sum(axis=0) for name, values in batches.items()}
    match config.loss.task:
        case "class":
            return {"accuracy": total["correct"] / total["count"]}
        case "labels":
            chosen = total["predicted"] + total["actual"]
            return {"f1": 2 * total["both"] / (chosen + (chosen == 0))}
    n, mean = batches["values"], batches["mean"] + batches["mean_rest"]
    offset = mean - mean[:1]  # exactly 0 where all are equal
    mean_offset = (n * offset).sum(axis=0, keepdims=True) / n.sum(axis=0, keepdims=True)
    spread = (total["spread"] + (n * (offset - mean_offset) ** 2).sum(axis=0)).sum(axis=-1)
    differ = spread > 0
    return {
        "r2": differ - differ * total["residual"] / (spread + ~differ),
        "mae": total["absolute"] / total["values"].sum(axis=-1),
    }


def sums(
    config: Config,
    logits: jax.Array,
    y: jax.Array,
    lengths: jax.Array | None = None,
    where: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Sum what the measures of a task need over the examples of a batch: scalars, or one of each value ``[C]``.

    Args:
      config: gives the task, and whether targets are of examples or of time steps.
      logits: ``[B, T, C]``.
      y: targets as of :class:`csbp_jax.losses.Loss`.
      lengths: of sequences of unequal length, ``[B]``.
      where: ``[B]`` bool; the examples that count. All by default.
    """
    if config.loss.task == "class":
        hits = correct(config, logits, y, lengths)
        if where is not None:
            hits = hits & where if hits.dtype == bool else jnp.where(where, hits, 0)
        return {"correct": hits.sum()}
    per_step = config.loss.per == "step"
    outputs = logits if per_step else mean_over_time(logits, lengths)
    targets = y.reshape(outputs.shape)
    counted = jnp.ones(outputs.shape, bool)
    if where is not None:
        counted = counted & where.reshape(-1, *(1,) * (outputs.ndim - 1))
    if per_step and (steps := valid(lengths, outputs)) is not None:
        counted = counted & steps
    if config.loss.task == "value":
        return _sums_of_values(outputs, targets, counted)
    predicted, actual = (outputs > 0) & counted, (targets > 0.5) & counted
    return {"both": (predicted & actual).sum(), "predicted": predicted.sum(), "actual": actual.sum()}


def _sums_of_values(outputs: jax.Array, targets: jax.Array, counted: jax.Array) -> dict[str, jax.Array]:
    """Sum errors, and each value's spread about its mean, which is two numbers, as float32 would round it."""
    outputs, targets, counted = (array.reshape(-1, outputs.shape[-1]) for array in (outputs, targets, counted))
    n = counted.sum(axis=0, keepdims=True).astype(outputs.dtype)

    def mean_of(values: jax.Array) -> jax.Array:
        return jnp.sum(values, axis=0, keepdims=True, where=counted) / jnp.maximum(n, 1)

    mean, error = mean_of(targets), targets - outputs
    rest = mean_of(targets - mean)
    return {
        "values": n[0],
        "mean": mean[0],
        "mean_rest": rest[0],
        "spread": jnp.sum(jnp.square(targets - mean - rest), axis=0, where=counted),
        "residual": jnp.sum(jnp.square(error), where=counted),
        "absolute": jnp.sum(jnp.abs(error), where=counted),
    }


def of_batch(config: Config, logits: jax.Array, y: jax.Array, lengths: jax.Array | None = None) -> dict[str, jax.Array]:
    """Return the primary measure of a batch by its name, ``{name: scalar}``; arguments as of :func:`sums`."""
    name = PRIMARY[config.loss.task]
    if name == "accuracy":
        return {name: correct(config, logits, y, lengths).mean()}
    of_one = {key: value[None] for key, value in sums(config, logits, y, lengths).items()}
    return {name: measures(config, of_one)[name]}


def correct(config: Config, logits: jax.Array, labels: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Return whether the class of the largest time-averaged logit is the (most probable) label: ``[B]`` bool.

    With labels of every time step, the share of time steps at which that of the largest logit is: ``[B]``.
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        labels = labels.argmax(axis=-1)
    if config.loss.per == "step":
        hits = logits.argmax(axis=-1) == labels
        return mean_over_time(hits, lengths)
    return mean_over_time(logits, lengths).argmax(axis=-1) == labels
