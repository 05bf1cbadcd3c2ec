"""What a gain from chaos is held against: pulls without chaos, and noise and extrinsic chaos of the same size.

Tap terms, called as ``chaos.term`` is. With ``h* = k ln(I0 / (1 - I0))`` the zero of its gradient:

    drift    c (h - h*)**2 / 2,  c = (I0 - 1/2) / (k h*)     a parabola: its gradient at h = 0, and its zero
    linear   (1/2 - I0) h / k                                its gradient at h = 0, everywhere

The parabola alone makes no chaos as long as ``lr z c (1 + |x|**2) < 2``; beyond, it runs away.

Forces, as optax transformations: each adds to every tensor, at the optimiser's step n, what ``forcing`` says:

    gaussian   forcing[n] e                                           e standard normal
    ar1        forcing[n] a,   a <- p a + sqrt(1 - p**2) e            correlated in time
    logistic   forcing[n] sqrt(8) (x - 1/2),   x <- 4 x (1 - x)       chaotic, but from outside
    replay     forcing[n] itself, whole tensors: what another run's chaos term did

so that each number has mean 0 and standard deviation ``forcing[n]``. Chain one before an optimiser to force the
gradient, ``optax.chain(force, tx)``; after it, ``optax.chain(tx, force)``, to force the weights, in units of the
learning rate.

``forcing`` is a pytree like the parameters with a leaf ``[N]`` (for replay ``[N, ...]``) for each tensor: the root mean
square of what it stands in for (:func:`rms`); after N steps there is none. Or a function of the step, as optax's
schedules are: one size for all tensors. It is the force's argument, or, left out, told to ``update`` beside ``step``
and ``key``: the learner takes it from ``hparams["forcing"]``, so that runs of one compilation may have each their own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from csbp_jax import chaos
from csbp_jax.config import ConfigError

Forcing = Any
"""A pytree like the parameters with leaves ``[N]`` or ``[N, ...]``, or a function of the step; None: told later."""


def drift(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: tuple[float, float] | None = None,
    reduce: chaos.Reduce = "mean",
) -> jax.Array:
    """A parabola with the chaos term's gradient at h = 0 and its zero; arguments as in :func:`csbp_jax.chaos.term`.

    For ``target`` 1/2, where both are 0, its curvature is the chaos term's there, ``1 / (4 k**2)``.
    """

    def parabola(u, target):
        centre = target - 0.5
        rest = jnp.log(target) - jnp.log1p(-target)
        # ln(I0 / (1 - I0)) = 4 centre + O(centre**3): near 1/2 the ratio is 0 / 0.
        level = jnp.abs(centre) < 1e-3
        curvature = jnp.where(level, 0.25, centre / jnp.where(level, 1.0, rest))
        return curvature * (u - rest) ** 2 / 2

    return chaos.reduced(parabola, h, target, scale, cut, reduce)


def linear(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: tuple[float, float] | None = None,
    reduce: chaos.Reduce = "mean",
) -> jax.Array:
    """A constant pull, the chaos term's at h = 0; arguments as in :func:`csbp_jax.chaos.term`."""
    return chaos.reduced(lambda u, target: (0.5 - target) * u, h, target, scale, cut, reduce)


def shortfall(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: None = None,
    reduce: chaos.Reduce = "mean",
) -> jax.Array:
    """``I0 - X``, from ``h [..., C]`` to ``[C]``; called as a term is, but nothing is cut; by the neuron."""
    del cut, reduce
    h = jnp.asarray(h)
    h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
    return jnp.asarray(target, h.dtype) - jax.nn.sigmoid(h / jnp.asarray(scale, h.dtype)).mean(tuple(range(h.ndim - 1)))


TERMS: dict[str, Callable[..., jax.Array]] = {
    "chaos": chaos.term,
    "drift": drift,
    "linear": linear,
    "cbp": shortfall,
}
"""Of a config's ``chaos.term``; the last is no loss (cbp.py)."""


class Forced(NamedTuple):
    """What a force carries from step to step: a pytree like the parameters, or nothing."""

    carry: Any


def gaussian(forcing: Forcing = None) -> optax.GradientTransformationExtraArgs:
    """White noise. ``update(..., step, key, forcing)``; ``key`` a new one each step.

    Raises (each force, in ``update``):
      ConfigError: there is no forcing, or its tensors are not those of the updates.

    >>> tx = optax.chain(gaussian(lambda step: 0.1 * 0.9**step), optax.sgd(1.0))
    """
    return _force(forcing, lambda params: (), lambda carry, key, updates: (carry, _normal(key, updates)))


def ar1(correlation: ArrayLike, forcing: Forcing = None) -> optax.GradientTransformationExtraArgs:
    """Noise with ``correlation`` (p in (-1, 1)) from one step to the next, stationary from the first step on."""

    def draw(carry, key, updates):
        first, level = carry
        fresh = _normal(key, updates)
        p = jnp.where(first, 0.0, correlation)
        level = jax.tree.map(lambda a, e: (p * a + jnp.sqrt(1 - p**2) * e).astype(e.dtype), level, fresh)
        return (jnp.array(False), level), level

    return _force(forcing, lambda params: (jnp.array(True), jax.tree.map(jnp.zeros_like, params)), draw)


