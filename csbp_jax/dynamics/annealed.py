"""Growth of small differences along the annealed run that is trained."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csbp_jax.dynamics.lyapunov import lyapunov_many
from csbp_jax.dynamics.state import PyTree, Step


def rise(history: ArrayLike, every: int = 1) -> NDArray[Any]:
    """Compute the largest growth of a small difference from any step of a run to a later one, in nats.

    With h the local exponents of chunks of ``every`` steps: ``max over a <= b of every (h[a+1] + ... + h[b])``; 0 if
    all are negative. A run with a rise of several nats is expanding for a while, whatever its exponents at fixed z are.

    What it cannot show: that the growth is chaos. A run that leaves an unstable fixed point, overshoots, or has
    Jacobians that are not normal expands too. Jumps at spike flips are invisible to the tangent. The rise belongs to
    one run with its annealing and its length: it is not the exponent of an attractor. Local exponents that merely
    fluctuate around 0 have a rise of about ``1.25 s sqrt(every n)`` over n steps, with s their standard deviation where
    they are uncorrelated.

    Args:
      history: ``[chunks, ...]``, local exponents in nats per step, as returned by ``lyapunov`` and ``finite_size``.
      every: steps per chunk.

    Returns:
      An array ``[...]``; NaN where the history is not finite.

    >>> float(rise([0.5, -2.0, 1.0, 1.5, -3.0]))
    2.5
    """
    local = np.asarray(history)
    course = every * np.concatenate([np.zeros_like(local[:1]), np.cumsum(local, axis=0)])
    with np.errstate(invalid="ignore"):  # inf - inf, which is not returned
        result = np.max(course - np.minimum.accumulate(course, axis=0), axis=0)
    return np.where(np.isfinite(local).all(axis=0), result, np.nan)


def annealed_rises(
    step: Step,
    states: PyTree,
    batches: Iterable[Any],
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> NDArray[Any]:
    """Compute the :func:`rise` of K annealed runs at once, by the largest tangent exponent, on the same batches.

    A step must anneal by itself, so the state holds the number of the step, which is not a dynamical leaf: training
    states do, and an integer is not one by default.

    Args:
      step: the map; jittable. The same function object is compiled once over calls.
      states: initial states; each leaf has a leading axis ``[K]``.
      batches: one input of ``step`` per step of the annealed run.
      warmup: number of initial steps that are not counted. Without a warm-up, the first steps also hold the alignment
        of the first, random direction.

    The other arguments, and the errors raised, are those of :func:`csbp_jax.dynamics.lyapunov.lyapunov`.

    Returns:
      ``[K]``, in nats.
    """
    _, _, history = lyapunov_many(step, states, batches, 1, every, warmup, dynamical_leaves=dynamical_leaves, seed=seed)
    return rise(history[..., 0], every)
