"""Spiking layers in Linen: synapse, norm, neuron. Sequences are ``[B, T, ...]``, channels last.

A layer is called as ``layer(x, train, neuron, probe)`` and returns its output and an :class:`Aux` (probes.py). The
neuron is any ``neuron(x, membrane=None) -> (spikes, membrane)``, or a Linen module that gives one when called with the
number of channels, and so has parameters of its own in each layer (circuits.PLIF).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from csbp_jax.config import ConfigError
from csbp_jax.models import norms
from csbp_jax.models.precision import bias_apart, to_compute_dtype, to_float32
from csbp_jax.models.taps import Aux, Neuron, Probe, apply_taps, run_neuron
from csbp_jax.neurons.recurrent import Feedback

Initializer = nn.initializers.Initializer

HE_FAN_IN = nn.initializers.he_normal()
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)); biases have it whatever the weights have.
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ConvNorm(nn.Module):
    """Convolution and norm, without a neuron: a current to be added to others.

    kernel: size of the square kernel, odd; stride 1 keeps the size of the picture.
    time_steps: a static input is shown for so many, between convolution and norm.
    dtype: see precision.py; here and below.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    use_bias: bool = False
    kernel_init: Initializer = HE_FAN_IN
    norm: norms.Norm = norms.BatchNorm
    time_steps: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train)
        return tensors["norm"], apply_taps(str(self.name), tensors, probe)

    def tensors(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        synapse = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            padding=self.kernel // 2,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            bias_init=torch_bias(self.kernel**2 * x.shape[-1]),
            dtype=self.dtype,
            promote_dtype=bias_apart,
            conv_general_dilated=_convolution,
            name="conv",
        )
        h = repeat_over_time(to_float32(synapse(x)), self.time_steps)
        return {"conv": h, "norm": self.norm(name="norm")(h, train)}


class ConvNormLIF(ConvNorm):
    """Convolution, norm, neuron."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train)
        current = to_compute_dtype(tensors["norm"], self.dtype)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, self.features), probe)


class Spike(nn.Module):
    """A neuron on a current, or on the sum of some; a static current is shown for ``time_steps``."""

    time_steps: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = {"current": repeat_over_time(x, self.time_steps)}
        current = to_compute_dtype(tensors["current"], self.dtype)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, x.shape[-1]), probe)


class Norm(nn.Module):
    """A norm and nothing else, on a shortcut."""

    norm: norms.Norm = norms.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        current = self.norm(name="norm")(to_float32(x), train)
        return current, apply_taps(str(self.name), {"norm": current}, probe)


class Linear(nn.Module):
    """Fully connected, with bias and PyTorch's initial weights, and nothing else."""

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Dense(
            self.features,
            kernel_init=TORCH,
            bias_init=torch_bias(x.shape[-1]),
            dtype=self.dtype,
            promote_dtype=bias_apart,
            name="dense",
        )
        h = synapse(x)
        return h, apply_taps(str(self.name), {"dense": h}, probe)


class Dense(nn.Module):
    """Fully connected, norm, neuron."""

    features: int
    norm: norms.Norm = norms.BatchNorm
    time_steps: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Dense(self.features, use_bias=False, kernel_init=HE_FAN_IN, dtype=self.dtype, name="dense")
        h = repeat_over_time(to_float32(synapse(x)), self.time_steps)
        tensors = {"dense": h, "norm": self.norm(name="norm")(h, train)}
        current = to_compute_dtype(tensors["norm"], self.dtype)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, self.features), probe)


class Recurrent(nn.Module):
    """Fully connected, norm, neuron whose spikes come back: its current is ``norm(W x[t]) + V s[t-1]``."""

    features: int
    norm: norms.Norm = norms.BatchNorm
    time_steps: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Dense(self.features, use_bias=False, kernel_init=HE_FAN_IN, dtype=self.dtype, name="dense")
        feedback = self.param("feedback", nn.initializers.orthogonal(), (self.features, self.features))
        h = repeat_over_time(to_float32(synapse(x)), self.time_steps)
        tensors = {"dense": h, "norm": self.norm(name="norm")(h, train)}
        drive = to_compute_dtype(tensors["norm"], self.dtype)
        return run_neuron(str(self.name), tensors, drive, Feedback(bind_neuron(neuron, self.features), feedback), probe)


