"""How good outputs are: accuracy of classes, F1 of labels, R2 and mean absolute error of values.

Each is a function of sums over the examples, which add up over batches: :func:`sums` of a batch, :func:`measures` of
the total. With ``loss.per`` step, all are of every time step that is there.

    accuracy    mean over examples of their share of time steps whose largest logit is that of the class
    f1          2 TP / (2 TP + FP + FN) over all labels together, each predicted at a probability above 1/2
    r2          1 - sum (y - o)**2 / sum (y - mean y)**2 over all numbers together; 0 where all are equal
    mae         mean |y - o|
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.config import Config
from csbp_jax.xla.lengths import mean_over_time, valid

_PRIMARY = {"class": "accuracy", "labels": "f1", "value": "r2"}


def primary(config: Config) -> str:
    """Return the name of the measure by which a network is chosen, of which more is better."""
    return _PRIMARY[config.loss.task]


def measures(config: Config, sums: dict[str, Any]) -> dict[str, Any]:
    """Compute the measures of a task from sums, its primary one first: numbers, or arrays of one number for each run.

    Args:
      config: gives the task.
      sums: those of :func:`sums` and, of classes, the ``count`` of examples; added up in float64 where there is one.
    """
    match config.loss.task:
        case "class":
            return {"accuracy": sums["correct"] / sums["count"]}
        case "labels":
            return {"f1": 2 * sums["both"] / jnp.maximum(sums["predicted"] + sums["actual"], 1)}
    total = sums["total"] + sums["total_rest"]
    spread = (sums["squares"] + sums["squares_rest"]) - total * (total / sums["values"])
    return {
        "r2": jnp.where(spread > 0, 1 - sums["residual"] / jnp.where(spread > 0, spread, 1), 0),
        "mae": sums["absolute"] / sums["values"],
    }


def sums(
    config: Config,
    logits: jax.Array,
    y: jax.Array,
    lengths: jax.Array | None = None,
    where: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Sum what the measures of a task need over the examples of a batch: scalars that add up over batches.

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
    """Sum values and their squares each as two numbers, so that float32 loses no digit of the variance.

    Far from 0, a variance is a small difference of large sums. So values are taken from c, their mean in 8 bits:

        sum y = n c + sum (y - c)           sum y**2 = n c**2 + 2 c sum (y - c) + sum (y - c)**2

    The first product of each is exact up to 65,536 numbers a batch, with the last bits of n c**2 in the rest.
    """
    n = counted.sum().astype(outputs.dtype)
    c = lax.reduce_precision(jnp.sum(targets, where=counted) / jnp.maximum(n, 1), exponent_bits=8, mantissa_bits=7)
    offset, error = targets - c, targets - outputs
    rest = jnp.sum(offset, where=counted)
    leading = lax.reduce_precision(n * c, exponent_bits=8, mantissa_bits=15)
    squares_rest = (n * c - leading) * c + 2 * c * rest + jnp.sum(jnp.square(offset), where=counted)
    return {
        "values": n,
        "total": n * c,
        "total_rest": rest,
        "squares": leading * c,
        "squares_rest": squares_rest,
        "residual": jnp.sum(jnp.square(error), where=counted),
        "absolute": jnp.sum(jnp.abs(error), where=counted),
    }


def of_batch(config: Config, logits: jax.Array, y: jax.Array, lengths: jax.Array | None = None) -> dict[str, jax.Array]:
    """Return the primary measure of a batch by its name, ``{name: scalar}``; arguments as of :func:`sums`."""
    name = primary(config)
    if name == "accuracy":
        return {name: correct(config, logits, y, lengths).mean()}
    return {name: measures(config, sums(config, logits, y, lengths))[name]}


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
