"""Is a map chaotic? Lyapunov exponents of any ``step(state, batch) -> state``, training steps among them.

Spike flips make a training step discontinuous, and the tangent map does not see them. So one number never decides:

- ``lyapunov``: the tangent exponents, by products of Jacobians and QR (Benettin et al. 1980; Eckmann & Ruelle 1985);
- ``finite_size``: growth of a difference of given size, which flips and all other jumps take part in;
- the cumulated local exponents of a real, annealed run: ``every * cumsum(history)`` of either;
- ``flip_ratio``: the steepest curvature over that at which plain descent starts to overshoot. Above 1 a fixed point has
  lost its stability; chaos needs more (of the chaos term alone, 1.64 at I0 = 0.65).

*Chaotic* is a positive tangent exponent; *finite-size sensitive* a tangent exponent of 0 or less with a positive
finite-size one; *transiently expanding* a run whose cumulated local exponent rises for a while.

The state is any pytree. Differences live in the leaves that feed back, by default all inexact ones
(``learner.fed_back`` for a training state: parameters and moments, not batch norm's running statistics); the others,
integers and keys among them, are carried along. All growth rates are in nats a step.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Step = Callable[[Any, Any], Any]


def lyapunov(
    step: Step,
    state: Any,
    batches: Iterable,
    n: int,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The ``n`` largest Lyapunov exponents along a trajectory, by the tangent map.

    With ``Q[0]`` random and orthonormal, ``Q[i+1] R[i+1] = DF^every Q[i]``: exponent j is the mean of
    ``log |R_jj| / every``. For a training step ``DF`` is the ``jvp`` through its gradient, exact but for the jumps at
    spike flips.

    Args:
      step: the map; jittable. The same function object is compiled once over calls.
      state: where to start.
      batches: one input of ``step`` for each step, e.g. ``[batch] * 300`` for a fixed batch. What does not fill a last
        chunk of ``every`` steps is not used.
      n: how many exponents; a step costs ``n`` tangents.
      every: steps between two QR decompositions: few enough that the directions stay apart.
      warmup: first steps, in which the directions align, and which are not counted.
      fed_back: pytree of bools like ``state``, True for the leaves that make up the map's state; by default all inexact
        ones.
      seed: of the first directions.

    Returns:
      ``(exponents [n], stderr [n], history [chunks, n])``: means, their standard errors (of the means of blocks, as
      growth is correlated in time), and the local exponents of each chunk.

    Raises:
      ValueError: no chunk is left to count, or ``n`` is not from 1 to the dimension of the state.

    >>> exponents, _, _ = lyapunov(lambda x, _: 4 * x * (1 - x), jnp.float32(0.3), [None] * 500, n=1)
    >>> abs(float(exponents[0]) - 0.693) < 0.05
    True
    """
    mask, state = _mask(state, fed_back), _strong(state)
    size = ravel_pytree(_select(state, mask))[0].size
    if not 1 <= n <= size:
        raise ValueError(
            f"lyapunov: n is {n}, but must be from 1 to {size}, the dimension of the state that feeds back"
        )
    frame = jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (size, n), jnp.result_type(float)))[0]
    history = []
    for done, batch in enumerate(batches, start=1):
        state, frame = _push(step, mask, state, frame, batch)
        if done % every == 0:
            frame, growth = _orthonormal(frame)
            if done > warmup:
                history.append(growth / every)
    return _summary(history)


