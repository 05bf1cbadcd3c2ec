"""Programs of this package for benchmarks.worker: the neuron, its memory traffic alone, and the chaos term."""

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours_convolution, ours_runs, ours_step
from benchmarks.worker import Program, drawn
from csbp_jax import chaos, models, neurons
from csbp_jax.config import Neuron

LARGEST_WITHOUT_A_LOOP = 4
"""Time steps that the neuron computes without a loop on CPU."""

VERSIONS = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def neuron(
    shape: Sequence[int],
    decay: float,
    learned: bool = False,
    alone: bool = False,
    donated: bool = True,
) -> Program:
    """lif forward and backward, hard reset, triangle.

    learned: with the gradients of decay and threshold. alone: without the last membrane, as in a layer of a network.
    donated: whether a loop may write over x and the cotangent of the spikes, as over temporaries in a network.
    """
    constants = (jnp.float32(decay), jnp.float32(1.0)) if learned else ()
    membrane_bar = [] if alone else [jnp.zeros((shape[0], *shape[2:]))]

    def call(x, *constants):
        out = neurons.lif(x, *constants) if learned else neurons.lif(x, decay)
        return list(out[: 1 + len(membrane_bar)])

    return _two_passes(shape, call, constants, membrane_bar, (donated, donated))


def named_neuron(shape: Sequence[int], name: str, decay: float) -> Program:
    """A neuron of ``model.neuron.name``, forward and backward, with the gradients of its parameters if it has any."""
    # No feedback of states into the loss, as in a layer of a network whose last membrane is not tapped.
    built: Any = models.neuron(Neuron(name=name, decay=decay), shape[1])  # type: ignore[arg-type]  # one of the names
    params = built.init(jax.random.key(0), 1) if isinstance(built, nn.Module) else {}

    def call(x, params):
        neuron = built.apply(params, 1) if params else built
        return [neuron(x)[0]]

    return _two_passes(shape, call, (params,), [], (not params, not params))  # those with parameters have no loop


def _two_passes(
    shape: Sequence[int],
    call: Callable[..., list[jax.Array]],
    constants: Sequence[Any],
    bars: Sequence[jax.Array],
    donated: tuple[bool, bool],
) -> Program:
    """Time ``call(x, *constants) -> [spikes, ...]`` and its reverse pass.

    bars: cotangents of the outputs other than the spikes.
    donated: whether to donate x to the forward pass, and the cotangent of the spikes to the backward pass. Where there
      is no loop, nothing is donated: it would only make XLA copy.
    """
    x, spikes_bar = jnp.asarray(drawn(shape)), jnp.asarray(drawn(shape, 1))
    ahead, back = (donate and shape[1] > LARGEST_WITHOUT_A_LOOP for donate in donated)
    # The residual comes before the spikes, so that it may take the place of x.
    forward_pass = jax.jit(lambda *operands: jax.vjp(call, *operands)[::-1], donate_argnums=(0,) if ahead else ())
    backward_pass = jax.jit(lambda pull, bar: pull([bar, *bars]), donate_argnums=(1,) if back else ())
    results: dict[str, Any] = {}

    def prepare():
        fresh = x.copy() if ahead else x, spikes_bar.copy() if back else spikes_bar
        results["x"], results["bar"] = jax.block_until_ready(fresh)

    def forward():
        results["pull"], (results["spikes"], *_) = jax.block_until_ready(forward_pass(results["x"], *constants))

    def backward():
        results["gradient"], *_ = jax.block_until_ready(backward_pass(results["pull"], results["bar"]))

    def check():
        return {name: np.asarray(results[name]) for name in ("spikes", "gradient")}

    return Program([forward, backward], check, prepare=prepare)


def minimum_traffic(shape: Sequence[int]) -> Program:
    """Elementwise programs that move the neuron's bytes without its recurrence: 4 in, 8 out; 8 in, 4 out."""
    x, g = jnp.asarray(drawn(shape)), jnp.asarray(drawn(shape, 1))
    forward_pass, backward_pass = jax.jit(lambda x: (x * 2, x + 1)), jax.jit(lambda u, g: u * g)
    results: dict[str, Any] = {}

    def forward():
        results["spikes"], results["u"] = jax.block_until_ready(forward_pass(x))

    def backward():
        results["gradient"] = jax.block_until_ready(backward_pass(results["u"], g))

    return Program([forward, backward])


def zeros(shape: Sequence[int]) -> Program:
    """Fill a sequence with zeros, as XLA on CPU does with the buffer of a loop that nothing is written over."""
    fill = jax.jit(lambda: jnp.zeros(shape))
    return Program([lambda: jax.block_until_ready(fill())])


def memory_copy(shape: Sequence[int], copies: int) -> Program:
    """Read and write ``copies`` times the array's bytes, between allocated buffers."""
    source = np.stack([drawn(shape)] * copies)
    target = source.copy()
    return Program([lambda: np.copyto(target, source)])


def chaos_term(shape: Sequence[int]) -> Program:
    """Value and gradient of the term."""
    h, gradient = jnp.asarray(3 * drawn(shape)), jax.jit(jax.value_and_grad(chaos.term))
    return Program([lambda: jax.block_until_ready(gradient(h))])


PROGRAMS = {
    "neuron": neuron,
    "named_neuron": named_neuron,
    "minimum_traffic": minimum_traffic,
    "zeros": zeros,
    "memory_copy": memory_copy,
    "chaos_term": chaos_term,
    **ours_convolution.PROGRAMS,
    **ours_step.PROGRAMS,
    **ours_runs.PROGRAMS,
}
