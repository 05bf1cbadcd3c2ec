"""Spiking layers as Linen modules: synapse, norm, neuron. Sequences are ``[B, T, ...]``, channels last.

A layer is called as ``layer(x, train, neuron, probe)`` and returns its output and an :class:`Aux` (taps.py). The neuron
is any ``neuron(x, state=None) -> (spikes, state)`` (csbp_jax/neurons/protocol.py), or a Linen module that returns one
when called with the number of channels, and so has its own parameters in each layer
(:class:`csbp_jax.neurons.plif.PLIF`).
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from csbp_jax.config import ConfigError
from csbp_jax.models import norms
from csbp_jax.models.precision import promote_without_bias, to_compute_dtype, to_float32
from csbp_jax.models.taps import Aux, Probe, apply_taps, run_neuron
from csbp_jax.neurons import Neuron
from csbp_jax.neurons.plif import Scaled
from csbp_jax.neurons.recurrent import Feedback
from csbp_jax.xla import convolution, dense, memory, pooling
from csbp_jax.xla.static import repeat_over_time

Initializer = nn.initializers.Initializer

HE_FAN_IN = nn.initializers.he_normal()
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)); biases have it whatever the initialiser of the weights.
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# That of vision transformers, timm's trunc_normal_(std=0.02), which truncates at 100 standard deviations.
NORMAL = nn.initializers.normal(0.02)


class ConvNorm(nn.Module):
    """Convolution and norm without a neuron: a current to be added to others.

    kernel: size of the square kernel, odd; stride 1 preserves the size of the image.
    time_steps: the output of the convolution of a static input is repeated over these.
    dtype: see precision.py, for this layer and those below.
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
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train, probe)
        return tensors["norm"], apply_taps(str(self.name), tensors, probe)

    def tensors(self, x: jax.Array, train: bool, probe: Probe) -> dict[str, jax.Array]:
        """Compute the outputs of convolution and norm."""
        synapse = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            padding=self.kernel // 2,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            bias_init=torch_bias(self.kernel**2 * x.shape[-1]),
            dtype=self.dtype,
            promote_dtype=promote_without_bias,
            conv_general_dilated=functools.partial(convolution.convolution, time_steps=x.shape[1]),
            name="conv",
        )
        h = to_float32(synapse(x))
        currents = norms.over_time(self.norm(name="norm"), h, train, self.time_steps, probe.lengths)
        return {"conv": repeat_over_time(h, self.time_steps), "norm": currents}


class ConvNormLIF(ConvNorm):
    """Convolution, norm and neuron."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train, probe)
        current = to_compute_dtype(tensors["norm"], self.dtype)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, self.features), probe)


class Spike(nn.Module):
    """Neuron on a current, or on a sum of currents; a static current is repeated over ``time_steps``.

    threshold: factor of the neuron's threshold; a neuron that is no dataclass with a field ``threshold`` ignores it.
    """

    time_steps: int = 1
    dtype: Dtype | None = None
    threshold: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = {"current": repeat_over_time(x, self.time_steps)}
        current = repeat_over_time(x, self.time_steps, self.dtype)
        neuron = scale_threshold(neuron, self.threshold)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, x.shape[-1]), probe)


class Norm(nn.Module):
    """Norm alone, for a shortcut."""

    norm: norms.Norm = norms.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        current = norms.over_time(self.norm(name="norm"), to_float32(x), train, x.shape[1], probe.lengths)
        return current, apply_taps(str(self.name), {"norm": current}, probe)


class Linear(nn.Module):
    """Fully connected synapse alone, with PyTorch's initial weights unless others are chosen."""

    features: int
    dtype: Dtype | None = None
    use_bias: bool = True
    kernel_init: Initializer = TORCH
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        h = to_float32(dense_synapse(self, x.shape[-1])(x))
        return h, apply_taps(str(self.name), {"dense": h}, probe)


class DenseNorm(nn.Module):
    """Fully connected synapse and norm without a neuron, on the last axis: a current to be added to others.

    bias_init: None for PyTorch's.
    """

    features: int
    norm: norms.Norm = norms.BatchNorm
    time_steps: int = 1
    dtype: Dtype | None = None
    use_bias: bool = False
    kernel_init: Initializer = HE_FAN_IN
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train, probe)
        return tensors["norm"], apply_taps(str(self.name), tensors, probe)

    def tensors(self, x: jax.Array, train: bool, probe: Probe) -> dict[str, jax.Array]:
        """Compute the outputs of synapse and norm."""
        h = to_float32(dense_synapse(self, x.shape[-1])(x))
        currents = norms.over_time(self.norm(name="norm"), h, train, self.time_steps, probe.lengths)
        return {"dense": repeat_over_time(h, self.time_steps), "norm": currents}