def finite_size(
    step: Step,
    state: Any,
    batches: Iterable,
    deltas: jax.Array,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finite-size Lyapunov exponents: how a difference of given size grows, jumps included.

    Beside the trajectory run ``M`` others, the m-th kept ``deltas[m]`` apart (Euclidean norm over the leaves that feed
    back): every ``every`` steps its distance d is read and set back to delta along its direction. Exponent m is the
    mean of ``log(d / delta) / every``. As delta goes to 0 this is the largest tangent exponent, but for flips. A
    distance that contracts to rounding counts as the rounding. Directions are random in all leaves that feed back;
    leave out those that must keep a sign (Adam's second moments).

    Args:
      deltas: ``[M]`` distances, e.g. ``10.0 ** jnp.arange(-10, 0)``; below 1e-6 they need float64.
      The others are those of :func:`lyapunov`.

    Returns:
      ``(exponents [M], stderr [M], history [chunks, M])``.

    Raises:
      ValueError: no chunk is left to count.
    """
    mask, state = _mask(state, fed_back), _strong(state)
    x, _ = ravel_pytree(_select(state, mask))
    deltas = jnp.asarray(deltas, x.dtype)
    directions = jax.random.normal(jax.random.key(seed), (deltas.size, x.size), x.dtype)
    offsets = deltas[:, None] * directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    # The trajectory is member 0 of the same batch, so that all are computed, and rounded, alike.
    states = jax.vmap(lambda offset: _join(x + offset, state, mask))(
        jnp.concatenate([jnp.zeros((1, x.size), x.dtype), offsets])
    )
    history = []
    for done, batch in enumerate(batches, start=1):
        states = _push_all(step, states, batch)
        if done % every == 0:
            states, growth = _set_back(mask, states, deltas)
            if done > warmup:
                history.append(growth / every)
    return _summary(history)


def flip_ratio(
    gradient: Callable[..., Any],
    params: Any,
    lr: float,
    momentum: float = 0.0,
    scale: Any = None,
    *,
    args: tuple[Any, ...] = (),
    tolerance: float = 1e-2,
    seed: int = 0,
) -> float:
    """``lr max Re eig(P J) / (2 (1 + momentum))``: above 1, the map of a training step flips over in some direction.

    ``J`` is the Jacobian of ``gradient``, ``P`` the preconditioner. Of heavy-ball descent, ``m <- momentum m + g``,
    ``x <- x - lr P m``, an eigendirection of curvature c loses its stability by flipping where ``lr c`` passes
    ``2 (1 + momentum)``. A surrogate gradient is no gradient of anything, so J need not be symmetric: the largest real
    part is found by Arnoldi's method (ARPACK), from products of J with vectors (jvp) alone, some 20 to 60 of them.

    Args:
      gradient: of a loss, as a function of the parameters and ``args``. The same function object is compiled once
        over calls.
      params: where.
      lr: the learning rate of this step. For Adam the rate times ``1 - b1``, with ``momentum=b1``.
      momentum: of the heavy ball.
      scale: pytree like ``params``, the diagonal of P; ones by default. For Adam ``1 / (sqrt(nu_hat) + eps)``.
      args: pytrees of arrays: what else the gradient depends on.
      tolerance: relative, of the eigenvalue.
      seed: of the first vector.

    Returns:
      The ratio; not positive where no direction curves upwards. NaN where the method did not converge.

    >>> round(flip_ratio(lambda x: x * jnp.array([1.0, 8.0, 3.0]), jnp.zeros(3), lr=0.5), 4)
    2.0
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    x, _ = ravel_pytree(params)
    factor = jnp.ones_like(x) if scale is None else ravel_pytree(scale)[0]

    def product(v):
        return np.asarray(factor * _curve(gradient, params, args, jnp.asarray(v.reshape(-1), x.dtype)))

    if x.size <= _DENSE:
        values = np.linalg.eigvals(np.stack([product(row) for row in np.eye(x.size)], axis=1))
    else:
        start = np.random.default_rng(seed).standard_normal(x.size)
        if not product(start).any():
            return 0.0  # a random vector is in no null space but the whole; ARPACK wants another start
        operator = LinearOperator((x.size, x.size), product, dtype=x.dtype)
        try:
            values = eigs(operator, 1, which="LR", v0=start, tol=tolerance, return_eigenvectors=False)
        except ArpackNoConvergence:
            return float("nan")
    return float(lr * values.real.max() / (2 * (1 + momentum)))


# ARPACK wants fewer vectors than dimensions; up to here the whole matrix costs less.
_DENSE = 32


@functools.partial(jax.jit, static_argnames="gradient")
def _curve(gradient, params, args, direction):
    unravel = ravel_pytree(params)[1]
    return ravel_pytree(jax.jvp(lambda p: gradient(p, *args), (params,), (unravel(direction),))[1])[0]


def _mask(state, fed_back):
    """A bool for each leaf, as a hashable tuple."""
    if fed_back is None:
        return tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state))
    return tuple(jax.tree.leaves(fed_back))


def _strong(state):
    """Without weak types, which the first step would make strong at the price of a second compilation."""
    return jax.tree.map(
        lambda leaf: leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, state
    )


def _select(state, mask):
    return [leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True) if chosen]


def _join(x, state, mask):
    """``state`` with the leaves that feed back taken from the vector ``x``."""
    values = iter(ravel_pytree(_select(state, mask))[1](x))
    leaves = [next(values) if chosen else leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


@functools.partial(jax.jit, static_argnames=("step", "mask"))
def _push(step, mask, state, frame, batch):
    x, _ = ravel_pytree(_select(state, mask))

    def f(x):
        new = step(_join(x, state, mask), batch)
        return ravel_pytree(_select(new, mask))[0], new

    def push(direction):
        _, pushed, new = jax.jvp(f, (x,), (direction.astype(x.dtype),), has_aux=True)
        return pushed, new

    frame, new = jax.vmap(push, in_axes=1, out_axes=(1, None))(frame)
    return new, frame


@jax.jit
def _orthonormal(frame):
    frame, triangle = jnp.linalg.qr(frame)
    return frame, _log(jnp.abs(jnp.diagonal(triangle)))


@functools.partial(jax.jit, static_argnames="step")
def _push_all(step, states, batch):
    return jax.vmap(lambda state: step(state, batch))(states)


@functools.partial(jax.jit, static_argnames="mask")
def _set_back(mask, states, deltas):
    points = jax.vmap(lambda state: ravel_pytree(_select(state, mask))[0])(states)
    differences = points[1:] - points[:1]
    rounding = jnp.finfo(points.dtype).eps * jnp.linalg.norm(points[0])
    distances = jnp.linalg.norm(differences, axis=1)
    # Two runs that have met would never part again; they go on along their old difference, one rounding apart.
    back = points[:1] + differences * (deltas / jnp.maximum(distances, rounding))[:, None]
    states = jax.vmap(lambda x, state: _join(x, state, mask))(jnp.concatenate([points[:1], back]), states)
    return states, _log(jnp.maximum(distances, rounding) / deltas)


def _log(x):
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def _summary(history):
    if not history:
        raise ValueError("no chunk is left to count: give more batches than warmup + every")
    history = jnp.asarray(np.stack(jax.device_get(history)))  # jnp.stack would compile one operand a chunk
    chunks = len(history)
    blocks = max(2, int(chunks**0.5))
    means = history[: chunks // blocks * blocks].reshape(blocks, -1, history.shape[1]).mean(axis=1)
    return history.mean(axis=0), means.std(axis=0, ddof=1) / blocks**0.5, history
