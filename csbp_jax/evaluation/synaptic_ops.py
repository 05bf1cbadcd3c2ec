"""Synaptic operations of a forward pass, as NeuroBench defines them (Yik et al., Nature Communications 2025).

One operation is one connection that is used once: a nonzero input that meets a nonzero weight, counted wherever a
convolution really has that connection, so fewer at a picture's border. At time step t of an example

    operations[t] = sum over inputs i of  [x_i[t] != 0] fanout_i        fanout_i = number of nonzero weights at input i

are accumulates (AC) where all inputs of the synapse are in {-1, 0, 1}, and multiply-accumulates (MAC) elsewhere: counts
of events, grey values, averaged or added spikes. (NeuroBench decides that of a whole batch; here each example is one.)
"Dense" is all connections, whether or not anything is zero. Not counted, as there: biases, norms (which fold into
weights), pooling, the neurons' own updates.

A still picture meets its first synapse once, and is counted once; a network that computes it anew at each step does T
times as much there.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from csbp_jax.models.layers import Recurrent

MAC_PJ, AC_PJ = 4.6, 0.9
"""Picojoules in 45 nm (Horowitz, ISSCC 2014): a 32-bit floating-point product and sum (3.7 + 0.9), and a sum alone."""


@struct.dataclass
class Count:
    """Of one synapse.

    operations: ``[B, T]`` int32, the effective ones; T is 1 where a still picture is seen once.
    spiking: ``[B, T]`` bool, whether they are accumulates.
    dense: int32, all connections, of one example and time step.
    """

    operations: jax.Array
    spiking: jax.Array
    dense: jax.Array


def count_operations(
    apply: Callable[..., Any], variables: Any, x: jax.Array, **options: Any
) -> tuple[Any, dict[str, Count]]:
    """``apply(variables, x, **options)``, and ``{synapse: Count}`` of what it computed.

    Synapses are the ``nn.Conv`` and ``nn.Dense`` of the network, by their layer's name (``conv1.conv``), and the
    feedback of recurrent layers (``rec1.feedback``). Jittable.
    """
    calls: list[tuple[str, Callable[[jax.Array], jax.Array], Any, jax.Array]] = []

    def note(call, args, kwargs, context):
        out, module = call(*args, **kwargs), context.module
        if context.method_name == "__call__" and isinstance(module, nn.Conv | nn.Dense):
            plain = module.clone(parent=None, name=None, use_bias=False, dtype=None)
            calls.append((".".join(module.path), plain, module.get_variable("params", "kernel"), args[0]))
        elif context.method_name == "__call__" and isinstance(module, Recurrent):
            before = jnp.pad(out[0][:, :-1], ((0, 0), (1, 0), (0, 0)))
            plain = nn.Dense(module.features, use_bias=False)
            calls.append(
                (f"{'.'.join(module.path)}.feedback", plain, module.get_variable("params", "feedback"), before)
            )
        return out

    with nn.intercept_methods(note):
        out = apply(variables, x, **options)
    return out, {name: _count(*call) for name, *call in calls}


def _count(synapse, kernel, x):
    def fanout(kernel):
        """Connections of each input of one frame: the derivative of the sum of all outputs, exact in float32."""
        outputs = lambda frame: synapse.apply({"params": {"kernel": kernel}}, frame).sum()  # noqa: E731
        return jax.grad(outputs)(jnp.zeros((1, *x.shape[2:]), jnp.float32)).astype(jnp.int32)

    axes = tuple(range(2, x.ndim))
    return Count(
        operations=jnp.where(x != 0, fanout((kernel != 0).astype(jnp.float32))[None], 0).sum(axes),
        spiking=((x == 0) | (jnp.abs(x) == 1)).all(axes),
        dense=fanout(jnp.ones_like(kernel, jnp.float32)).sum(),
    )


def energy_pj(macs: float, acs: float) -> float:
    """The usual estimate, in picojoules; it knows of no memory, no wires and no neurons.

    >>> energy_pj(macs=10, acs=100)
    136.0
    """
    return MAC_PJ * macs + AC_PJ * acs
