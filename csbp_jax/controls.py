"""Control conditions for the chaos term: non-chaotic pulls, and noise or extrinsic chaos of the same size.

Two terms are called like ``chaos.term``. Let ``h* = k ln(I0 / (1 - I0))`` be the zero of the chaos term's gradient:

    drift    c (h - h*)**2 / 2,  c = (I0 - 1/2) / (k h*)     a parabola with the same gradient at h = 0 and at h*
    linear   (1/2 - I0) h / k                                the gradient at h = 0, everywhere

The parabola alone is not chaotic as long as ``lr z c (1 + |x|**2) < 2``; beyond this limit, it diverges.

Five forces are optax transformations. At the optimiser's step n, a force adds numbers to every tensor:

    gaussian   forcing[n] e                                           e standard normal
    ar1        forcing[n] a,   a <- p a + sqrt(1 - p**2) e            correlated in time
    logistic   forcing[n] sqrt(8) (x - 1/2),   x <- 4 x (1 - x)       chaotic, but extrinsic
    mpgd       forcing[n] (v - r v' w)                                intermittent series (see there), weights w
    replay     forcing[n] itself, whole tensors                       recorded from the chaos term of another run

Each number of the first three has mean 0 and standard deviation ``forcing[n]``. Chain a force before an optimiser,
``optax.chain(force, tx)``, to force the gradient. Chain it after the optimiser, ``optax.chain(tx, force)``, to force
the weights, in units of the learning rate.

``forcing`` is a pytree like the parameters, with one leaf ``[N]`` per tensor: the root mean square of the record that
the force replaces (:func:`rms`). For replay, the leaf is the record itself, ``[N, ...]``. After N steps there is no
force. Alternatively, ``forcing`` is a function of the step, like optax's schedules, with one size for all tensors. It
is an argument of the force; if it is left out, it is passed to ``update`` together with ``step`` and ``key``. The
learner takes it, as arrays, from ``hparams["forcing"]``, so that the runs of one compilation can have different
forcings.

Two forces in one optimiser draw from the same keys. Give each a ``seed`` of its own, else they add the same numbers.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from csbp_jax import chaos, ranges
from csbp_jax.config import ConfigError

__all__ = [
    "TERMS",
    "Forced",
    "Forcing",
    "Tensors",
    "annealed",
    "ar1",
    "drift",
    "gaussian",
    "linear",
    "logistic",
    "mpgd",
    "phase_randomised",
    "replay",
    "rms",
    "shuffled",
    "tensor_rms",
]

Tensors = Any
"""Pytree of arrays with the structure of the parameters."""

Forcing = Any
"""Pytree like the parameters with leaves ``[N]`` or ``[N, ...]``, a function of the step, or None if update gets it."""


def drift(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: tuple[float, float] | None = None,
    reduce: chaos.Reduce = "mean",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute a parabola whose gradient equals the chaos term's at h = 0 and at its zero h*.

    For ``target`` 1/2, h* is 0, and the curvature is that of the chaos term there, ``1 / (4 k**2)``. Arguments as
    in :func:`csbp_jax.chaos.term`.
    """

    def parabola(u: jax.Array, target: jax.Array) -> jax.Array:
        centre = target - 0.5
        rest = jnp.log(target) - jnp.log1p(-target)
        # ln(I0 / (1 - I0)) = 4 centre + O(centre**3): near 1/2 the ratio is 0 / 0.
        near_half = jnp.abs(centre) < 1e-3
        curvature = jnp.where(near_half, 0.25, centre / jnp.where(near_half, 1.0, rest))
        return curvature * (u - rest) ** 2 / 2

    return chaos.reduced(parabola, h, target, scale, cut, reduce, where)


