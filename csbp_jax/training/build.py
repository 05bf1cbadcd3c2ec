"""From a config, and a user's own parts, to what a run is made of: model, optimiser, loss, term, data."""

import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from csbp_jax import controls, data, learner, losses, models
from csbp_jax.config import Config, ConfigError, replaced
from csbp_jax.data.user import arrays
from csbp_jax.learner import optimizer
from csbp_jax.models.taps import Aux
from csbp_jax.training.plugin_file import defined_in_plugin, plugin_frames
from csbp_jax.training.plugins import Own

TRACED: dict[str, Any] = {
    "seed": 0,
    "chaos.z0": (0.0,),
    "chaos.beta": 1.0,
    "chaos.target": 0.5,
    "chaos.scale": 1.0,
    "optimizer.lr": 0.0,
}
"""Fields that vary within one compilation of a sweep, with a value for each."""


class TracedPlaceholder:
    """Stands for a value of TRACED in the config that own functions see: it is no number, so that its use fails."""

    def __init__(self, field: str):
        self.field = field

    def __repr__(self) -> str:
        return f"<{self.field}: one compilation has many values of it, so own parts cannot know it>"


class Assembled(NamedTuple):
    """For ``learner.make``."""

    model: Any
    tx: optax.GradientTransformation
    loss: learner.Loss
    term: Callable[..., jax.Array]


def build(config: Config, own: Own, steps_per_epoch: int) -> Assembled:
    """Of the config, where the user has no own.

    Raises:
      ConfigError: an own part is not what it should be; tells what was expected.
    """
    if own.model and config.weights:
        raise ConfigError(f"weights: {config.weights}, but {own.place} has its own model, whose names nobody knows")
    if own.term and config.chaos.term == "cbp":
        raise ConfigError(f"chaos.term: cbp is no term, but {own.place} has its own; take one of them")
    seen = _seen(config)
    neuron = _call(own, "neuron", seen) if own.neuron else models.neuron(config.model.neuron)
    model = _call(own, "model", seen, neuron) if own.model else models.build(config.model, neuron)
    tx = optimizer.build(config.optimizer, config.epochs, steps_per_epoch)
    made = Assembled(
        model=model,
        tx=_call(own, "control", seen, tx) if own.control else tx,
        loss=_call(own, "loss", seen) if own.loss else losses.build(config.loss),
        term=_call(own, "term", seen) if own.term else controls.TERMS[config.chaos.term],
    )
    _check(config, own, neuron, made)
    return made


def load_data(config: Config, own: Own, data_dir: str | pathlib.Path) -> tuple[dict[str, Any], str]:
    """The three parts of the data, and what changes when their records do.

    Raises:
      ConfigError: as ``data.load``, or own data are not what they should be.
    """
    if not own.data:
        return data.load(config, data_dir), data.fingerprint(config, data_dir)
    parts = arrays.sources(_call(own, "data", _seen(config), pathlib.Path(data_dir)), config, own.place)
    if config.data.workers and any(defined_in_plugin(type(source.source)) for source in parts.values()):
        raise ConfigError(
            f"data.workers: {config.data.workers} is not possible for a source that {own.place} defines, which other "
            "processes do not know; take data.threads"
        )
    return parts, arrays.fingerprint(parts)


def class_names(config: Config, own: Own, parts: dict[str, Any], data_dir: str | pathlib.Path) -> list[str]:
    """The classes' names in the order of their labels; of own data as the train part's ``class_names`` has them."""
    if not own.data:
        return data.classes(config, data_dir)
    names = [str(name) for name in parts["train"].class_names]
    return names if len(names) == config.model.classes else [str(n) for n in range(config.model.classes)]


def _seen(config):
    """What own functions see: they are called once for all members of a sweep that differ in what is traced."""
    for field in TRACED:
        config = replaced(config, field, TracedPlaceholder(field))
    return config