def logistic(forcing: Forcing = None) -> optax.GradientTransformationExtraArgs:
    """Orbits of ``x <- 4 x (1 - x)``, one for each number, started independently from the invariant density.

    In floating point such orbits collapse to 0. Here ``x = sin(pi a)**2`` with ``a <- 2 a mod 1``, of which 32 binary
    digits are kept: each step shifts them by one and draws the next digit of the start. So this is the orbit of a real
    number, to within 2**-32.
    """

    def draw(carry, key, updates):
        first, digits = carry
        leaves, form = jax.tree.flatten(digits)
        fresh = [jax.random.bits(k, a.shape, a.dtype) for k, a in zip(_keys(key, leaves), leaves, strict=True)]
        leaves = [jnp.where(first, e, (a << 1) | (e & 1)) for a, e in zip(leaves, fresh, strict=True)]
        digits = jax.tree.unflatten(form, leaves)
        # sin**2(pi a) - 1/2 = -cos(2 pi a) / 2, with a in [-1/2, 1/2)
        angle = jax.tree.map(lambda a, u: lax.bitcast_convert_type(a, jnp.int32).astype(u.dtype), digits, updates)
        orbit = jax.tree.map(lambda a: -(2**0.5) * jnp.cos(2 * jnp.pi * (a / 2.0**32)), angle)
        return (jnp.array(False), digits), orbit

    def start(params):
        return jnp.array(True), jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.uint32), params)

    return _force(forcing, start, draw)


def replay(forcing: Forcing = None) -> optax.GradientTransformationExtraArgs:
    """What was recorded of another run; ``forcing`` holds whole tensors, ``[N, ...]``."""
    return _force(forcing, lambda params: (), lambda carry, key, updates: (carry, jax.tree.map(jnp.ones_like, updates)))


def shuffled(key: jax.Array, record: Any) -> Any:
    """A record ``[N, ...]`` in another order in time, the same for all tensors: the same pushes, at other times."""
    count = len(jax.tree.leaves(record)[0])
    order = jax.random.permutation(key, count)
    return jax.tree.map(lambda r: r[order], record)


def phase_randomised(key: jax.Array, record: Any) -> Any:
    """A record ``[N, ...]`` with random Fourier phases in time: each number keeps its mean, size and spectrum.

    All numbers get the same phases added, which keeps their cross-correlations as well (Prichard & Theiler 1994).
    """
    count = len(jax.tree.leaves(record)[0])
    turns = jax.random.uniform(key, (count // 2 + 1,), maxval=2 * jnp.pi)
    # The mean and, for an even number of steps, the fastest alternation are real.
    turns = turns.at[0].set(0.0).at[count // 2].set(turns[count // 2] if count % 2 else 0.0)

    def one(r):
        waves = jnp.fft.rfft(r.reshape(count, -1), axis=0)
        return jnp.fft.irfft(waves * jnp.exp(1j * turns)[:, None], count, axis=0).reshape(r.shape).astype(r.dtype)

    return jax.tree.map(one, record)


def annealed(draw: Callable[[Any], Any], strength: ArrayLike, record: Any) -> Any:
    """What ``draw`` makes of a record ``[N, ...]`` without its annealing, which is put back after.

    Shuffled or with random phases as it is, a record whose pushes fall with z would be spread over the whole run, so
    that the schedule changes as well as the order. So it is divided by ``strength`` (z, or z over its first value,
    ``[N]``), drawn, and multiplied by it. Where z is 0, so is what comes out.

    >>> pushes = {"w": jnp.array([[4.0], [2.0], [1.0]])}
    >>> annealed(lambda record: shuffled(jax.random.key(0), record), jnp.array([4.0, 2.0, 1.0]), pushes)["w"].ravel()
    Array([4., 2., 1.], dtype=float32)
    """

    def scaled(tree, by):
        return jax.tree.map(lambda leaf: leaf * by.reshape(-1, *[1] * (jnp.ndim(leaf) - 1)).astype(leaf.dtype), tree)

    strength = jnp.asarray(strength)
    without = jnp.where(strength > 0, 1 / jnp.where(strength > 0, strength, 1), 0)
    return scaled(draw(scaled(record, without)), strength)


def rms(record: Any) -> Any:
    """The ``forcing`` of noise as large as a record ``[N, ...]``: the root mean square of each tensor at each step."""
    return jax.tree.map(lambda r: jnp.sqrt(jnp.mean(r.reshape(len(r), -1) ** 2, axis=1)), record)


def _force(given, start, draw):
    """``draw(carry, key, updates) -> (carry, numbers)``, multiplied by the forcing of the step and added."""

    def init(params):
        return Forced(start(params))

    def update(updates, state, params=None, *, step, key, forcing=None, **extra):
        del params, extra
        sizes = _now(given if given is not None else forcing, step, updates)
        carry, numbers = draw(state.carry, key, updates)
        return jax.tree.map(lambda u, size, number: u + size * number, updates, sizes, numbers), Forced(carry)

    return optax.GradientTransformationExtraArgs(init, update)


def _now(forcing, step, updates):
    """The forcing of this step, as a pytree like the updates."""
    if forcing is None:
        raise ConfigError("forcing: missing; give it to the force, or to the run as hparams['forcing'] (controls.py)")
    if callable(forcing):
        return jax.tree.map(lambda update: jnp.asarray(forcing(step), update.dtype), updates)
    if jax.tree.structure(forcing) != jax.tree.structure(updates):
        raise ConfigError("forcing: its tensors are not those of the parameters; it was made of another network")

    def one(update, size):
        size = jnp.asarray(size)
        if size.shape[1:] not in ((), update.shape):
            raise ConfigError(
                f"forcing: a tensor is {size.shape}, of parameters {update.shape}; expected is [N] or [N, ...]"
            )
        return jnp.where(step < len(size), size[jnp.minimum(step, len(size) - 1)], 0).astype(update.dtype)

    return jax.tree.map(one, updates, forcing)


def _keys(key, leaves):
    return jax.random.split(key, len(leaves))


def _normal(key, tree):
    leaves, form = jax.tree.flatten(tree)
    draws = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(_keys(key, leaves), leaves, strict=True)]
    return jax.tree.unflatten(form, draws)
