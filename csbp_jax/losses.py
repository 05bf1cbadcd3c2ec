"""Task losses of spiking networks, from the outputs of every time step, ``[B, T, C]``.

Shape key: B batch, T time steps, C outputs: logits of classes or labels, or values.

Of sequences of unequal length, ``lengths [B]``, an average over time is that over the time steps before its length.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from numpy.typing import NDArray

from csbp_jax import config as configuration
from csbp_jax import ranges
from csbp_jax.xla.lengths import mean_over_time, valid

__all__ = [
    "Loss",
    "Pointwise",
    "at_every_step",
    "build",
    "rate_cross_entropy",
    "rate_error",
    "rate_mse",
    "rates_outside",
    "smoothed",
    "tet",
]

Pointwise = Callable[[jax.Array, jax.Array], jax.Array]
"""``error(outputs [..., C], targets) -> [...]``; integer targets of classes lack the last axis."""


class Loss(Protocol):
    """Task loss, ``loss(logits, targets, where=None)``: a scalar mean over the examples.

    It also takes ``lengths`` if sequences have them.
    """

    def __call__(
        self,
        logits: jax.Array,
        targets: jax.Array,
        /,
        *,
        where: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the loss.

        Args:
          logits: ``[B, T, C]``.
          targets: of classes ``[B]`` integers or ``[B, C]`` probabilities, else ``[B, C]`` labels or values; those of
            every time step ``[B, T]`` or ``[B, T, C]``.
          where: ``[B]`` bool; the examples that count (padding does not). All by default.
          lengths: of sequences of unequal length, ``[B]`` integers.
        """
        ...


def build(config: configuration.Loss) -> Loss:
    """Build the loss of a config."""
    table: dict[tuple[str, str], Loss] = {
        ("class", "rate"): rate_cross_entropy,
        ("class", "tet"): functools.partial(tet, lam=config.lam),
        ("class", "mse"): rate_mse,
        ("labels", "rate"): functools.partial(rate_error, _binary_cross_entropy),
        ("labels", "tet"): functools.partial(tet, lam=config.lam, cross_entropy=_binary_cross_entropy),
        ("value", "mse"): functools.partial(rate_error, _mean_of(optax.squared_error)),
        ("value", "mae"): functools.partial(rate_error, _mean_of(lambda outputs, targets: jnp.abs(outputs - targets))),
        ("value", "huber"): functools.partial(rate_error, _mean_of(optax.huber_loss)),
    }
    loss = table[config.task, config.name]
    return functools.partial(at_every_step, loss) if config.per == "step" else loss


