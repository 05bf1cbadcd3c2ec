"""spyx's neuron: its spikes come a step later and its reset subtracts, so its dynamics differ from ours."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
import spyx
import spyx.nn as snn
from flax import nnx

from benchmarks.worker import Program, drawn

VERSIONS = {name: metadata.version(name) for name in ("spyx", "jax", "flax")}


def neuron(shape: Sequence[int], decay: float, donated: bool = False) -> Program:
    """LIF forward and backward. donated: whether the loops may write over x and the cotangent of the spikes."""
    x, bars = (jax.numpy.asarray(np.moveaxis(drawn(shape, seed), 1, 0)) for seed in (0, 1))
    layer = snn.LIF(
        tuple(shape[2:]), beta=jax.numpy.float32(decay), activation=spyx.axn.triangular(1.0), rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(layer)

    def spikes(x):
        return snn.run(nnx.merge(graph, state), x)[0]

    results: dict[str, Any] = {}
    forward_pass = jax.jit(lambda x: jax.vjp(spikes, x), donate_argnums=(0,) if donated else ())
    backward_pass = jax.jit(lambda pull, bars: pull(bars)[0], donate_argnums=(1,) if donated else ())

    def prepare():
        results["x"], results["bars"] = jax.block_until_ready((x.copy(), bars.copy()) if donated else (x, bars))

    def forward():
        results["spikes"], results["pull"] = jax.block_until_ready(forward_pass(results["x"]))

    def backward():
        results["gradient"] = jax.block_until_ready(backward_pass(results["pull"], results["bars"]))

    def check():
        return {name: np.moveaxis(np.asarray(results[name]), 0, 1) for name in ("spikes", "gradient")}

    return Program([forward, backward], check, prepare=prepare)


PROGRAMS = {"neuron": neuron}
