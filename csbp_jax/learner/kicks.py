"""The rule of chaotic backpropagation (CBP; Tao, Cheng, Chen, Neural Networks 2022), from which CSBP's term comes.

    p <- p + z (I0 - X)        X: a neuron's mean of s(h/k) over examples, time and space

Once per step, the same for all weights that lead to the neuron and for its bias. It is not a gradient, and the learning
rate does not scale it. ``I0 - X`` is ``controls.shortfall`` of the tapped output ``h`` of a convolution or a dense
layer, from the step's one forward pass.
"""

from typing import Any

import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError

_WEIGHTS = ("kernel", "bias")
"""Parameters of a synapse that are moved; ``delay`` is in time steps, and no weight."""


def kicked(params: Any, kicks: dict[str, jax.Array]) -> Any:
    """Add each neuron's kick to the weights that lead to it.

    Args:
      params: a network's; those of a tap, ``params[LAYER]["dense" | "conv"]``, are kernel ``[..., in, out]`` and, if
        there is one, bias ``[out]``. Learned delays stay.
      kicks: ``{tap: z (I0 - X) [out]}``.

    Raises:
      ConfigError: a tapped tensor is not the output of weights of its own.
    """
    for tap, kick in kicks.items():
        layer, _, kind = tap.rpartition(".")
        synapse = params.get(layer, {}).get(kind, {}) if kind in ("dense", "conv") else {}
        if "kernel" not in synapse:
            raise ConfigError(
                f"chaos.taps: {tap} is not possible with chaos.term cbp, which moves the weights that make a tensor; "
                "allowed are LAYER.dense and LAYER.conv"
            )
        weights = {name: p for name, p in synapse.items() if name in _WEIGHTS}
        moved = jax.tree.map(lambda p, kick=kick: p + jnp.broadcast_to(kick, p.shape).astype(p.dtype), weights)
        params = params | {layer: params[layer] | {kind: synapse | moved}}
    return params