def linear(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: tuple[float, float] | None = None,
    reduce: chaos.Reduce = "mean",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute a term whose gradient is everywhere the chaos term's at h = 0.

    Arguments as in :func:`csbp_jax.chaos.term`.
    """
    return chaos.reduced(lambda u, target: (0.5 - target) * u, h, target, scale, cut, reduce, where)


TERMS: dict[str, chaos.ChaosTerm] = {
    "chaos": chaos.term,
    "drift": drift,
    "linear": linear,
}
"""Terms by their names in a config (``chaos.term``)."""


class Forced(NamedTuple):
    """State of a force from step to step: a pytree like the parameters, or empty."""

    carry: Any


def gaussian(forcing: Forcing = None, seed: int = 0) -> optax.GradientTransformationExtraArgs:
    """Add white noise, drawn with a new key at every step: ``update(updates, state, step=, key=, forcing=)``.

    Raises:
      ConfigError: step, key or the forcing is missing, or its tensors are not those of the updates. Every force raises
        this in ``update``.
      ValueError: ``seed`` is negative. Every force with a seed raises this.

    >>> tx = optax.chain(gaussian(lambda step: 0.1 * 0.9**step), optax.sgd(1.0))
    """
    return _force(forcing, lambda params: (), lambda carry, key, updates, _: (carry, _normal(key, updates)), seed)


def ar1(correlation: ArrayLike, forcing: Forcing = None, seed: int = 0) -> optax.GradientTransformationExtraArgs:
    """Add noise with ``correlation`` (p in (-1, 1)) between successive steps, stationary from the first step on.

    Raises:
      ValueError: ``correlation`` is a number of Python or NumPy outside its range.
    """
    ranges.require("ar1", ranges.BETWEEN_MINUS_1_AND_1, correlation=correlation)

    def draw(carry: tuple[jax.Array, Tensors], key: jax.Array, updates: Tensors, _: Tensors) -> tuple[Any, Tensors]:
        first, level = carry
        fresh = _normal(key, updates)
        p = jnp.where(first, 0.0, correlation)
        level = jax.tree.map(lambda a, e: (p * a + jnp.sqrt(1 - p**2) * e).astype(e.dtype), level, fresh)
        return (jnp.array(False), level), level

    return _force(forcing, lambda params: (jnp.array(True), jax.tree.map(jnp.zeros_like, params)), draw, seed)


def logistic(forcing: Forcing = None, seed: int = 0) -> optax.GradientTransformationExtraArgs:
    """Add orbits of ``x <- 4 x (1 - x)``, one per element, started independently from the invariant density.

    In floating point such orbits collapse to 0. They are therefore computed as ``x = sin(pi a)**2`` with
    ``a <- 2 a mod 1``, where a has 32 binary digits: each step shifts them by one and draws the next digit of the
    start. This is the orbit of a real number to within 2**-32.
    """

    def draw(carry: tuple[jax.Array, Tensors], key: jax.Array, updates: Tensors, _: Tensors) -> tuple[Any, Tensors]:
        first, digits = carry
        keys = optax.tree.split_key_like(key, digits)
        fresh = jax.tree.map(lambda k, a: jax.random.bits(k, a.shape, a.dtype), keys, digits)
        digits = jax.tree.map(lambda a, e: jnp.where(first, e, (a << 1) | (e & 1)), digits, fresh)

        # sin**2(pi a) - 1/2 = -cos(2 pi a) / 2, with a in [-1/2, 1/2)
        def value(a: jax.Array, u: jax.Array) -> jax.Array:
            wide = jnp.promote_types(u.dtype, jnp.float32)  # angles are beyond float16's range
            angle = lax.bitcast_convert_type(a, jnp.int32).astype(wide)
            return (-(2**0.5) * jnp.cos(2 * jnp.pi * (angle / 2.0**32))).astype(u.dtype)

        return (jnp.array(False), digits), jax.tree.map(value, digits, updates)

    return _force(forcing, lambda params: (jnp.array(True), optax.tree.zeros_like(params, jnp.uint32)), draw, seed)


def mpgd(
    forcing: Forcing = None,
    multiplicative: ArrayLike = 0.4,
    gamma: float = 0.7,
    beta: ArrayLike = 0.5,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add the perturbation of MPGD, ``forcing[n] (v - multiplicative v' w)`` (Lim et al., arXiv:2205.11361).

    v and v' are two series for each weight w, of orbits of Thaler's intermittent map, which start independently from
    its invariant density, ``y**-gamma + (1 + y)**-gamma``:

        s = y**(1 - gamma) + (1 + y)**(1 - gamma) - 1,   y <- s**(1 / (1 - gamma)) mod 1
        v = chi d where s <= 1,   chi d / (1 - 2**(1 - gamma)) elsewhere, after chi <- -chi with p = (1 - beta) / 2
        d = ((1 - 2**(gamma-1)) a**a (1-gamma) Gamma(1-a) cos(a pi/2) / (2**(1-gamma) - 1))**-gamma,   a = 1 / gamma

    chi starts as 1 or -1 with equal chances. Sums of n values of v grow as n**gamma, those of noise as n**(1/2). The
    map's exponent is 0.50, 0.42 and 0.31 nats for gamma 0.6, 0.7 and 0.8. MPGD is this after plain gradient descent,
    with ``sigma rate[n]**gamma`` as the size, and ``mu / sigma`` as ``multiplicative``.

    Raises:
      ValueError: ``gamma`` is not between 1/2 and 1, or ``beta`` not between -1 and 1.
    """
    ranges.require("mpgd", ranges.Range("above 1/2 and below 1", lambda v: (v > 0.5) & (v < 1)), gamma=gamma)
    ranges.require("mpgd", ranges.BETWEEN_MINUS_1_AND_1, beta=beta)
    a, power = 1 / gamma, 1 - gamma
    stable = a**a * power * math.gamma(1 - a) * math.cos(a * math.pi / 2) / (2**power - 1)
    d = ((1 - 2**-power) * stable) ** -gamma

    def advance(y: jax.Array, chi: jax.Array, uniform: jax.Array, first: jax.Array) -> tuple[jax.Array, ...]:
        # s over 2**power is the distribution function of y: of a y from the invariant density it is uniform.
        s = jnp.where(first, 2**power * uniform, y**power + jnp.expm1(power * jnp.log1p(y)))
        right = s > 1
        # The first sign is fair, from digits of the number that the start does not feel.
        flips = jnp.where(first, uniform * 2**12 % 1 < 0.5, right & (uniform < (1 - beta) / 2))
        chi = jnp.where(flips, -chi, chi)
        # The difference from 1 has lost its last digits, without which orbits would merge, or fall on 0 and stay there:
        # these digits are drawn.
        eps = jnp.finfo(y.dtype).eps  # type: ignore[no-untyped-call]
        y = jnp.where(right, jnp.maximum(s ** (1 / power) - 1, eps / 2) + eps * (uniform * 2**12 % 1), s ** (1 / power))
        return y.astype(uniform.dtype), chi, chi * jnp.where(right, d / (1 - 2**power), d)

    def draw(carry: Any, key: jax.Array, updates: Tensors, params: Tensors) -> tuple[Any, Tensors]:
        if params is None:
            raise ValueError("mpgd: update needs the parameters, tx.update(updates, state, params, ...)")
        first, orbits, signs = carry
        keys = optax.tree.split_key_like(key, orbits)
        uniforms = jax.tree.map(lambda k, y: jax.random.uniform(k, y.shape, y.dtype), keys, orbits)
        moved = jax.tree.map(lambda y, chi, u: advance(y, chi, u, first), orbits, signs, uniforms)
        orbits, signs, v = jax.tree.transpose(jax.tree.structure(orbits), jax.tree.structure((0, 0, 0)), moved)
        numbers = jax.tree.map(lambda v, w: (v[0] - multiplicative * v[1] * w).astype(w.dtype), v, params)
        return (jnp.array(False), orbits, signs), numbers

    def start(params: Tensors) -> Any:
        ones = jax.tree.map(lambda p: jnp.ones((2, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params)
        return jnp.array(True), ones, ones

    return _force(forcing, start, draw, seed)


def replay(forcing: Forcing = None) -> optax.GradientTransformationExtraArgs:
    """Add the record of another run; ``forcing`` holds whole tensors, ``[N, ...]``."""
    return _force(forcing, lambda params: (), lambda carry, key, updates, _: (carry, optax.tree.ones_like(updates)))


def shuffled(key: jax.Array, record: Tensors) -> Tensors:
    """Permute a record ``[N, ...]`` in time, in the same way for all tensors."""
    order = jax.random.permutation(key, len(jax.tree.leaves(record)[0]))
    return jax.tree.map(lambda r: r[order], record)


def phase_randomised(key: jax.Array, record: Tensors) -> Tensors:
    """Randomise the Fourier phases of a record ``[N, ...]`` in time; mean, size and spectrum of each number remain.

    The same phases are added to all numbers, which preserves their cross-correlations too (Prichard & Theiler 1994).
    """
    count = len(jax.tree.leaves(record)[0])
    turns = jax.random.uniform(key, (count // 2 + 1,), maxval=2 * jnp.pi)
    # The mean and, for an even number of steps, the fastest alternation are real.
    turns = turns.at[count // 2].set(turns[count // 2] if count % 2 else 0.0).at[0].set(0.0)

    def randomise(r: jax.Array) -> jax.Array:
        waves = jnp.fft.rfft(r.reshape(count, -1), axis=0)
        return jnp.fft.irfft(waves * jnp.exp(1j * turns)[:, None], count, axis=0).reshape(r.shape).astype(r.dtype)

    return jax.tree.map(randomise, record)


def annealed(draw: Callable[[Tensors], Tensors], strength: ArrayLike, record: Tensors) -> Tensors:
    """Apply ``draw`` to a record ``[N, ...]`` without its annealing, and restore the annealing afterwards.

    Shuffling a record that decays with z, or randomising its phases, would spread it over the whole run and so change
    the schedule as well as the order. The record is therefore divided by ``strength`` (z, or z over its first value,
    ``[N]``), passed to ``draw``, and multiplied by ``strength``. Where z is 0, so is the result.

    >>> pushes = {"w": jnp.array([[4.0], [2.0], [1.0]])}
    >>> annealed(lambda record: shuffled(jax.random.key(0), record), jnp.array([4.0, 2.0, 1.0]), pushes)["w"].ravel()
    Array([4., 2., 1.], dtype=float32)
    """

    def scaled(tree: Tensors, by: jax.Array) -> Tensors:
        return jax.tree.map(lambda leaf: leaf * by.reshape(-1, *[1] * (jnp.ndim(leaf) - 1)).astype(leaf.dtype), tree)

    strength = jnp.asarray(strength)
    inverse = jnp.where(strength > 0, 1 / jnp.where(strength > 0, strength, 1), 0)
    return scaled(draw(scaled(record, inverse)), strength)


def rms(record: Tensors) -> Tensors:
    """Compute the ``forcing`` for noise as large as a record ``[N, ...]``, which is :func:`tensor_rms` at each step."""
    return jax.vmap(tensor_rms)(record)


def tensor_rms(tree: Tensors) -> Tensors:
    """Compute the root mean square of each tensor."""
    return jax.tree.map(lambda tensor: jnp.sqrt(jnp.mean(tensor**2)), tree)


def _force(
    own_forcing: Forcing,
    start: Callable[[Tensors], Any],
    draw: Callable[[Any, jax.Array, Tensors, Tensors], tuple[Any, Tensors]],
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Build a force: forcing times numbers, of ``draw(carry, key, updates, params) -> (carry, numbers)``.

    ``start(params)`` is the first carry.
    """
    ranges.require("force", ranges.FROM_0, seed=seed)

    def update(updates: Tensors, state: Forced, params: Tensors = None, **extra: Any) -> tuple[Tensors, Forced]:
        if missing := [name for name in ("step", "key") if name not in extra]:
            raise ConfigError(
                f"force: {' and '.join(missing)} missing; pass them to update: tx.update(gradient, state, step=, key=)"
            )
        forcing = own_forcing if own_forcing is not None else extra.get("forcing")
        sizes = _forcing_at(forcing, extra["step"], updates)
        # Seed 0 draws from the key itself, as the results in docs/results did.
        key = jax.random.fold_in(extra["key"], seed) if seed else extra["key"]
        carry, numbers = draw(state.carry, key, updates, params)
        return jax.tree.map(lambda u, size, number: u + size * number, updates, sizes, numbers), Forced(carry)

    return optax.GradientTransformationExtraArgs(lambda params: Forced(start(params)), update)


def _forcing_at(forcing: Forcing, step: jax.Array, updates: Tensors) -> Tensors:
    """Evaluate the forcing at ``step``, as a pytree like the updates."""
    if forcing is None:
        raise ConfigError("forcing: missing; give it to the force, or to the run as hparams['forcing'] (controls.py)")
    if callable(forcing):
        return jax.tree.map(lambda update: jnp.asarray(forcing(step), update.dtype), updates)
    expected: Any = jax.tree.structure(updates)
    if jax.tree.structure(forcing) != expected:
        raise ConfigError("forcing: its tensors are not those of the parameters; it belongs to another network")

    def size_now(update: jax.Array, sizes: ArrayLike) -> jax.Array:
        sizes = jnp.asarray(sizes)
        if not sizes.ndim or sizes.shape[1:] not in ((), update.shape):
            raise ConfigError(
                f"forcing: a tensor is {sizes.shape} for parameters {update.shape}; expected is [N] or [N, ...]"
            )
        return jnp.where(step < len(sizes), sizes[jnp.minimum(step, len(sizes) - 1)], 0).astype(update.dtype)

    return jax.tree.map(size_now, updates, forcing)


def _normal(key: jax.Array, tree: Tensors) -> Tensors:
    # Not optax.tree.random_like, which passes the sharding of each leaf on to the sampler.
    keys = optax.tree.split_key_like(key, tree)
    return jax.tree.map(lambda k, leaf: jax.random.normal(k, leaf.shape, leaf.dtype), keys, tree)
