"""Single nodes of NIR as operations of :mod:`csbp_jax.models.graph`; equations: nir_file.py.

NIR's shapes have channels first, ``[C, H, W]``, and no batch and time.
"""

import math
from typing import Any, NamedTuple

import nir
import numpy as np
from numpy.typing import ArrayLike, NDArray

from csbp_jax.config import ConfigError
from csbp_jax.models import graph as spec

Array = NDArray[Any]
Shape = tuple[int, ...]


def channels_last(shape: Shape) -> Shape:
    """Return ``[C, H, W]`` as ``[H, W, C]``, and any other shape unchanged."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


class Unreset(NamedTuple):
    """Integrator and the threshold on its membrane: a neuron that is not reset."""

    integrator: nir.LI | nir.I
    threshold: nir.Threshold


def input_shape(name: str, node: nir.Input) -> Shape:
    """Return the shape of an input.

    Raises:
      ConfigError: it is neither an image nor a vector.
    """
    sizes = np.asarray(node.input_type["input"])
    if sizes.shape not in ((1,), (3,)) or not np.issubdtype(sizes.dtype, np.integer) or (sizes < 1).any():
        raise ConfigError(
            f"{name}: its shape is {sizes.tolist()}, but must be (features,) or (channels, height, width)"
        )
    return tuple(int(size) for size in sizes)


def operation(
    name: str, node: nir.NIRNode | Unreset, shape: Shape, image: Shape, dt: float
) -> tuple[spec.Operation, Shape]:
    """Convert a node, and return the shape of its output too.

    Args:
      shape: of its input.
      image: shape of the image that was flattened to the input, channels last, unlike NIR's order; empty if none was.
      dt: seconds per time step.

    Raises:
      ConfigError: the node cannot be expressed; names it.
    """
    match node:
        case nir.Output():
            return spec.Identity(), shape
        case nir.Linear() | nir.Affine():
            return _dense(name, node, shape, image)
        case nir.Conv2d():
            return _conv(name, node, shape)
        case nir.AvgPool2d() | nir.SumPool2d():
            return _pool(name, node, shape)
        case nir.Scale():
            return spec.Scale(_per_neuron(name, "scale", node.scale, shape).astype(np.float32)), shape
        case nir.LIF() | nir.IF():
            return spec.Spiking(*_leak(name, node, shape, dt), _threshold(name, node.v_threshold, shape), "hard"), shape
        case Unreset(integrator, threshold):
            leak = _leak(name, integrator, shape, dt)
            return spec.Spiking(*leak, _threshold(name, threshold.threshold, shape), "none"), shape
        case nir.Threshold():  # a neuron without memory
            no_leak = np.zeros(()), np.ones(())
            return spec.Spiking(*no_leak, _threshold(name, node.threshold, shape), "none"), shape
        case nir.LI() | nir.I():
            return spec.Integrator(*_leak(name, node, shape, dt)), shape
    raise ConfigError(f"{name}: nodes of the kind {type(node).__name__} cannot be read")


def _leak(name: str, node: nir.NIRNode, shape: Shape, dt: float) -> tuple[Array, Array]:
    """Return decay and gain of a neuron or an integrator."""
    for field in ("v_leak", "v_reset"):
        if np.any(_per_neuron(name, field, getattr(node, field, 0), shape)):
            raise ConfigError(f"{name}: its {field} is not 0, the only value to which neurons here leak and are reset")
    r = _per_neuron(name, "r", node.r, shape)
    if isinstance(node, nir.IF | nir.I):
        return np.ones(()), _uniform(r * dt)
    tau = _per_neuron(name, "tau", node.tau, shape)
    if (tau < dt).any():
        raise ConfigError(f"{name}: its tau, {tau.min():g} s, is below the time step, {dt:g} s; pass the right dt")
    return _uniform(1 - dt / tau), _uniform(r * dt / tau)


def _threshold(name: str, value: ArrayLike, shape: Shape) -> Array:
    threshold = _uniform(_per_neuron(name, "threshold", value, shape))
    if (threshold <= 0).any():
        raise ConfigError(f"{name}: its threshold, {threshold.min():g}, is not above 0")
    return threshold


def _uniform(values: Array) -> Array:
    """Round constants to float32, and to a single one if all are equal."""
    rounded = np.asarray(values, np.float32)
    return rounded.reshape(-1)[0] if (rounded == rounded.reshape(-1)[0]).all() else rounded


def _dense(name: str, node: nir.NIRNode, shape: Shape, image: Shape) -> tuple[spec.Synapse, Shape]:
    weight = _floats(name, "weight", node.weight)
    if weight.ndim != 2 or len(shape) != 1 or weight.shape[1] != shape[0]:
        raise ConfigError(f"{name}: its weight of shape {weight.shape} does not fit an input of shape {shape}")
    bias = None
    if isinstance(node, nir.Affine):
        bias = _floats(name, "bias", node.bias)
        if bias.shape != weight.shape[:1]:
            raise ConfigError(f"{name}: its bias of shape {bias.shape} does not fit its weight of shape {weight.shape}")
    kernel = weight.T
    if image:
        height, width, channels = image
        kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
    return spec.Synapse(np.ascontiguousarray(kernel), bias), weight.shape[:1]


def _conv(name: str, node: nir.NIRNode, shape: Shape) -> tuple[spec.Synapse, Shape]:
    weight, bias = _floats(name, "weight", node.weight), _floats(name, "bias", node.bias)
    groups, stride, dilation = (
        _whole(name, "groups", node.groups),
        _pair(name, "stride", node.stride),
        _pair(name, "dilation", node.dilation),
    )
    if min(groups, *stride, *dilation) < 1:
        raise ConfigError(f"{name}: its groups, stride and dilation must be 1 or more")
    if weight.ndim != 4 or len(shape) != 3 or weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
        raise ConfigError(
            f"{name}: its weight of shape {weight.shape}, groups {groups}, does not fit an input of shape {shape}"
        )
    if bias.shape != weight.shape[:1]:
        raise ConfigError(f"{name}: its bias of shape {bias.shape} does not fit its weight of shape {weight.shape}")
    spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    padding = _padding(name, node.padding, spans, stride)
    size = [
        (n + sum(pad) - span - 1) // s + 1 for n, pad, span, s in zip(shape[1:], padding, spans, stride, strict=True)
    ]
    if min(size) < 1:
        raise ConfigError(f"{name}: an input of shape {shape} is too small for it")
    kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    return spec.Synapse(kernel, bias, stride, padding, dilation, groups), (weight.shape[0], *size)


def _padding(
    name: str, padding: Any, spans: list[int], stride: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(padding, str):
        if padding == "same" and stride == (1, 1):
            height, width = ((span // 2, span - span // 2) for span in spans)
            return height, width
        if padding != "valid":
            raise ConfigError(f"{name}: its padding {padding!r} with a stride of {stride} is not possible")
        padding = (0, 0)
    rows, columns = _pair(name, "padding", padding)
    if min(rows, columns) < 0:
        raise ConfigError(f"{name}: its padding is negative")
    return (rows, rows), (columns, columns)


def _pool(name: str, node: nir.NIRNode, shape: Shape) -> tuple[spec.Pool, Shape]:
    window, stride = _pair(name, "kernel_size", node.kernel_size), _pair(name, "stride", node.stride)
    if any(_pair(name, "padding", node.padding)):
        raise ConfigError(f"{name}: its padding is not 0, and whether padding counts in a mean is not defined")
    if len(shape) != 3 or min(*window, *stride) < 1 or any(n < k for n, k in zip(shape[1:], window, strict=True)):
        raise ConfigError(
            f"{name}: its window {window} with a stride of {stride} does not fit an input of shape {shape}"
        )
    size = [(n - k) // s + 1 for n, k, s in zip(shape[1:], window, stride, strict=True)]
    return spec.Pool(window, stride, isinstance(node, nir.SumPool2d)), (shape[0], *size)


def flatten(name: str, node: nir.Flatten, shape: Shape, channels_first: bool) -> tuple[spec.Operation, Shape]:
    """Convert a flattening of all axes.

    Raises:
      ConfigError: it flattens some axes only.
    """
    start, end = _whole(name, "start_dim", node.start_dim), _whole(name, "end_dim", node.end_dim)
    if len(shape) > 1 and (start != 0 or end not in (-1, len(shape) - 1)):
        raise ConfigError(f"{name}: it flattens axes {start} to {end} of {shape}, not all of them (0 to -1)")
    if len(shape) < 2:
        return spec.Identity(), shape
    return spec.Flatten(channels_first), (math.prod(shape),)


def _per_neuron(name: str, field: str, value: ArrayLike, shape: Shape) -> Array:
    """Return values of each neuron, in float64 and with channels last; a single one without axes.

    The file states the shape, so that to spread a single value over it could take any amount of memory.

    Raises:
      ConfigError: they are no finite numbers, or do not fit the shape.
    """
    values = _floats(name, field, value, np.float64)
    if values.shape != shape and values.size != 1:
        raise ConfigError(f"{name}: its {field} has the shape {values.shape}, but its input {shape}")
    if values.size == 1:
        return values.reshape(())
    return np.moveaxis(values, 0, -1) if len(shape) == 3 else values


def _floats(name: str, field: str, value: ArrayLike, dtype: Any = np.float32) -> Array:
    values = np.asarray(value)
    if not (np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)):
        raise ConfigError(f"{name}: its {field} holds no numbers, but {values.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused in the next line
        is_finite = np.isfinite(values.astype(np.float32)).all()
    if values.size == 0 or not is_finite:
        raise ConfigError(f"{name}: its {field} is empty or not finite in float32")
    return values.astype(dtype)


def _pair(name: str, field: str, value: ArrayLike) -> tuple[int, int]:
    values = np.asarray(value)
    if values.size not in (1, 2) or not np.issubdtype(values.dtype, np.integer):
        raise ConfigError(f"{name}: its {field} is not one or two whole numbers")
    first, *second = (int(n) for n in values.reshape(-1))
    return first, second[0] if second else first


def _whole(name: str, field: str, value: ArrayLike) -> int:
    if np.size(value) != 1:
        raise ConfigError(f"{name}: its {field} is not a whole number")
    return _pair(name, field, value)[0]
