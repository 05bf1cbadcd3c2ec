"""The parts of a layer as nodes of NIR: its synapse with the norm folded in, its neuron. Equations: graph.py."""

from typing import Any

import jax
import nir
import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.export.nir_links import Call
from csbp_jax.models import layers, norms
from csbp_jax.neurons import LIF
from csbp_jax.neurons.plif import PLIF

DT = 1e-4
"""Seconds a time step, where neurons leak."""


def first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``[H, W, C]`` as ``[C, H, W]``; other shapes as they are."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def pool(window: tuple[int, int]) -> nir.NIRNode:
    """Averaging over windows side by side."""
    return nir.AvgPool2d(np.array(window), np.array(window), np.array((0, 0)))


def flatten(shape: tuple[int, ...]) -> nir.NIRNode:
    """All axes but those of batch and time, which NIR does not count."""
    return nir.Flatten({"input": np.array(first(shape))}, start_dim=0, end_dim=-1)


def vote(outputs: int, classes: int) -> nir.NIRNode:
    """``layers.vote``: each class is the mean of its neighbouring outputs."""
    votes = outputs // classes
    return nir.Linear(np.repeat(np.eye(classes, dtype=np.float32), votes, axis=1) / np.float32(votes))


def synapse(call: Call, heard: tuple[int, ...], picture: tuple[int, ...], params: Any, stats: Any) -> nir.NIRNode:
    """A layer's convolution or product, its norm folded in (in float64, before it is rounded to float32).

    Args:
      heard: shape of the input.
      picture: shape of what was flattened on its way here, whose order NIR has otherwise; empty if nothing was.
    """
    factor, summand = _norm(call, params, stats) if hasattr(call.module, "norm") else (1.0, 0.0)
    if isinstance(call.module, layers.Norm):
        return _elementwise(factor, summand, heard)
    weights = params.get("conv", params.get("dense", params))
    kernel = np.asarray(weights["kernel"], np.float64) * factor
    bias = _float32(weights.get("bias", np.zeros(kernel.shape[-1])) * np.asarray(factor) + summand)
    if isinstance(call.module, layers.ConvNorm):
        weight = _float32(kernel.transpose(3, 2, 0, 1))
        return nir.Conv2d(heard[:2], weight, call.module.stride, call.module.kernel // 2, 1, 1, bias)
    if len(picture) == 3:
        kernel = kernel.reshape(*picture, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    return nir.Affine(_float32(kernel.T), bias)


def _elementwise(factor, summand, heard):
    weight = _float32(np.diag(factor))
    if len(heard) == 3:
        # One group a channel would do, but the types of nir 1.0 take the channels of a group for those of the input.
        return nir.Conv2d(heard[:2], weight[:, :, None, None], 1, 0, 1, 1, _float32(summand))
    return nir.Affine(weight, _float32(summand))


def _norm(call, params, stats):
    """Factor and summand of each channel in evaluation."""
    norm, params, stats = call.module.norm(parent=None), params["norm"], stats["norm"]
    if not isinstance(norm, norms.BatchNorm):
        raise ConfigError(_refused(call, f"its norm ({type(norm).__name__})", "has other factors at each time step"))
    gamma, beta, mean, var = (
        np.asarray(leaf, np.float64) for leaf in (params["scale"], params["bias"], stats["mean"], stats["var"])
    )
    factor = norm.gain * gamma / np.sqrt(var + norm.epsilon)
    scale = np.asarray(params.get("p", [1.0]), np.float64)
    if (scale != scale[0]).any():
        raise ConfigError(_refused(call, "its norm (TEBN)", "has another factor at each time step"))
    return scale[0] * factor, scale[0] * (beta - mean * factor)


def neuron(call: Call, params: Any) -> list[nir.NIRNode]:
    """A layer's neuron; none if it has none, an integrator and a threshold if it is not reset."""
    if call.neuron is None:
        return []
    own, gain = call.neuron, np.ones(())
    if isinstance(own, PLIF):
        gain = np.asarray(jax.nn.sigmoid(params["neuron"]["w"]), np.float64)
        own = LIF(1 - gain, own.threshold, reset=own.reset)
    if not isinstance(own, LIF):
        raise ConfigError(_refused(call, f"its neuron ({type(own).__name__})", "is none of LIF, IF and PLIF"))
    if own.reset == "soft":
        raise ConfigError(_refused(call, "its soft reset", "subtracts the threshold, where NIR sets to a value"))
    decay, gain, threshold = (_each(value, call.shape) for value in (own.decay, gain, own.threshold))
    rest, leaks = np.zeros(decay.shape), decay < 1
    if leaks.any() and not leaks.all():
        raise ConfigError(_refused(call, "its decay", "is 1 in a part of the layer, which is another kind of neuron"))
    if leaks.all():
        tau, r = DT / (1 - decay), gain / (1 - decay)
        whole, free = (lambda: nir.LIF(tau, r, rest, threshold, rest)), (lambda: nir.LI(tau, r, rest))
    else:
        whole, free = (lambda: nir.IF(gain, threshold, rest)), (lambda: nir.I(gain))
    return [whole()] if own.reset == "hard" else [free(), nir.Threshold(threshold)]


def _each(value, shape):
    """A value of every neuron, channels first; it broadcasts from the right, as the neuron has it."""
    whole = np.broadcast_to(np.asarray(value, np.float64), shape)
    return np.ascontiguousarray(np.moveaxis(whole, -1, 0) if len(shape) == 3 else whole)


def _float32(values):
    return np.ascontiguousarray(values, np.float32)


def _refused(call, what, why):
    return f"{call.name}: {what} {why}; NIR cannot say that, export it as stablehlo"