class Dense(DenseNorm):
    """Fully connected synapse, norm and neuron."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train, probe)
        current = to_compute_dtype(tensors["norm"], self.dtype)
        return run_neuron(str(self.name), tensors, current, bind_neuron(neuron, self.features), probe)


class Recurrent(DenseNorm):
    """Fully connected synapse, norm and recurrent neuron, whose current is ``norm(W x[t]) + V s[t-1]``."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron | nn.Module, probe: Probe) -> tuple[jax.Array, Aux]:
        tensors = self.tensors(x, train, probe)
        current = to_compute_dtype(tensors["norm"], self.dtype)
        weights = self.param("feedback", nn.initializers.orthogonal(), (self.features, self.features))
        feedback = Feedback(bind_neuron(neuron, self.features), weights)
        return run_neuron(str(self.name), tensors, current, feedback, probe)


def dense_synapse(layer: Linear | DenseNorm, fan_in: int) -> nn.Dense:
    """Return the fully connected synapse of a layer's options, within the layer's call."""
    return nn.Dense(
        layer.features,
        use_bias=layer.use_bias,
        kernel_init=layer.kernel_init,
        bias_init=layer.bias_init or torch_bias(fan_in),
        dtype=layer.dtype,
        promote_dtype=promote_without_bias,
        dot_general=_dot_general,
        name="dense",
    )


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): each example's branch is dropped with probability ``rate``.

        y = x b / (1 - rate),    b ~ Bernoulli(1 - rate) for each example, the same at all time steps and elements

    In evaluation, and at rate 0, it is the identity. Its key is that of dropout, so a function of (seed, step).
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Drop branches of ``x [B, ...]`` in training."""
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)), deterministic=not train)(x)


def drop_path_rates(rate: float, blocks: int) -> tuple[float, ...]:
    """Return the rate of each of ``blocks`` residual blocks: linear in depth, from 0 at the first to ``rate``.

    A single block is the last one, and has ``rate``.
    """
    return tuple(rate * block / (blocks - 1) for block in range(blocks)) if blocks > 1 else (rate,)


def _dot_general(*operands: Any, **options: Any) -> jax.Array:
    return memory.save(dense.product(*operands, **options))


def bind_neuron(neuron: Neuron | nn.Module, channels: int) -> Neuron:
    """Return the neuron, or, for a module, the neuron that this layer's own copy of the module returns."""
    return neuron.copy(name="neuron")(channels) if isinstance(neuron, nn.Module) else neuron


def scale_threshold(neuron: Any, factor: float) -> Any:
    """Return the neuron, or the module of neurons, with its threshold multiplied by ``factor``."""
    if isinstance(neuron, Scaled):
        return dataclasses.replace(neuron, neuron=scale_threshold(neuron.neuron, factor))
    fields = {field.name for field in dataclasses.fields(neuron)} if dataclasses.is_dataclass(neuron) else set()
    if factor == 1 or "threshold" not in fields:
        return neuron
    threshold = neuron.threshold * factor
    if isinstance(neuron, nn.Module):  # replace would attach it to the network once more, by a name that is taken
        return neuron.clone(threshold=threshold)
    return dataclasses.replace(neuron, threshold=threshold)


def torch_bias(fan_in: int) -> Initializer:
    """Return PyTorch's initialiser of biases, ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -bound, bound)


def pool(x: jax.Array) -> jax.Array:
    """Apply 2x2 average pooling to ``[B, T, H, W, C]``; an odd last row or column is dropped.

    Raises:
      ConfigError: height or width is below 2.
    """
    _check_poolable(x)
    return nn.avg_pool(x, (2, 2), (2, 2))


def max_pool(x: jax.Array, size: int = 2, stride: int = 2, pad: int = 0) -> jax.Array:
    """Apply max pooling to ``[B, T, H, W, C]``; a last row or column that fills no window is dropped.

    The gradient of a window goes to the first of its largest numbers.

    Raises:
      ConfigError: height or width is below 2.
    """
    _check_poolable(x)
    return pooling.max_pool(x, size, stride, pad)


def _check_poolable(x: jax.Array) -> None:
    if min(x.shape[2:4]) < 2:
        raise ConfigError(
            "model.input_shape: too small for this network; "
            f"before a pooling layer the image has {x.shape[2]}x{x.shape[3]} pixels"
        )


def space_mean(x: jax.Array) -> jax.Array:
    """Average ``[B, T, H, W, C]`` over space to ``[B, T, C]``, in float32 or wider."""
    return to_float32(x).mean((2, 3))


def space_sum(x: jax.Array) -> jax.Array:
    """Sum ``[B, T, H, W, C]`` over space to ``[B, T, 1, 1, C]``, in float32 or wider."""
    return to_float32(x).sum((2, 3), keepdims=True)


def flat(x: jax.Array) -> jax.Array:
    """Flatten ``[B, T, ...]`` to ``[B, T, features]``."""
    return x.reshape(*x.shape[:2], -1)


def vote(x: jax.Array, votes: int) -> jax.Array:
    """Average ``[..., C * votes]`` to ``[..., C]``: each class is the mean of its ``votes`` neighbouring outputs."""
    return x.reshape(*x.shape[:-1], -1, votes).mean(-1)