def at_every_step(
    loss: Loss,
    logits: jax.Array,
    targets: jax.Array,
    where: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Compute a loss of targets at every time step, ``mean_b 1/T sum_t loss(o[b,t], y[b,t])``.

    Args:
      loss: of a sequence of one time step.
      logits: ``[B, T, C]``.
      targets: ``[B, T]`` or ``[B, T, C]``.
      where: ``[B]`` bool; the examples that count. All by default.
      lengths: of sequences of unequal length, ``[B]``.
    """
    _check_examples(logits, where, lengths)
    loss_BT = jax.vmap(jax.vmap(lambda o, y: loss(o[None, None], y[None])))(logits, targets)
    return jnp.mean(mean_over_time(loss_BT, lengths), where=where)


def rate_error(
    error: Pointwise,
    outputs: jax.Array,
    targets: jax.Array,
    where: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Compute the error of the time-averaged outputs, ``mean_b error(1/T sum_t o[b,t], y[b])``.

    Args:
      error: ``(outputs [B, C], targets) -> [B]``.
      outputs: ``[B, T, C]``.
      targets: what the error takes, such as values ``[B, C]``.
      where: ``[B]`` bool; the examples that count. All by default.
      lengths: of sequences of unequal length, ``[B]``.
    """
    _check_examples(outputs, where, lengths)
    return jnp.mean(error(mean_over_time(outputs, lengths), targets), where=where)


def rates_outside(rates: Mapping[str, jax.Array], low: float, high: float) -> jax.Array:
    """Compute the firing-rate regulariser, ``mean over layers of max(0, low - r)**2 + max(0, r - high)**2``.

    The gradient passes through the spikes' surrogate. Penalties on rates that are too low and too high are usual for
    spiking networks; Bellec et al. (NeurIPS 2018) pull each neuron's rate to a target, Zenke & Vogels (Neural
    Computation 2021) allow a range.

    Args:
      rates: r, spikes per neuron per time step of each layer, averaged over a batch: ``{layer: scalar}``.
      low: lowest rate that is not penalised.
      high: highest rate that is not penalised.

    >>> float(rates_outside({"a": jnp.float32(0.0), "b": jnp.float32(0.75)}, 0.5, 1.0))
    0.125
    """
    r = jnp.stack(list(rates.values()))
    return jnp.mean(jnp.square(jnp.maximum(low - r, 0)) + jnp.square(jnp.maximum(r - high, 0)))


def _check_examples(outputs: jax.Array, where: jax.Array | None, lengths: jax.Array | None) -> None:
    """Check ``where [B]`` and ``lengths [B]`` against outputs ``[B, T, ...]``.

    Raises:
      ValueError: a shape is another, and would be broadcast, or a concrete length of an example that counts is below 1
        or above T.
    """
    examples, steps = outputs.shape[:2]
    for argument, array in (("where", where), ("lengths", lengths)):
        if array is not None and array.shape != (examples,):
            raise ValueError(f"{argument} is {array.shape}, but must be ({examples},), as outputs are {outputs.shape}")
    if lengths is not None:
        _check_numbers("lengths", lengths, 1, steps, where)


def _check_labels(labels: jax.Array, examples: int, classes: int, where: jax.Array | None) -> None:
    """Check labels: classes ``[B]``, or probabilities ``[B, C]``.

    Raises:
      ValueError: they are neither, so that they might be broadcast, or a concrete class of an example that counts is
        below 0 or not below C.
    """
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    if labels.shape != ((examples,) if integers else (examples, classes)):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}, but must be integers [B] or probabilities [B, C], with B "
            f"{examples} and C {classes}; cast class numbers, e.g. labels.astype(jnp.int32)"
        )
    if integers:
        _check_numbers("labels", labels, 0, classes - 1, where)


def _check_numbers(name: str, numbers: jax.Array, least: int, most: int, where: jax.Array | None = None) -> None:
    """Check the values of the examples that count, where these are known: not while a function is traced."""
    values, counts = _values(numbers), np.True_ if where is None else _values(where)
    if values is None or counts is None:
        return
    wrong = values[((values < least) | (values > most)) & counts]
    if wrong.size:
        raise ValueError(f"{name} has {wrong[0]}, but must be from {least} to {most}")


def _values(array: jax.Array) -> NDArray[Any] | None:
    """Return the values of an array that has them: not a traced one, and not one whose rest is on other hosts."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute the cross-entropy over the last axis; integer labels lack that axis, probabilities have it."""
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    loss = optax.softmax_cross_entropy_with_integer_labels if integers else optax.softmax_cross_entropy
    return loss(logits, labels)


