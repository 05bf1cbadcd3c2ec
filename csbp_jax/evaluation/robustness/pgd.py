"""White-box attack by projected gradients (PGD), with surrogate gradients of the attacker's choice."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax import surrogate
from csbp_jax.neurons.plif import Scaled
from csbp_jax.surrogate import Surrogate

Logits = Callable[[jax.Array], jax.Array]
"""From pictures ``[B, 1, H, W, C]`` to logits ``[B, classes]``."""

STEPS = 20

_Carry = tuple[jax.Array, jax.Array, jax.Array]

SURROGATES = {
    "triangle 1": surrogate.triangle(1.0),
    "arctan 2": surrogate.arctan(2.0),
    "sigmoid 2": surrogate.sigmoid(2.0),
}
"""Surrogates of the attacker, each with area 1: CSBP's own, one with heavy tails, and one of half the height."""


def attack(
    logits: Logits, keys: jax.Array, x: jax.Array, y: jax.Array, eps: ArrayLike, steps: int = STEPS
) -> tuple[jax.Array, jax.Array]:
    """Search for misclassified pictures within ``|x' - x| <= eps`` and [0, 1] (Madry et al., ICLR 2018).

        x'[0] = P(x + eps u),    x'[k+1] = P(x'[k] + a sign(dL/dx'[k])),    a = 2.5 eps / steps

    u is uniform in [-1, 1], and P projects to the allowed box. L is ``log(sum over k != y of exp z[k]) - z[y]``: the
    cross-entropy of the logits z is ``log(1 + exp L)``, so that gradients have the same signs, but those of L do not
    vanish by rounding where the network is confident.

    Args:
      logits: differentiable function of the pictures.
      keys: ``[B]``.
      x: ``[B, 1, H, W, C]`` in [0, 1]. y: labels ``[B]``.
      eps: largest change of a pixel.

    Returns:
      ``(x', fooled)``: the first iterate that is misclassified, ``x'[0]`` and ``x'[steps]`` included, or else the last;
      and ``[B]`` whether it is misclassified.
    """
    low, high = jnp.maximum(x - eps, 0), jnp.minimum(x + eps, 1)

    def loss(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = logits(x)
        label = jax.nn.one_hot(y, z.shape[-1], dtype=bool)
        others = jax.nn.logsumexp(z, axis=-1, where=~label)
        return jnp.sum(others - jnp.sum(z, axis=-1, where=label)), z.argmax(axis=-1) != y

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        x, best, fooled = carry
        gradient, wrong = jax.grad(loss, has_aux=True)(x)
        best = jnp.where(fooled.reshape(-1, *(1,) * (x.ndim - 1)), best, x)
        return (jnp.clip(x + 2.5 * eps / steps * jnp.sign(gradient), low, high), best, fooled | wrong), None

    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -1, 1))(keys)
    start = jnp.clip(x + eps * u, low, high)
    # Each turn evaluates an iterate before it moves on, so one more than steps.
    (_, best, fooled), _ = jax.lax.scan(step, (start, start, jnp.zeros(len(x), bool)), length=steps + 1)
    return best, fooled


def chosen(weights: jax.Array) -> Surrogate:
    """Return the sum of :data:`SURROGATES` with traced weights, so that one program serves for all of them."""
    return Surrogate(_weighted_sum, tuple(weights))


def _weighted_sum(x: jax.Array, *weights: jax.Array) -> jax.Array:
    parts = [w * s.derivative(x) for w, s in zip(weights, SURROGATES.values(), strict=True)]
    return jnp.sum(jnp.stack(parts), axis=0)


def with_surrogate(neuron: Any, spike: Surrogate) -> Any:
    """Return a neuron, or a module of neurons, with another surrogate; None if it has none that could be replaced.

    Its spikes stay the same.
    """
    if isinstance(neuron, Scaled):
        inner = with_surrogate(neuron.neuron, spike)
        return None if inner is None else dataclasses.replace(neuron, neuron=inner)
    fields = {field.name for field in dataclasses.fields(neuron)} if dataclasses.is_dataclass(neuron) else set()
    return dataclasses.replace(neuron, spike=spike) if "spike" in fields else None
