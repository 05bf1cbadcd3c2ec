"""Nodes of NIR for the components of a layer: its synapse with the norm folded in, and its neuron.

Equations: nir_graph.py.
"""

from typing import Any

import jax
import nir
import numpy as np
from numpy.typing import ArrayLike, NDArray

from csbp_jax.config import ConfigError
from csbp_jax.export.nir_links import Call
from csbp_jax.models import layers, norms
from csbp_jax.models.delays import DelayedDense
from csbp_jax.neurons import LIF
from csbp_jax.neurons.plif import PLIF, Scaled

DT = 1e-4
"""Seconds per time step, in a graph of leaky neurons."""
Shape = tuple[int, ...]
Array = NDArray[Any]


def channels_first(shape: Shape) -> Shape:
    """Return ``[H, W, C]`` as ``[C, H, W]``, and any other shape unchanged."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def pool(window: tuple[int, int]) -> nir.NIRNode:
    """Return average pooling over adjacent windows."""
    return nir.AvgPool2d(np.array(window), np.array(window), np.array((0, 0)))


def flatten(shape: Shape) -> nir.NIRNode:
    """Return a flattening of all axes but batch and time, which NIR does not count."""
    return nir.Flatten({"input": np.array(channels_first(shape))}, start_dim=0, end_dim=-1)


def vote(outputs: int, classes: int) -> nir.NIRNode:
    """Return ``layers.vote`` as a matrix: each class is the mean of its adjacent outputs."""
    votes = outputs // classes
    return nir.Linear(np.repeat(np.eye(classes, dtype=np.float32), votes, axis=1) / np.float32(votes))


def synapse(call: Call, shape: Shape, flattened: Shape, params: Any, stats: Any) -> nir.NIRNode:
    """Return a layer's convolution or matrix product, its norm folded in (in float64, then rounded to float32).

    Args:
      shape: of the input.
      flattened: shape of the feature map that was flattened to the input, whose order in NIR is another; empty if none
        was.

    Raises:
      ConfigError: NIR cannot express the layer or its norm.
    """
    if isinstance(call.module, DelayedDense):
        raise _inexpressible(call, "each of its connections has a delay of its own")
    factor, summand = _norm(call, params, stats) if hasattr(call.module, "norm") else (np.ones(()), np.zeros(()))
    # A norm alone is a diagonal matrix: the types of nir 1.0 take the channels of a group for all of them.
    weights = params.get("conv", params.get("dense", params))
    kernel = np.eye(shape[-1]) if isinstance(call.module, layers.Norm) else np.asarray(weights["kernel"], np.float64)
    bias = _float32(weights.get("bias", np.zeros(kernel.shape[-1])) * factor + summand)
    kernel = kernel * factor
    if isinstance(call.module, layers.ConvNorm):
        weight = _float32(kernel.transpose(3, 2, 0, 1))
        return nir.Conv2d(shape[:2], weight, call.module.stride, call.module.kernel // 2, 1, 1, bias)
    if len(shape) == 3 and not isinstance(call.module, layers.Recurrent):  # the same product at each pixel
        return nir.Conv2d(shape[:2], _float32(kernel.T[:, :, None, None]), 1, 0, 1, 1, bias)
    if len(shape) > 1:
        raise _inexpressible(call, "its matrix product is along the last of several axes")
    if len(flattened) == 3:
        kernel = kernel.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    return nir.Affine(_float32(kernel.T), bias)


def _norm(call: Call, params: Any, stats: Any) -> tuple[Array, Array]:
    """Return factor and summand of each channel in evaluation mode."""
    norm = call.module.norm(parent=None)
    if isinstance(norm, norms.NoNorm):
        return np.ones(()), np.zeros(())
    params, stats = params["norm"], stats["norm"]
    if not isinstance(norm, norms.BatchNorm):
        raise _inexpressible(call, f"its norm ({type(norm).__name__}) has other factors at each time step")
    gamma, beta, mean, var = (
        np.asarray(leaf, np.float64) for leaf in (params["scale"], params["bias"], stats["mean"], stats["var"])
    )
    factor = norm.gain * gamma / np.sqrt(var + norm.epsilon)
    scale = np.asarray(params.get("p", [1.0]), np.float64)
    if (scale != scale[0]).any():
        raise _inexpressible(call, "its norm (TEBN) has another factor at each time step")
    return scale[0] * factor, scale[0] * (beta - mean * factor)


def neuron(call: Call, params: Any) -> list[nir.NIRNode]:
    """Return a layer's neuron as nodes: none if it has no neuron, an integrator and a threshold if it is not reset."""
    if call.neuron is None:
        return []
    factor = call.module.threshold if isinstance(call.module, layers.Spike) else 1.0
    lif: Any = layers.scale_threshold(call.neuron, factor)
    gain = np.ones(())
    if isinstance(lif, PLIF):
        gain = np.asarray(jax.nn.sigmoid(params["neuron"]["w"]), np.float64)
        lif = LIF(1 - gain, lif.threshold, reset=lif.reset, at_threshold=lif.at_threshold)
    elif isinstance(lif, Scaled):
        lif, gain = lif.neuron, np.asarray(lif.gain, np.float64)
    if not isinstance(lif, LIF):
        raise _inexpressible(call, f"its neuron ({type(lif).__name__}) is not one of LIF, IF and PLIF")
    if lif.at_threshold == "fire":
        raise _inexpressible(call, "its neuron fires at its threshold, but those of NIR fire above it")
    if lif.reset == "soft":
        raise _inexpressible(call, "its soft reset subtracts the threshold, but NIR resets to a value")
    decay, gain, threshold = (_per_neuron(value, call.shape) for value in (lif.decay, gain, lif.threshold))
    rest, leaks = np.zeros(decay.shape), decay < 1
    if leaks.any() and not leaks.all():
        raise _inexpressible(call, "its decay is 1 in some neurons of the layer, which NIR has as another kind")
    if leaks.all():
        tau, r = DT / (1 - decay), gain / (1 - decay)
        if lif.reset == "hard":
            return [nir.LIF(tau, r, rest, threshold, rest)]
        return [nir.LI(tau, r, rest), nir.Threshold(threshold)]
    if lif.reset == "hard":
        return [nir.IF(gain, threshold, rest)]
    return [nir.I(gain), nir.Threshold(threshold)]


def _per_neuron(value: Any, shape: Shape) -> Array:
    """Broadcast a value to all neurons, from the right as the neuron does, and return it channels first."""
    values = np.broadcast_to(np.asarray(value, np.float64), shape)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0) if len(shape) == 3 else values)


def _float32(values: ArrayLike) -> Array:
    return np.ascontiguousarray(values, np.float32)


def _inexpressible(call: Call, reason: str) -> ConfigError:
    return ConfigError(f"{call.name}: {reason}; NIR cannot express that, export it as stablehlo")
