"""Exponents of a network's own state over time steps, along the inputs that drive it.

Training is a map of the weights; a network that runs is a map of its membranes and other states, at fixed weights:

    state[t+1] = step(parameters, state[t], x[t])

Its exponents say whether a difference of the states, from an earlier input or from noise, fades or grows while the same
inputs go on (Sompolinsky, Crisanti & Sommers, Phys. Rev. Lett. 1988, for rate networks without input). Those of the
surrogate's tangent are the rates at which gradients vanish or explode through time (Engelken & Abbott, SNUFA 2024).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax.dynamics.finite_size import finite_size_many
from csbp_jax.dynamics.lyapunov import lyapunov_many
from csbp_jax.dynamics.state import PyTree, Statistics

TimeStep = Callable[[PyTree, PyTree, jax.Array], PyTree]
"""``step(parameters, state, x) -> state`` of one network on one sequence; x is the input of one time step."""

DELTAS = (1e-6, 1e-3, 1.0)


class DrivenExponents(NamedTuple):
    """Exponents of a network's state, in nats per time step; K sequences.

    tangent: of the tangent map that gradients have, ``exponents [K, n]`` in falling order: for spikes, that of the
      surrogate.
    finite_size: growth of real differences, spikes included, ``exponents [K, M]``.
    deltas: the sizes of these differences ``[M]``.
    """

    tangent: Statistics
    finite_size: Statistics
    deltas: jax.Array


def driven_exponents(
    step: TimeStep,
    states: PyTree,
    inputs: jax.Array,
    parameters: PyTree = None,
    *,
    n: int = 1,
    deltas: ArrayLike | Sequence[float] = DELTAS,
    warmup: int = 0,
    seed: int = 0,
) -> DrivenExponents:
    """Compute the exponents of a network's state over the time steps of K sequences.

    With J[t] the Jacobian of a step by the state, as reverse-mode gradients have it, the tangent exponents are those of
    the product ``J[T-1] ... J[0]``, by QR (:func:`csbp_jax.dynamics.lyapunov.lyapunov_many`). The finite-size exponents
    are those of pairs of runs on the same inputs (:func:`csbp_jax.dynamics.finite_size.finite_size_many`), which see
    every spike. A network without a loop forgets: its tangent exponents are those of its neurons, one by one.

    What they cannot show: an exponent is a mean over the time steps that are given, and for a few of them depends on
    where they begin. With spikes, real differences that are small enough only shrink until they flip a spike, so that
    the exponents depend on the size; and the surrogate's tangent belongs to no real difference.

    Args:
      step: ``step(parameters, state, x) -> state``; jittable. It needs a reverse pass, no forward-mode derivative. The
        same function object is compiled once over calls.
      states: at the start of each sequence, a pytree of inexact arrays ``[K, ...]``.
      inputs: ``[K, T, ...]``.
      parameters: pytree passed on to ``step``, which is compiled for any.
      n: number of tangent exponents of each sequence; a time step costs about ``2 n`` reverse passes.
      deltas: ``[M]`` Euclidean norms of the differences of the whole state, well above its rounding.
      warmup: number of time steps that are not counted.
      seed: random seed of the initial directions.

    Returns:
      The exponents of each sequence.

    Raises:
      ValueError: states and inputs differ in K, fewer than two time steps are counted, or ``n`` is not from 1 to the
        dimension of the state.

    >>> leaky = lambda decay, v, x: decay * v + x
    >>> measured = driven_exponents(leaky, jnp.zeros((2, 5)), jnp.ones((2, 20, 5)), 0.5, n=2, deltas=0.1)
    >>> print(measured.tangent.exponents.round(2), measured.finite_size.exponents.round(2).T)
    [[-0.69 -0.69]
     [-0.69 -0.69]] [[-0.69 -0.69]]
    """
    inputs = jnp.asarray(inputs)
    sequences = {inputs.shape[0], *(jnp.shape(leaf)[0] for leaf in jax.tree.leaves(states))}
    if len(sequences) > 1:
        raise ValueError(
            f"driven_exponents: inputs have shape {inputs.shape}, but must be [K, T, ...] of as many sequences as the "
            f"states, whose leaves have {jnp.shape(jax.tree.leaves(states)[0])}"
        )
    numbered = states, jnp.arange(len(inputs))
    leaves = jax.tree.map(lambda _: True, states), False
    batches = [(parameters, x) for x in jnp.moveaxis(inputs, 1, 0)]
    deltas = jnp.atleast_1d(jnp.asarray(deltas, jnp.result_type(*jax.tree.leaves(states))))
    return DrivenExponents(
        lyapunov_many(
            _of_number(reverse_tangent(step)), numbered, batches, n, warmup=warmup, dynamical_leaves=leaves, seed=seed
        ),
        finite_size_many(
            _of_number(step), numbered, batches, deltas, warmup=warmup, dynamical_leaves=leaves, seed=seed
        ),
        deltas,
    )


@functools.lru_cache(maxsize=64)
def reverse_tangent(step: TimeStep) -> TimeStep:
    """Return a step whose ``jax.jvp`` by the state is that of its reverse pass, with surrogate gradients.

    A neuron with a surrogate has a reverse pass only (``jax.custom_vjp``), of which forward mode knows nothing. The
    reverse pass is linear in its cotangent, ``bar -> J^T bar``; the reverse pass of *that* is ``J``.

    The tangents of parameters and input are taken as 0.
    """

    @jax.custom_jvp
    def stepped(parameters: PyTree, state: PyTree, x: jax.Array) -> PyTree:
        return step(parameters, state, x)

    @stepped.defjvp
    def tangent(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
        parameters, state, x = primals
        after, pull = jax.vjp(lambda state: step(parameters, state, x), state)
        _, push = jax.vjp(lambda bar: pull(bar)[0], jax.tree.map(jnp.zeros_like, after))
        return after, push(tangents[1])[0]

    return stepped


@functools.lru_cache(maxsize=64)
def _of_number(step: TimeStep) -> Callable[[PyTree, Any], PyTree]:
    """Return the step of a numbered sequence, which takes its own input from those of all."""

    def numbered(state: PyTree, batch: Any) -> PyTree:
        (state, number), (parameters, x) = state, batch
        return step(parameters, state, x[number]), number

    return numbered
