"""Connections between the layers of a network, found by calling it with every layer's output replaced by noise.

The input that a layer then receives determines where it came from: it is the sum of some earlier outputs, each pooled,
averaged over space or flattened, or it is something else, which is an error. A coincidence has probability zero.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.module import InterceptorContext
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.delays import DelayedDense
from csbp_jax.models.taps import Aux
from csbp_jax.runs.restore import Apply

INPUT, OUTPUT = "input", "output"
Shape = tuple[int, ...]
Transform = Callable[[jax.Array], jax.Array]
# ``replace(module, call, args, kwargs)`` in place of ``call(*args, **kwargs)``
Replace = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
_SPIKING = (layers.ConvNormLIF, layers.Spike, layers.Dense, layers.Recurrent, DelayedDense)
_LAYERS = (*_SPIKING, layers.ConvNorm, layers.Norm, layers.Linear, nn.Dense)


class Link(NamedTuple):
    """Input of a layer: the sum of the outputs of ``sources``, transformed.

    transform: ``""``, ``"pool"``, ``"mean"``, ``"flat"``, ``"pool flat"``, or ``"vote"``.
    """

    sources: tuple[str, ...]
    transform: str


class Call(NamedTuple):
    """Call of a layer, as the network makes it.

    module: unbound.
    neuron: the neuron passed to the layer; None if it has none.
    shape: of its output, ``[...]`` without batch and time.
    """

    name: str
    module: nn.Module
    neuron: Any
    shape: Shape
    link: Link


def trace(apply: Apply, variables: Any, shape: Shape) -> tuple[list[Call], Link]:
    """Return the layers of a network in evaluation mode, in the order of their calls, and the link of its logits.

    Args:
      shape: of an input, ``[T, ...]``.

    Raises:
      ConfigError: the input of a layer is not such a sum, or it is called twice, or has a name of the graph's own
        nodes; names the layer.
    """
    shapes = _output_shapes(apply, variables, shape)
    random = np.random.default_rng(0)
    calls: list[Call] = []
    # An input is at least so large, and least squares needs as many numbers as there are outputs that could add up.
    batch = math.ceil(len(shapes) / min(s[1] * s[-1] for s in shapes.values()))
    outputs: dict[str, NDArray[Any]] = {INPUT: random.normal(size=(batch, *shape)).astype(np.float32)}

    def replace(module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = str(module.name)
        if name in (INPUT, OUTPUT):
            raise name_taken(name)
        if name in outputs:
            raise ConfigError(f"{name}: is called twice, so NIR cannot express it; export it as stablehlo")
        link = _link(name, outputs, args[0])
        neuron = args[2] if isinstance(module, _SPIKING) else None
        calls.append(Call(name, module.clone(parent=None), neuron, shapes[name][2:], link))
        outputs[name] = random.normal(size=(batch, *shapes[name][1:])).astype(np.float32)
        noise = jnp.asarray(outputs[name])
        return noise if isinstance(module, nn.Dense) else (noise, Aux())

    logits, _ = _apply_replaced(replace, apply, variables, jnp.asarray(outputs[INPUT]))
    return calls, _link(OUTPUT, outputs, logits)


def name_taken(name: str) -> ConfigError:
    """Make the error of a layer whose node would replace another one of the graph."""
    return ConfigError(
        f"{name}: NIR's graph has a node of this name already; give the layer another one, or export it as stablehlo"
    )


def _output_shapes(apply: Apply, variables: Any, shape: Shape) -> dict[str, Shape]:
    """Return the shapes of the layers' outputs and of the logits, ``[1, T, ...]``, without computing them."""
    shapes: dict[str, Shape] = {}

    def record(module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = call(*args, **kwargs)
        shapes[str(module.name)] = (out[0] if isinstance(out, tuple) else out).shape
        return out

    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    logits, _ = jax.eval_shape(lambda x: _apply_replaced(record, apply, variables, x), x)
    return shapes | {OUTPUT: logits.shape}


def _apply_replaced(replace: Replace, apply: Apply, variables: Any, x: jax.Array) -> tuple[jax.Array, Aux]:
    """Call ``apply(variables, x)`` with ``replace`` in place of the calls of the network's layers."""

    def intercept(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: InterceptorContext
    ) -> Any:
        module = context.module
        # A path of one name: the layers of the network, but not the modules inside a layer.
        if context.method_name != "__call__" or not isinstance(module, _LAYERS) or len(module.path) > 1:
            return call(*args, **kwargs)
        return replace(module, call, args, kwargs)

    with nn.intercept_methods(intercept):
        return apply(variables, x)


def _spatial(x: jax.Array) -> jax.Array:
    if x.ndim != 5:
        raise ValueError("not [B, T, H, W, C]")
    return x


_TRANSFORMS: dict[str, Transform] = {
    "": lambda x: x,
    "flat": layers.flat,
    "pool": lambda x: layers.pool(_spatial(x)),
    "pool flat": lambda x: layers.flat(layers.pool(_spatial(x))),
    "mean": lambda x: layers.space_mean(_spatial(x)),
}


def _link(name: str, outputs: dict[str, NDArray[Any]], received: jax.Array) -> Link:
    """Solve for the sources of an input by least squares, with one transform of all of them.

    Raises:
      ConfigError: no transform gives a sum of outputs.
    """
    target = np.asarray(received)
    transforms = dict(_TRANSFORMS)
    if name == OUTPUT:
        transforms["vote"] = lambda x: layers.vote(x, x.shape[-1] // target.shape[-1])
    for transform, function in transforms.items():
        transformed = {source: _transformed(function, output, target.shape) for source, output in outputs.items()}
        candidates = {source: rows for source, rows in transformed.items() if rows is not None}
        if not candidates:
            continue
        columns = np.stack([rows.ravel() for rows in candidates.values()], axis=1).astype(np.float64)
        weights = np.linalg.lstsq(columns, target.ravel().astype(np.float64), rcond=None)[0].round()
        if set(weights) <= {0.0, 1.0} and np.allclose(columns @ weights, target.ravel(), atol=1e-4):
            sources = tuple(source for source, weight in zip(candidates, weights, strict=True) if weight)
            return Link(sources, transform)
    raise ConfigError(
        f"{name}: its input is not a sum of layers, average-pooled or flattened, so NIR cannot express it (maximum "
        "pooling, AND or IAND of spikes, a layer of another kind); export it as stablehlo"
    )


def _transformed(function: Transform, output: NDArray[Any], shape: Shape) -> NDArray[Any] | None:
    """Transform an output; None if the result would not have this shape."""
    # On shapes first: most transforms of most outputs do not fit.
    try:
        if jax.eval_shape(function, jax.ShapeDtypeStruct(output.shape, output.dtype)).shape != shape:
            return None
    except (ConfigError, ValueError, TypeError, ZeroDivisionError):
        return None
    return np.asarray(function(jnp.asarray(output)))
