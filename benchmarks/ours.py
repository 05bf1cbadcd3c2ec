"""This package's programs, for benchmarks.worker: the neuron, what memory alone would cost, and the chaos term."""

from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours_convolution, ours_runs, ours_step
from benchmarks.worker import Program, drawn
from csbp_jax import chaos, neurons

VERSIONS = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def neuron(shape, decay, learned=False, residual="full", alone=False):
    """lif forward and backward, hard reset, triangle; ``learned`` with the gradients of decay and threshold.

    ``alone``: the spikes, as a layer of a network takes them, without the last membrane.
    """
    x, bars = jnp.asarray(drawn(shape)), [jnp.asarray(drawn(shape, 1)), jnp.zeros((shape[0], *shape[2:]))]
    bars = bars[:1] if alone else bars
    operands = (x, jnp.float32(decay), jnp.float32(1.0)) if learned else (x,)

    def call(*operands):
        out = neurons.lif(*operands) if learned else neurons.lif(*operands, decay, residual=residual)
        return list(out[: len(bars)])

    forward_pass = jax.jit(lambda *operands: jax.vjp(call, *operands))
    backward_pass = jax.jit(lambda pull, bars: pull(bars))
    kept = {}

    def forward():
        (kept["spikes"], *_), kept["pull"] = jax.block_until_ready(forward_pass(*operands))

    def backward():
        kept["gradient"], *_ = jax.block_until_ready(backward_pass(kept["pull"], bars))

    return Program([forward, backward], lambda: {name: np.asarray(kept[name]) for name in ("spikes", "gradient")})


def minimum_traffic(shape):
    """Elementwise programs that move the neuron's bytes without its recurrence: 4 in, 8 out; 8 in, 4 out."""
    x, g = jnp.asarray(drawn(shape)), jnp.asarray(drawn(shape, 1))
    forward_pass, backward_pass = jax.jit(lambda x: (x * 2, x + 1)), jax.jit(lambda u, g: u * g)
    kept = {}

    def forward():
        kept["spikes"], kept["u"] = jax.block_until_ready(forward_pass(x))

    def backward():
        kept["gradient"] = jax.block_until_ready(backward_pass(kept["u"], g))

    return Program([forward, backward])


def zeros(shape):
    """One sequence filled with zeros, as XLA on CPU does before a loop over time writes to it."""
    fill = jax.jit(lambda: jnp.zeros(shape))
    return Program([lambda: jax.block_until_ready(fill())])


def memory_copy(shape, copies):
    """Reads and writes ``copies`` times the array's bytes, between buffers that exist."""
    source = np.stack([drawn(shape)] * copies)
    target = source.copy()
    return Program([lambda: np.copyto(target, source)])


def chaos_term(shape):
    """Value and gradient of the term."""
    h, gradient = jnp.asarray(3 * drawn(shape)), jax.jit(jax.value_and_grad(chaos.term))
    return Program([lambda: jax.block_until_ready(gradient(h))])


PROGRAMS = {
    "neuron": neuron,
    "minimum_traffic": minimum_traffic,
    "zeros": zeros,
    "memory_copy": memory_copy,
    "chaos_term": chaos_term,
    **ours_convolution.PROGRAMS,
    **ours_step.PROGRAMS,
    **ours_runs.PROGRAMS,
}
