"""What is measured at the end points of training: the training loss around them, and on the line between them.

All functions take the nets of many runs at once: the first axis of every leaf numbers the runs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import losses, models
from csbp_jax.config import Config, Loss
from csbp_jax.evaluation.robustness.weight_errors import with_noise
from csbp_jax.instruments import loss_rise, unit_matching
from csbp_jax.learner.objective import correct
from experiments.claims.nets import Weights, stack

SIZES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Standard deviations of the noise on weights, relative to the root mean square of their output filter."""
RADIUS = 0.02
"""Of the ascent, relative to the norm of each output filter."""
POINTS = 21
BLOCK = 500
"""Pictures that are evaluated at once."""


def training_loss(config: Config, weights: Weights, x: jax.Array, y: jax.Array) -> Callable[[Any], jax.Array]:
    """The mean loss of a run's pictures as a function of its parameters, without chaos term and regularisers.

    Batch norm takes its statistics from all these pictures at once, so that they are those of the parameters that are
    given. Gradients are those of a surrogate of width 1, whatever the run was trained with.
    """
    network, loss = models.build(config.model), losses.build(Loss())
    neuron = models.neuron(dataclasses.replace(config.model.neuron, surrogate_param=1.0))

    def of_params(params: Any) -> jax.Array:
        variables = {"params": params, "batch_stats": weights["batch_stats"]}
        (logits, _), _ = network.apply(variables, x, True, mutable=["batch_stats"], neuron=neuron)
        return loss(logits, y)

    return of_params


def end_losses(config: Config, weights: Weights, x: jax.Array, y: jax.Array) -> NDArray[Any]:
    """The training loss of each net, ``[runs]``, on pictures ``x [runs, N, ...]`` with labels ``y [runs, N]``."""
    values: NDArray[Any] = jax.device_get(_end_losses(config)(weights, x, y))
    return values


@functools.cache
def _end_losses(config: Config) -> Any:
    return jax.jit(jax.vmap(lambda w, x, y: training_loss(config, w, x, y)(w["params"])))


def sharpness(
    config: Config, weights: Weights, x: jax.Array, y: jax.Array, keys: jax.Array, draws: int
) -> dict[str, NDArray[Any]]:
    """Measure ``{rises [runs, sizes], worst [runs]}``: mean rises under noise, and rises by ascent.

    Args:
      x, y: training pictures of each run, ``[runs, N, ...]``, and their labels ``[runs, N]``.
      keys: of each run, ``[runs]``.
      draws: of the noise; each is used with both signs.
    """
    values: dict[str, NDArray[Any]] = jax.device_get(_sharpness(config, draws)(weights, x, y, keys))
    return values


@functools.cache
def _sharpness(config: Config, draws: int) -> Any:
    def of_net(weights: Weights, x: jax.Array, y: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        loss, params = training_loss(config, weights, x, y), weights["params"]
        rises = loss_rise.noise_rises(loss, with_noise, params, jax.random.split(key, draws), SIZES)
        return {"rises": rises.mean(axis=1), "worst": loss_rise.worst_rise(loss, params, RADIUS)}

    return jax.jit(jax.vmap(of_net))


def line_losses(config: Config, first: Weights, second: Weights, x: jax.Array, y: jax.Array) -> NDArray[Any]:
    """The training loss on the line between two nets of each run, ``[runs, 21]``."""
    values: NDArray[Any] = jax.device_get(_line_losses(config)(first, second, x, y))
    return values


@functools.cache
def _line_losses(config: Config) -> Any:
    def of_pair(first: Weights, second: Weights, x: jax.Array, y: jax.Array) -> jax.Array:
        loss = training_loss(config, first, x, y)

        def at(t: jax.Array) -> jax.Array:
            return loss(jax.tree.map(lambda a, b: (1 - t) * a + t * b, first["params"], second["params"]))

        return jax.lax.map(at, jnp.linspace(0, 1, POINTS))

    return jax.jit(jax.vmap(of_pair))


def matched(config: Config, first: Weights, second: Weights) -> Weights:
    """The second nets with hidden units permuted to match those of the first."""
    pairs = zip(_rows(first), _rows(second), strict=True)
    weights: Weights = stack([unit_matching.match_units(config.model, *pair) for pair in pairs])
    return weights


def _rows(weights: Weights) -> list[Weights]:
    on_host = jax.device_get(weights)
    count = len(jax.tree.leaves(on_host)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], on_host) for i in range(count)]


def distances(first: Weights, second: Weights) -> NDArray[Any]:
    """Distance of the parameters of two nets of each run over the norm of the first's, ``[runs]``."""

    def squares(*trees: Any) -> Any:
        leaves = jax.tree.leaves(jax.tree.map(lambda a, *b: (a - sum(b)) ** 2, *trees))
        return sum(np.asarray(leaf).reshape(len(leaf), -1).sum(axis=1) for leaf in leaves)

    values: NDArray[Any] = np.sqrt(squares(first["params"], second["params"]) / squares(first["params"]))
    return values


def accuracies(config: Config, weights: Weights, x: Any, y: Any) -> NDArray[Any]:
    """Accuracy of each net, ``[runs]``, with running statistics; ``x [N, ...]`` for all, or ``[runs, N, ...]``."""
    own = np.ndim(y) == 2
    columns = [slice(first, first + BLOCK) for first in range(0, np.shape(y)[-1], BLOCK)]
    evaluate = _correct(config, own)
    blocks = [(x[:, c], y[:, c]) if own else (x[c], y[c]) for c in columns]
    right = np.concatenate([evaluate(weights, *block) for block in blocks], axis=1)
    values: NDArray[Any] = right.mean(axis=1)
    return values


@functools.cache
def _correct(config: Config, own: bool) -> Any:
    network = models.build(config.model)
    axis = 0 if own else None
    return jax.jit(jax.vmap(lambda w, x, y: correct(network.apply(w, x, False)[0], y), in_axes=(0, axis, axis)))
