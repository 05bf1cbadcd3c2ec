"""The leaky integrate-and-fire neuron through time, as one pure function.

    u[t] = decay v[t-1] + x[t]          membrane before reset;  v[-1] = the given membrane, else 0
    s[t] = H(u[t] - threshold)          strict: H(0) = 0
    v[t] = (1 - s[t]) u[t]    hard   |   u[t] - threshold s[t]    soft   |   u[t]    none

Time is axis 1: ``[B, T, ...]``. The whole sequence is one ``custom_vjp`` (recurrence.py): its only residual is the
membrane before reset, ``[B, T, ...]`` in float32 (besides an initial membrane, if one is given), from which spikes and
resets are recomputed in the reverse pass. Nothing is kept between calls: no hidden state, no ``reset()``.
"""

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax.neurons import lif_scan
from csbp_jax.surrogate import Surrogate, triangle

Reset = Literal["hard", "soft", "none"]
Residual = Literal["full", "half"]


def lif(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
    residual: Residual = "full",
) -> tuple[jax.Array, jax.Array]:
    """Leaky integrate-and-fire over a sequence (equations at the head of this file).

    Args:
      x: input current, ``[B, T, ...]``, floating, in units of the threshold. Not float16 where a chaos term is taken
        from the membrane: the membrane is float32, but the term's gradient would underflow in x.
      decay: share of the membrane that stays from one step to the next (``tau`` of the CSBP code: 0.25 in its deep
        nets, 0.2 in its demonstration); 1 is the integrate-and-fire neuron. Broadcasts, from the right, against x
        without its time axis; may be traced and may need a gradient.
      threshold: fires strictly above it. Broadcasts and differentiates as ``decay`` does.
      spike: surrogate whose ``derivative(u - threshold)`` stands for ``ds/du`` in the reverse pass.
      reset: ``"hard"`` to 0, ``"soft"`` by subtraction of the threshold, or ``"none"``.
      detach_reset: no gradient flows through the spike in the reset (not so in the authors' code).
      membrane: ``v[-1]``, ``[B, ...]``; zeros by default. Pass the returned membrane back in to go on.
      residual: ``"half"`` keeps ``u - threshold`` in bfloat16, which has its sign: half the memory between the passes,
        the same outputs and resets, gradients to 2**-8 of ``u - threshold``. Slower on CPU.

    Returns:
      ``(spikes, membrane)``: spikes ``[B, T, ...]`` in x's dtype, 0 or 1; membrane ``[B, ...]`` after the last
      reset, float32 (float64 for float64 x) whatever x's dtype is.

    Raises:
      ValueError: x has no time step, ``reset`` or ``residual`` is unknown, or a shape does not broadcast.
      TypeError: x is not floating.

    >>> spikes, membrane = lif(jnp.array([[0.8, 0.8, 0.8]]), decay=0.5)
    >>> spikes.tolist(), round(float(membrane[0]), 2)
    ([[0.0, 1.0, 0.0]], 0.8)
    """
    _one_of("residual", residual, Residual)
    return lif_scan.lif(*prepare_arguments(x, membrane, decay, threshold, reset), spike, reset, detach_reset, residual)


def lif_trace(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As :func:`lif`, and also returns ``u``, the membrane before reset at every step, ``[B, T, ...]``.

    ``u`` is what the reverse pass keeps anyway; asking for it costs its cotangent.
    """
    return lif_scan.lif_trace(*prepare_arguments(x, membrane, decay, threshold, reset), spike, reset, detach_reset)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "spike"],
    meta_fields=["reset", "detach_reset", "residual"],
)
@dataclasses.dataclass(frozen=True)
class LIF:
    """The arguments of :func:`lif` as a pytree, called as ``neuron(x, membrane=None)`` by the layers.

    Its leaves (decay, threshold, the surrogate's width) may be traced, so a sweep can vary them.
    """

    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    spike: Surrogate = triangle()
    reset: Reset = "hard"
    detach_reset: bool = False
    residual: Residual = "full"

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return lif(x, **vars(self), membrane=membrane)

    def trace(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        options = {name: value for name, value in vars(self).items() if name != "residual"}
        return lif_trace(x, **options, membrane=membrane)


def prepare_arguments(x, membrane, decay, threshold, reset):
    """Checks, and brings all arrays to the membrane's dtype and to the rank of x without its time axis."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"lif: x is {x.dtype}, but must be floating; cast it, e.g. x.astype(jnp.float32)")
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"lif: x has shape {x.shape}, but must be [B, T, ...] with T >= 1 (time is axis 1)")
    _one_of("reset", reset, Reset)
    shape, dtype = (x.shape[0], *x.shape[2:]), jnp.promote_types(x.dtype, jnp.float32)

    def expand(name, value):
        value = jnp.asarray(value, dtype)
        sizes = zip(reversed(value.shape), reversed(shape), strict=False)
        if value.ndim > len(shape) or any(n not in (1, size) for n, size in sizes):
            raise ValueError(f"lif: {name} of shape {value.shape} does not broadcast to {shape}, x without time")
        return lax.expand_dims(value, range(len(shape) - value.ndim))

    if membrane is not None:
        membrane = jnp.broadcast_to(expand("membrane", membrane), shape)
    return x, membrane, expand("decay", decay), expand("threshold", threshold)


def _one_of(name, value, allowed):
    if value not in get_args(allowed):
        raise ValueError(f"lif: {name} is {value!r}, but must be one of {', '.join(get_args(allowed))}")