def bind_neuron(neuron: Neuron, channels: int) -> Neuron:
    """The neuron itself, or, if it is a module, the one that this layer's copy of it gives."""
    return neuron.copy(name="neuron")(channels) if isinstance(neuron, nn.Module) else neuron


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's initial biases, ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -bound, bound)


def repeat_over_time(h: jax.Array, time_steps: int) -> jax.Array:
    """Direct coding: a static input (T = 1), already through its first synapse, is shown for ``time_steps`` steps."""
    if h.shape[1] != 1:
        return h
    return jnp.broadcast_to(h, (h.shape[0], time_steps, *h.shape[2:]))


def pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling of ``[B, T, H, W, C]``; a last odd row or column is left out."""
    return nn.avg_pool(_poolable(x), (2, 2), (2, 2))


def max_pool(x: jax.Array, size: int = 2, stride: int = 2, pad: int = 0) -> jax.Array:
    """Maximum over windows of ``[B, T, H, W, C]``; a last row or column that fills none is left out.

    Of equal numbers in a window the first has the gradient.
    """
    _poolable(x)
    if jax.default_backend() == "cpu":
        return _max_of_shifts(x, size, stride, pad)
    return nn.max_pool(x, (1, size, size), (1, stride, stride), ((0, 0), (pad, pad), (pad, pad)))


def _max_of_shifts(x, size, stride, pad):
    """The same. XLA on CPU finds and scatters a window's gradient one by one, ten times slower."""
    pads = ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    rows, columns = ((n - size) // stride * stride + 1 for n in x.shape[2:4])
    largest = x[:, :, :rows:stride, :columns:stride]
    for i, j in itertools.islice(itertools.product(range(size), repeat=2), 1, None):
        shifted = x[:, :, i : i + rows : stride, j : j + columns : stride]
        largest = jnp.where(shifted > largest, shifted, largest)
    return largest


def _convolution(x: jax.Array, kernel: jax.Array, strides: Sequence[int], *rest: Any, **options: Any) -> jax.Array:
    """``lax.conv_general_dilated`` of ``[N, H, W, C]``; on CPU, of a picture that zeros make large enough, cut back.

    XLA on CPU computes a convolution or its gradient a hundred times slower where its input is smaller than the kernel.
    """
    sizes = x.shape[1:3]
    # For which the output is as large as the kernel, too.
    missing = [max(0, (k - 1) * s + 1 - n) for n, k, s in zip(sizes, kernel.shape, strides, strict=False)]
    if jax.default_backend() != "cpu" or max(missing) == 0 or max(sizes) == 1:
        return lax.conv_general_dilated(x, kernel, strides, *rest, **options)
    height, width = (-(-n // s) for n, s in zip(sizes, strides, strict=True))
    # Without the barriers XLA would fold these zeros, and backward those of the cut, into the convolution's padding.
    larger = lax.optimization_barrier(jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))))
    out = lax.conv_general_dilated(larger, kernel, strides, *rest, **options)
    return lax.optimization_barrier(out)[:, :height, :width]


def _poolable(x):
    if min(x.shape[2:4]) < 2:
        raise ConfigError(
            f"model.input_shape: too small for this network; before a pooling the picture has {x.shape[2]}x{x.shape[3]}"
        )
    return x


def space_mean(x: jax.Array) -> jax.Array:
    """``[B, T, H, W, C]`` to ``[B, T, C]``, in float32 or wider."""
    return to_float32(x).mean((2, 3))


def flat(x: jax.Array) -> jax.Array:
    """``[B, T, ...]`` to ``[B, T, features]``."""
    return x.reshape(*x.shape[:2], -1)


def vote(x: jax.Array, votes: int) -> jax.Array:
    """``[..., C * votes]`` to ``[..., C]``: each class is the mean of its ``votes`` neighbouring outputs."""
    return x.reshape(*x.shape[:-1], -1, votes).mean(-1)
