"""Synaptic operations (SynOps) of a forward pass, as NeuroBench defines them (Yik et al., Nature Communications 2025).

A SynOp is one use of one connection: a nonzero input that meets a nonzero weight, counted only where a convolution has
that connection, so fewer at the border of a feature map. At time step t of an example

    SynOps[t] = sum over inputs i of  [x_i[t] != 0] fanout_i            fanout_i = number of nonzero weights at input i

are accumulates (AC) if all inputs of the synapse are in {-1, 0, 1}, and multiply-accumulates (MAC) otherwise: counts of
events, grey values, averaged or added spikes. (NeuroBench decides this per batch, this module per example.) "Dense"
counts all connections, zero or not. Not counted, as in NeuroBench: biases, norms (which fold into weights), pooling,
the updates of the neurons. Nor are the products of attention between spikes, which have no weights.

An integer n of an I-LIF neuron stands for n spikes, and so for n AC of each of its connections: with ``levels`` above
1, all inputs that are integers up to that size are counted in this way.

A still input passes its first synapse once and is counted once; a network that computes that synapse at each time step
needs T times as much there. In the padding of sequences of unequal length there are no SynOps.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.linen.module import InterceptorContext
from numpy.typing import NDArray

from csbp_jax.models.delays import DelayedSynapse
from csbp_jax.models.layers import Recurrent
from csbp_jax.xla.lengths import without_padding

MAC_PJ, AC_PJ = 4.6, 0.9
"""Picojoules in 45 nm (Horowitz, ISSCC 2014): a 32-bit floating-point product and sum (3.7 + 0.9), and a sum alone."""


@struct.dataclass
class SynOps:
    """SynOps of one synapse, at T time steps: 1 where a still input passes once, and those of all its calls in turn.

    effective_parts, dense_parts: ``[B, T, 2]`` and ``[1, T, 2]``, of sequences of unequal length both ``[B, T, 2]``, as
        :func:`_sum` makes them.
    spiking: ``[B, T]`` bool, whether the operations are accumulates.
    """

    effective_parts: jax.Array
    spiking: jax.Array
    dense_parts: jax.Array

    @property
    def effective(self) -> NDArray[np.int64]:
        """Connections used, ``[B, T]``; not within a jitted function."""
        return _total(self.effective_parts)

    @property
    def dense(self) -> NDArray[np.int64]:
        """All connections of an example, ``[T]``, or ``[B, T]`` of unequal ones; not within a jitted function."""
        dense: NDArray[np.int64] = _total(self.dense_parts)
        return dense[0] if len(dense) == 1 else dense


def _sum(counts: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Sum counts beyond the range of int32, without int64, which JAX lacks by default; :func:`_total` adds the parts.

    Returns:
      ``[..., 2]``: the sums of ``counts // 256`` and of ``counts % 256``.
    """
    return jnp.stack([(counts // 256).sum(axes), (counts % 256).sum(axes)], axis=-1)


def _total(parts: jax.Array) -> NDArray[np.int64]:
    return np.asarray(parts, np.int64) @ np.array([256, 1])


def count_synops(
    apply: Callable[..., Any], variables: Any, x: jax.Array, *, levels: int = 1, **options: Any
) -> tuple[Any, dict[str, SynOps]]:
    """Call ``apply(variables, x, **options)``; return its output, and ``{synapse: SynOps}`` of the call.

    levels: largest number of spikes of a neuron per time step. Of sequences of unequal length, ``options`` have the
    ``lengths [B]``.

    Synapses are the ``nn.Conv`` and ``nn.Dense`` of the network, by their layer's name (``conv1.conv``), the feedback
    of recurrent layers (``rec1.feedback``), and those with delays, each connection of which is two: it interpolates
    between two time steps. A spike counts when it is fired. A synapse called twice counts twice. Jittable.
    """
    # name, the synapse without bias, its kernel, its input
    calls: list[tuple[str, nn.Module, jax.Array, jax.Array]] = []

    def record(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext
    ) -> Any:
        out, module = call(*args, **kwargs), context.module
        name = ".".join(module.path)
        if context.method_name == "__call__" and isinstance(module, nn.Conv | nn.Dense):
            # The plain convolution: the forms of CPUs round, and those of TPUs need all time steps.
            plain: dict[str, Any] = {"conv_general_dilated": None} if isinstance(module, nn.Conv) else {}
            synapse = module.clone(parent=None, name=None, use_bias=False, dtype=None, **plain)
            calls.append((name, synapse, module.get_variable("params", "kernel"), args[0]))
        elif context.method_name == "__call__" and isinstance(module, DelayedSynapse):
            kernel = jnp.tile(module.get_variable("params", "kernel"), 2)
            calls.append((name, nn.Dense(2 * module.features, use_bias=False), kernel, args[0]))
        elif context.method_name == "__call__" and isinstance(module, Recurrent):
            previous = jnp.pad(out[0][:, :-1], ((0, 0), (1, 0), (0, 0)))
            synapse = nn.Dense(module.features, use_bias=False)
            calls.append((f"{name}.feedback", synapse, module.get_variable("params", "feedback"), previous))
        return out

    with nn.intercept_methods(record):
        out = apply(variables, x, **options)
    counts: dict[str, SynOps] = {}
    for name, synapse, kernel, received in calls:
        count = _count(synapse, kernel, received, levels, options.get("lengths"))
        if name in counts:
            count = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), counts[name], count)
        counts[name] = count
    return out, counts


def _count(synapse: nn.Module, kernel: jax.Array, x: jax.Array, levels: int, lengths: jax.Array | None) -> SynOps:
    def fanout(kernel: jax.Array) -> jax.Array:
        """Count the connections of each input: the derivative of the sum of all outputs, exact in float32."""

        def outputs(frame: jax.Array) -> jax.Array:
            out: Any = synapse.apply({"params": {"kernel": kernel}}, frame)
            return jnp.sum(out)

        with jax.default_matmul_precision("highest"):  # sums in float32, whatever the user's precision
            connections: jax.Array = jax.grad(outputs)(jnp.zeros((1, *x.shape[2:]), jnp.float32))
        return connections.astype(jnp.int32)

    axes, x = tuple(range(2, x.ndim)), without_padding(lengths, x)
    size = jnp.abs(x.astype(jnp.float32))
    spiking = ((size <= levels) & (size == jnp.round(size))).all(axes, keepdims=True)
    uses = jnp.where(spiking, size, 1).astype(jnp.int32)
    dense = jnp.repeat(_sum(fanout(jnp.ones_like(kernel, jnp.float32))[None], axes), x.shape[1], axis=1)
    if lengths is not None:
        dense = without_padding(lengths, jnp.repeat(dense, len(x), axis=0))
    return SynOps(
        effective_parts=_sum(jnp.where(x != 0, uses * fanout((kernel != 0).astype(jnp.float32))[None], 0), axes),
        spiking=spiking.reshape(x.shape[:2]),
        dense_parts=dense,
    )


def energy_pj(macs: float, acs: float) -> float:
    """Estimate energy in picojoules from arithmetic alone, without memory access, wires and neurons.

    >>> energy_pj(macs=10, acs=100)
    136.0
    """
    return MAC_PJ * macs + AC_PJ * acs
