"""Parallel spiking neurons (Fang et al., NeurIPS 2023), which learn how time steps mix: PSN, masked and sliding PSN.

    U = W X,    S = H(U - B)            X, U, S [T, ...]; B is a threshold; W and B are learned

They are not reset, so that all time steps are computed at once. Each layer calls its own copy of a module to get its
neuron. u, the membrane of taps and of inspection, is W x.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax import ranges
from csbp_jax.config import ConfigError
from csbp_jax.neurons import arguments, cell_scan
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.surrogate import Surrogate, arctan

# U(-1/sqrt(T), 1/sqrt(T)), as in the code of the article.
_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Neuron of a PSN: sequences of T time steps, at once.

    weight: ``[T, T]``, to time step t from time step s. threshold: ``[T]``.
    """

    weight: jax.Array
    threshold: jax.Array
    spike: Surrogate
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, state: None = None) -> tuple[jax.Array, jax.Array]:
        """Return ``(spikes [B, T, ...], u at the last time step)``.

        Raises:
          ConfigError: x does not have T time steps, or a state is passed, for which this neuron has no use.
        """
        return self.trace(x, state)[:2]

    def trace(self, x: jax.Array, state: None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As the call, with u ``[B, T, ...]``."""
        x, _, dtype = arguments.sequence("PSN", x)
        arguments.firing("PSN", self.spike, self.at_threshold)
        T = len(self.weight)
        if x.shape[1] != T or state is not None:
            steps = f"x has {x.shape[1]} time steps" if x.shape[1] != T else "x continues an earlier sequence"
            raise ConfigError(
                f"PSN: {steps}, but the weights are for all {T} steps at once: not for a recurrent layer, for chunks, "
                "or for data.frames; take a sliding PSN"
            )
        threshold = self.threshold.astype(dtype).reshape(T, *(1,) * (x.ndim - 2))
        rule = _Rule(_mix_all, cell_scan.HEAVISIDE[self.at_threshold], recompute=T <= _RECOMPUTED)
        spikes, u = _fire(rule, (self.weight.astype(dtype), x.astype(dtype)), threshold[None], self.spike)
        return spikes.astype(x.dtype), u[:, -1], u


class SlidingState(NamedTuple):
    """State of a sliding PSN: u at the last time step, and the inputs before the next, ``[B, order - 1, ...]``."""

    membrane: jax.Array
    inputs: jax.Array


@dataclasses.dataclass(frozen=True)
class Sliding:
    """Neuron of a sliding PSN: sequences of any length.

    weight: ``[order]``, the last one of the present time step. threshold: scalar.
    """

    weight: jax.Array
    threshold: jax.Array
    spike: Surrogate
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, state: SlidingState | None = None) -> tuple[jax.Array, SlidingState]:
        """Return ``(spikes [B, T, ...], state)``.

        Raises:
          TypeError, ValueError: the state is not one of this neuron and batch.
        """
        return self.trace(x, state)[:2]

    def trace(self, x: jax.Array, state: SlidingState | None = None) -> tuple[jax.Array, SlidingState, jax.Array]:
        """As the call, with u ``[B, T, ...]``."""
        x, shape, dtype = arguments.sequence("SlidingPSN", x)
        arguments.firing("SlidingPSN", self.spike, self.at_threshold)
        order, current = len(self.weight), x.astype(dtype)
        if state is not None and not isinstance(state, SlidingState):
            raise TypeError(
                f"SlidingPSN: state is a {type(state).__name__}, but must be the SlidingState of another call"
            )
        past_shape = (shape[0], order - 1, *shape[1:])
        if state is not None and state.inputs.shape != past_shape:
            raise ValueError(
                f"SlidingPSN: the state's inputs have shape {state.inputs.shape}, but must be {past_shape}, those of "
                "the order - 1 time steps before x"
            )
        past = jnp.zeros(past_shape, dtype) if state is None else state.inputs
        joined = jnp.concatenate([past, current], axis=1)
        rule = _Rule(_mix_from_rest if state is None else _mix_last, cell_scan.HEAVISIDE[self.at_threshold])
        inputs = current if state is None else joined
        spikes, u = _fire(rule, (self.weight.astype(dtype), inputs), self.threshold.astype(dtype), self.spike)
        return spikes.astype(x.dtype), SlidingState(u[:, -1], joined[:, x.shape[1] :]), u


# --- forward and reverse pass -------------------------------------------------------------------------------------

_RECOMPUTED = 16
"""Largest number of time steps for which the reverse pass of a PSN computes u again rather than storing it: up to it, a
product costs no more than the bytes of u."""


class _Rule(NamedTuple):
    """The static part of a parallel neuron.

    mix: ``(weight, x) -> u``, linear in either.
    recompute: whether the reverse pass computes u again from x, which costs fewer bytes and more operations.
    """

    mix: Callable[[jax.Array, jax.Array], jax.Array]
    fire: cell_scan.Fire
    recompute: bool = True


def _mix_all(weight: jax.Array, x: jax.Array) -> jax.Array:
    # One product an example: einsum would move time to the front, and copy. An exported batch has no length.
    weights = jnp.broadcast_to(weight, (x.shape[0], *weight.shape))
    flat = x.reshape(*x.shape[:2], -1)
    # By default, a TPU or a new GPU would round both factors to fewer bits than float32 has.
    return jnp.matmul(weights, flat, precision=lax.Precision.HIGHEST).reshape(x.shape)


def _mix_from_rest(weight: jax.Array, x: jax.Array) -> jax.Array:
    """Weigh the last ``len(weight)`` time steps of x, zeros before the first."""
    order, T = len(weight), x.shape[1]

    def delayed(steps: int) -> jax.Array:  # without a copy of x
        rest = max(T - steps, 0)
        return jnp.pad(x[:, :rest], ((0, 0), (T - rest, 0), *((0, 0),) * (x.ndim - 2)))

    return sum((weight[order - 1 - steps] * delayed(steps) for steps in range(1, order)), weight[-1] * x)


def _mix_last(weight: jax.Array, joined: jax.Array) -> jax.Array:
    """Weigh the last ``len(weight)`` time steps of a sequence that begins with ``len(weight) - 1`` earlier ones."""
    order = len(weight)
    T = joined.shape[1] - order + 1
    return sum((weight[i] * joined[:, i : i + T] for i in range(1, order)), weight[0] * joined[:, :T])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fire(
    rule: _Rule, operands: tuple[jax.Array, jax.Array], threshold: jax.Array, spike: Surrogate
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(H(u - threshold), u)`` from the operands of ``rule.mix``; ``spike`` is for the gradient."""
    return _fire_forward(rule, operands, threshold, spike)[0]


def _fire_forward(
    rule: _Rule, operands: tuple[jax.Array, jax.Array], threshold: jax.Array, spike: Surrogate
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    u = rule.mix(*operands)
    return (rule.fire(u - threshold), u), (operands, None if rule.recompute else u, threshold, spike)


def _fire_backward(
    rule: _Rule, residuals: Any, bars: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, Surrogate]:
    """Compute the cotangents of the operands, threshold and spike (zeros); ``_bar`` is the cotangent of a name."""
    operands, stored, threshold, spike = residuals
    spikes_bar, u_bar = bars
    u, pull = jax.vjp(rule.mix, *operands)
    # Computed once: XLA would compute it again in each of the sums that follow.
    through_spike = lax.optimization_barrier(
        spikes_bar * spike.derivative((u if stored is None else stored) - threshold)
    )
    axes = tuple(i for i in range(u.ndim) if i >= threshold.ndim or threshold.shape[i] == 1)
    threshold_bar = -through_spike.sum(axes).reshape(threshold.shape)
    return pull(through_spike + u_bar), threshold_bar, jax.tree.map(jnp.zeros_like, spike)


_fire.defvjp(_fire_forward, _fire_backward)


# --- modules ------------------------------------------------------------------------------------------------------


class PSN(nn.Module):
    """Parallel spiking neuron: each time step sees all others, later ones included.

    time_steps: T of all sequences. threshold: initial value, above 0.
    """

    time_steps: int
    threshold: float = 1.0
    spike: Surrogate = arctan(2.0)
    at_threshold: AtThreshold = "silent"

    @nn.compact
    def __call__(self, channels: int) -> Parallel:
        """Return the neuron of a layer; its weights are those of all channels."""
        ranges.require("PSN", ranges.WHOLE_FROM_1, time_steps=self.time_steps)
        ranges.require("PSN", ranges.ABOVE_0, threshold=self.threshold)
        weight = self.param("weight", _UNIFORM, (self.time_steps, self.time_steps))
        threshold = self.param("threshold", nn.initializers.constant(self.threshold), (self.time_steps,))
        return Parallel(weight * self.mask(), threshold, self.spike, self.at_threshold)

    def mask(self) -> jax.Array:
        """Return factors of the weights, ``[T, T]``."""
        return jnp.ones((self.time_steps, self.time_steps))


class MaskedPSN(PSN):
    """Masked PSN, whose time steps see only the last ``order`` ones, the present one included.

    The weights are W (masking M + 1 - masking), M[t, s] = 1 for t - order < s <= t and else 0. The article raises
    ``masking`` from 0 to 1 during training.
    """

    order: int = 2
    masking: float = 1.0

    def mask(self) -> jax.Array:
        ranges.require("MaskedPSN", ranges.WHOLE_FROM_1, order=self.order)
        ranges.require("MaskedPSN", ranges.FROM_0_TO_1, masking=self.masking)
        ones = jnp.ones((self.time_steps, self.time_steps))
        return self.masking * (jnp.tril(ones) - jnp.tril(ones, -self.order)) + 1 - self.masking


class SlidingPSN(nn.Module):
    """Sliding PSN, whose time steps share the weights of the last ``order`` ones.

        u[t] = sum over i < order of  w[order - 1 - i] x[t - i],      w = ..., 1/4, 1/2, 1 at first

    threshold: initial value, above 0.
    """

    order: int = 2
    threshold: float = 1.0
    spike: Surrogate = arctan(2.0)
    at_threshold: AtThreshold = "silent"

    @nn.compact
    def __call__(self, channels: int) -> Sliding:
        """Return the neuron of a layer; its weights are those of all channels."""
        ranges.require("SlidingPSN", ranges.ABOVE_0, threshold=self.threshold)
        ranges.require("SlidingPSN", ranges.WHOLE_FROM_1, order=self.order)
        weight = self.param("weight", lambda _: 0.5 ** jnp.arange(self.order - 1.0, -1, -1))
        threshold = self.param("threshold", nn.initializers.constant(self.threshold), ())
        return Sliding(weight, threshold, self.spike, self.at_threshold)