def _call(own, part, *arguments):
    function = getattr(own, part)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        names = {"data": "config, data_dir", "model": "config, neuron", "control": "config, tx"}.get(part, "config")
        raise ConfigError(f"{own.place}: {part} cannot be called so; expected is {part}({names})") from None
    except ValueError:  # has no signature to be told
        pass
    return function(*arguments)


def _check(config, own, neuron, made):
    """Each own part once, on shapes; nothing is computed."""
    x = jax.ShapeDtypeStruct((2, config.model.time_steps, 3), jnp.float32)
    if own.neuron and not hasattr(neuron, "init"):  # a Linen module gives its neuron within a network alone
        expected = "neuron(x [B, T, ...], membrane=None) -> (spikes like x, membrane [B, ...])"
        told = _shapes(own, "neuron", expected, neuron, x)
        if told != [x.shape, (2, 3)]:
            raise ConfigError(f"{own.place}: neuron gives {told} for x {x.shape}; expected is {expected}")
    if own.model:
        _check_model(config, own, made.model)
    if own.loss:
        classes = config.model.classes or 2
        logits = jax.ShapeDtypeStruct((2, config.model.time_steps, classes), jnp.float32)
        soft = config.loss.smoothing or {"mixup", "cutmix"} & set(config.data.augment)
        labels = jax.ShapeDtypeStruct((2, classes), jnp.float32) if soft else jax.ShapeDtypeStruct((2,), jnp.int32)
        where = jax.ShapeDtypeStruct((2,), bool)
        expected = "loss(logits [B, T, C], labels, where=None) -> a scalar"
        _scalar(
            own, "loss", expected, lambda o, y, w: (made.loss(o, y), made.loss(o, y, where=w)), logits, labels, where
        )
    if own.term:
        chaos = config.chaos
        expected = "term(h, target, scale, *, cut, reduce) -> a scalar"
        _scalar(own, "term", expected, lambda h: made.term(h, 0.5, 1.0, cut=chaos.cut, reduce=chaos.reduce), x)
    if own.control and not (hasattr(made.tx, "init") and hasattr(made.tx, "update")):
        raise ConfigError(f"{own.place}: control gives a {type(made.tx).__name__}; expected is an optax transformation")


def _check_model(config, own, model):
    if not (hasattr(model, "init") and hasattr(model, "apply")):
        raise ConfigError(f"{own.place}: model gives a {type(model).__name__}; expected is a flax.linen Module")
    shape, steps, classes = config.model.input_shape, config.model.time_steps, config.model.classes
    key, x = jax.random.key(0), jax.ShapeDtypeStruct((2, 1, *shape), jnp.float32)
    expected = f"(logits {(2, steps, classes)}, csbp_jax.models.taps.Aux) for x {x.shape}"
    call = functools.partial(jax.eval_shape, lambda key, x: model.init_with_output(key, x, False)[0])
    told = _told(own, "model", expected, call, key, x)
    pair = isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], Aux)
    if not pair or getattr(told[0], "shape", ()) != (2, steps, classes):
        found = getattr(told[0], "shape", "no logits") if pair else "no pair of logits and Aux"
        raise ConfigError(f"{own.place}: model gives {found}; expected is {expected}")


def _scalar(own, part, expected, function, *arguments):
    if (told := _shapes(own, part, expected, function, *arguments)) and any(shape != () for shape in told):
        raise ConfigError(f"{own.place}: {part} gives {told[0]}; expected is {expected}")


def _shapes(own, part, expected, function, *arguments):
    if not callable(function):
        raise ConfigError(f"{own.place}: {part} gives a {type(function).__name__}; expected is {expected}")
    made = _told(own, part, expected, functools.partial(jax.eval_shape, function), *arguments)
    return [leaf.shape for leaf in jax.tree.leaves(made)]


def _told(own, part, expected, function, *arguments):
    try:
        return function(*arguments)
    except TypeError as error:
        if plugin_frames(error):
            raise  # it is told by its line
        raise ConfigError(f"{own.place}: {part}: {error}; expected is {expected}") from None