def _mean_of(error: Pointwise) -> Pointwise:
    """Average an elementwise error over the last axis; a target of one number may lack this axis."""

    def mean(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        if targets.shape not in (outputs.shape, outputs.shape[:-1] if outputs.shape[-1] == 1 else None):
            raise ValueError(f"targets are {targets.shape}, but must be {outputs.shape}, as the outputs of each target")
        return error(outputs, targets.reshape(outputs.shape)).mean(axis=-1)

    return mean


_binary_cross_entropy = _mean_of(optax.sigmoid_binary_cross_entropy)


def smoothed(labels: jax.Array, classes: int, share: ArrayLike) -> jax.Array:
    """Smooth labels ``[B]`` or ``[B, C]`` to probabilities ``(1 - share) y + share / C``, ``[B, C]``.

    Label smoothing (Szegedy et al. 2016, arXiv:1512.00567), for any loss that takes probabilities. With share 0 the
    labels are returned unchanged, unless it is traced. Those of every time step have a further axis T.

    Raises:
      ValueError: the share is not at least 0 and below 1, or a class is not from 0 to C - 1; as
        :func:`rate_cross_entropy`.

    >>> smoothed(jnp.array([1]), 4, 0.5).tolist()
    [[0.125, 0.625, 0.125, 0.125]]
    """
    ranges.require("smoothed", ranges.FROM_0_BELOW_1, share=share)
    if not isinstance(share, jax.Array) and not share:
        return labels
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        _check_numbers("labels", labels, 0, classes - 1)
        labels = jax.nn.one_hot(labels, classes)
    return optax.smooth_labels(labels, share)


def rate_cross_entropy(
    logits: jax.Array, labels: jax.Array, where: jax.Array | None = None, lengths: jax.Array | None = None
) -> jax.Array:
    """Compute the cross-entropy of the time-averaged logits, ``mean_b CE(1/T sum_t o[b,t], y[b])``.

    Args:
      logits: ``[B, T, C]``.
      labels: ``[B]`` integers, or ``[B, C]`` probabilities.
      where: ``[B]`` bool; the examples that count (padding does not). All by default.
      lengths: of sequences of unequal length, ``[B]``.

    Raises:
      ValueError: labels, ``where`` or ``lengths`` have another shape, or a class is not from 0 to C - 1, or a length
        not from 1 to T, of an example that counts. Classes and lengths are looked at unless they are traced, as under
        ``jax.jit``. Every loss of classes raises this, the others of ``where`` and ``lengths``.
    """
    _check_examples(logits, where, lengths)
    _check_labels(labels, logits.shape[0], logits.shape[-1], where)
    return rate_error(_cross_entropy, logits, labels, where, lengths)


def tet(
    logits: jax.Array,
    labels: jax.Array,
    lam: float,
    target: float = 1.0,
    where: jax.Array | None = None,
    lengths: jax.Array | None = None,
    cross_entropy: Pointwise = _cross_entropy,
) -> jax.Array:
    """Compute the loss of temporal efficient training, at every time step (Deng et al., ICLR 2022, equations 9 to 11).

        (1 - lam) 1/T sum_t CE(o[t], y)  +  lam mean((o - target)**2)

    Args:
      logits: ``[B, T, C]``.
      labels: ``[B]`` integers, or ``[B, C]`` probabilities.
      lam: weight of the regulariser that pulls all logits to ``target``; 1e-3 in the authors' code.
      target: ``phi`` of the paper, 1 in the authors' code.
      where: ``[B]`` bool; the examples that count. All by default.
      lengths: of sequences of unequal length, ``[B]``.
      cross_entropy: CE; by default that of classes.
    """
    ranges.require("tet", ranges.FROM_0_TO_1, lam=lam)
    _check_examples(logits, where, lengths)
    if cross_entropy is _cross_entropy:
        _check_labels(labels, logits.shape[0], logits.shape[-1], where)
    elif labels.shape[0] != logits.shape[0]:
        raise ValueError(f"labels are {labels.shape}, but must be of {logits.shape[0]} examples, as the logits")
    labels_BT = jnp.broadcast_to(jnp.expand_dims(labels, 1), (*logits.shape[:2], *labels.shape[1:]))
    cross_entropy_BT = cross_entropy(logits, labels_BT)
    cross_entropy_B = mean_over_time(cross_entropy_BT, lengths)
    pull_B = jnp.square(logits - target).mean(axis=(1, 2), where=valid(lengths, logits))
    return jnp.mean((1 - lam) * cross_entropy_B + lam * pull_B, where=where)


def rate_mse(
    outputs: jax.Array,
    labels: jax.Array,
    votes: int = 1,
    where: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Compute the squared error between time-averaged outputs and one-hot labels (PLIF: Fang et al., ICCV 2021).

        mean_bc (r[b,c] - onehot(y[b])[c])**2,    r[b,c] = mean over t and the votes of class c

    Args:
      outputs: ``[B, T, C * votes]``: spikes, whose averages are firing rates, or logits.
      labels: ``[B]`` integers, or ``[B, C]`` probabilities.
      votes: number of neighbouring outputs that are averaged to one class; 10 in the paper.
      where: ``[B]`` bool; the examples that count. All by default.
      lengths: of sequences of unequal length, ``[B]``.
    """
    _check_examples(outputs, where, lengths)
    _check_labels(labels, outputs.shape[0], outputs.shape[-1] // votes, where)
    rates_BC = mean_over_time(outputs, lengths).reshape(outputs.shape[0], -1, votes).mean(axis=-1)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jax.nn.one_hot(labels, rates_BC.shape[-1], dtype=rates_BC.dtype)
    return jnp.mean(jnp.square(rates_BC - labels).mean(axis=-1), where=where)
