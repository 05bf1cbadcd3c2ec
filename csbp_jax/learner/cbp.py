"""The rule of chaotic backpropagation (CBP; Tao, Cheng, Chen, Neural Networks 2022), from which CSBP's term comes.

    p <- p + z (I0 - X)        X: a neuron's mean of s(h/k) over examples, time and space

Once per step, the same for all weights that lead to the neuron and for its bias. It is not a gradient, and the learning
rate does not scale it: it is an optax transformation, chained after the optimiser, that takes ``h`` from the step's
forward pass.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from csbp_jax import ranges


def shortfall(h: ArrayLike, target: ArrayLike = 0.65, scale: ArrayLike = 10.0) -> jax.Array:
    """Compute ``I0 - X`` per channel, from ``h [..., C]`` to ``[C]``, with X the mean of s(h/k) over all other axes.

    Raises:
      ValueError: ``target`` or ``scale`` is a number of Python or NumPy outside its range.
    """
    ranges.require("shortfall", ranges.BETWEEN_0_AND_1, target=target)
    ranges.require("shortfall", ranges.ABOVE_0, scale=scale)
    h = jnp.asarray(h)
    h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
    return jnp.asarray(target, h.dtype) - jax.nn.sigmoid(h / jnp.asarray(scale, h.dtype)).mean(tuple(range(h.ndim - 1)))


def kick(
    strength: optax.ScalarOrSchedule, target: ArrayLike = 0.65, scale: ArrayLike = 10.0
) -> optax.GradientTransformationExtraArgs:
    """Add CBP's kick to updates: ``update(updates, state, params, outputs={name: h})``.

    ``outputs`` holds the pre-activations ``h [..., C]`` of layers; every array of ``updates[name]``, such as a kernel
    ``[..., in, C]`` and a bias ``[C]``, is moved by ``z (I0 - X) [C]``.

    Args:
      strength: z, or a function of the number of steps done, such as ``functools.partial(chaos.strength, z0=, beta=)``.
      target: I0 in (0, 1).
      scale: k > 0.

    >>> tx = optax.chain(optax.sgd(0.1), kick(2.0, scale=1.0))
    >>> updates = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    >>> updates, _ = tx.update(updates, tx.init(updates), outputs={"fc": jnp.zeros((8, 2))})
    >>> [round(float(value), 4) for value in updates["fc"]["bias"]]
    [0.3, 0.3]
    """

    def update(
        updates: dict[str, Any],
        state: optax.ScaleByScheduleState,
        params: optax.Params | None = None,
        *,
        outputs: dict[str, ArrayLike],
        **extra: Any,
    ) -> tuple[dict[str, Any], optax.ScaleByScheduleState]:
        z = strength(state.count) if callable(strength) else strength
        kicks = {name: z * shortfall(h, target, scale) for name, h in outputs.items()}
        kicked = {
            name: jax.tree.map(lambda u, k=k: u + jnp.broadcast_to(k, u.shape).astype(u.dtype), updates[name])
            for name, k in kicks.items()
        }
        return updates | kicked, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32)), update
    )
