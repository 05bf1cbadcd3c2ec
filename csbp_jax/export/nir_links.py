"""Which layer hears which: found by calling the network with every layer's answer replaced by random numbers.

What a layer then receives tells where it came from, beyond coincidence: it is the sum of some earlier answers, each
pooled, averaged over space or flattened on its way, or it is something else, which is said.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.taps import Aux

INPUT, OUTPUT = "input", "output"
_WHOLE = (layers.ConvNorm, layers.Spike, layers.Norm, layers.Linear, layers.Dense, layers.Recurrent, nn.Dense)


class Link(NamedTuple):
    """``sources`` summed, and what is done to the sum on its way: ``""``, ``"pool"``, ``"mean"``, ``"flat"``,
    ``"pool flat"``, or ``"vote"``."""

    sources: tuple[str, ...]
    way: str


class Call(NamedTuple):
    """A layer of the network, in the order of their calls.

    module, neuron: unbound; the neuron as the layer was given it, None where it has none.
    shape: of what it answers, ``[...]`` without batch and time.
    """

    name: str
    module: nn.Module
    neuron: Any
    shape: tuple[int, ...]
    link: Link


_WAYS: dict[str, Callable[[Any], Any]] = {
    "": lambda x: x,
    "flat": layers.flat,
    "pool": lambda x: layers.pool(_picture(x)),
    "pool flat": lambda x: layers.flat(layers.pool(_picture(x))),
    "mean": lambda x: layers.space_mean(_picture(x)),
}


def _picture(x):
    if x.ndim != 5:
        raise ValueError("no picture")
    return x


def trace(apply: Callable[..., Any], variables: Any, shape: tuple[int, ...]) -> tuple[list[Call], Link]:
    """The layers of a network in evaluation, and the link of its logits.

    Args:
      shape: of an input, ``[T, ...]``.

    Raises:
      ConfigError: what a layer receives is no such sum; names the layer.
    """
    answered = _answers(apply, variables, shape)
    random, calls = np.random.default_rng(0), []
    answers = {INPUT: random.normal(size=(1, *shape)).astype(np.float32)}

    def answer(module, call, args, kwargs):
        name, link = str(module.name), _link(str(module.name), answers, args[0])
        neuron = args[2] if isinstance(module, _SPIKING) else None
        calls.append(Call(name, module.clone(parent=None), neuron, answered[name][2:], link))
        answers[name] = random.normal(size=answered[name]).astype(np.float32)
        told = jnp.asarray(answers[name])
        return told if isinstance(module, nn.Dense) else (told, Aux())

    logits, _ = _intercepted(answer, apply, variables, answers[INPUT])
    return calls, _link(OUTPUT, answers, logits)


def _answers(apply, variables, shape):
    """Shapes of the layers' answers, ``[1, T, ...]``; nothing is computed."""
    shapes = {}

    def note(module, call, args, kwargs):
        out = call(*args, **kwargs)
        shapes[str(module.name)] = (out[0] if isinstance(out, tuple) else out).shape
        return out

    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    jax.eval_shape(lambda x: _intercepted(note, apply, variables, x), x)
    return shapes


def _intercepted(instead, apply, variables, x):
    """``apply(variables, x)`` with ``instead(module, call, args, kwargs)`` in place of its layers' calls."""

    def layer(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, _WHOLE) or len(module.path) > 1:
            return call(*args, **kwargs)
        return instead(module, call, args, kwargs)

    with nn.intercept_methods(layer):
        return apply(variables, jnp.asarray(x))


_SPIKING = (layers.ConvNormLIF, layers.Spike, layers.Dense, layers.Recurrent)


def _link(name, answers, received):
    """One way for all sources: pooling a sum is pooling its parts."""
    received = np.asarray(received)
    votes = {"vote": lambda x: layers.vote(x, x.shape[-1] // received.shape[-1])} if name == OUTPUT else {}
    for way, change in {**_WAYS, **votes}.items():
        heard = {source: _changed(change, answer, received.shape) for source, answer in answers.items()}
        heard = {source: rows for source, rows in heard.items() if rows is not None}
        if not heard:
            continue
        columns = np.stack([rows.ravel() for rows in heard.values()], axis=1).astype(np.float64)
        weights = np.linalg.lstsq(columns, received.ravel().astype(np.float64), rcond=None)[0].round()
        if set(weights) <= {0.0, 1.0} and np.allclose(columns @ weights, received.ravel(), atol=1e-4):
            return Link(tuple(source for source, weight in zip(heard, weights, strict=True) if weight), way)
    raise ConfigError(
        f"{name}: hears no sum of other layers, pooled by averaging or flattened, but something that NIR cannot say "
        "(maximum pooling, AND or IAND of spikes, a layer of another kind); export it as stablehlo"
    )


def _changed(change, answer, shape):
    """None where it cannot come to this shape; tried on shapes first, since there may be many answers."""
    try:
        if jax.eval_shape(change, jax.ShapeDtypeStruct(answer.shape, answer.dtype)).shape != shape:
            return None
    except (ConfigError, ValueError, TypeError, ZeroDivisionError):
        return None
    return np.asarray(change(jnp.asarray(answer)))
