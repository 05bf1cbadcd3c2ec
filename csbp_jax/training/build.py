"""From a config and a user's own parts to the recipe and the data of a run."""

import functools
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from csbp_jax import controls, data, learner, losses, models
from csbp_jax.config import Config, ConfigError, replaced
from csbp_jax.data import DataSource
from csbp_jax.data.source import UserSource
from csbp_jax.data.user import arrays
from csbp_jax.learner import Recipe, optimizer
from csbp_jax.models.taps import Aux
from csbp_jax.training.plugin_file import defined_in_plugin, error_line, plugin_frames
from csbp_jax.training.plugins import Own

TRACED: dict[str, Any] = {
    "seed": 0,
    "chaos.z0": (0.0,),
    "chaos.beta": 1.0,
    "chaos.target": 0.5,
    "chaos.scale": 1.0,
    "optimizer.lr": 0.0,
}
"""Fields that may vary within one compilation of an experiment, with a valid value for each."""


class TracedPlaceholder:
    """A field of TRACED in the config that own functions see; not a number, so that its use fails.

    Comparisons fail, too, else a choice by its value would always be the same. Two of one field are equal, so that
    modules and configs that hold them can be compared and hashed.
    """

    def __init__(self, field: str):
        self.field = field

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TracedPlaceholder):
            raise TypeError(repr(self))
        return self.field == other.field

    def __hash__(self) -> int:
        return hash(self.field)

    def __bool__(self) -> bool:
        raise TypeError(repr(self))

    def __repr__(self) -> str:
        return f"<{self.field}: one compilation has many values of it, so own parts cannot know it>"


def build_recipe(config: Config, own: Own, steps_per_epoch: int) -> Recipe:
    """Build the recipe of a training step from the user's own parts, and the config's for those that are missing.

    Raises:
      ConfigError: an own part is not what it should be; says what was expected.
    """
    if own.model and config.weights:
        raise ConfigError(
            f"weights: {config.weights}, but {own.label} has its own model, for which no table of names exists"
        )
    if own.term and config.chaos.term != "chaos":
        raise ConfigError(
            f"chaos.term: {config.chaos.term} replaces the term, but {own.label} has its own; leave one of them out"
        )
    visible = _with_placeholders(config)
    neuron = (
        _call(own, "neuron", visible) if own.neuron else models.neuron(config.model.neuron, config.model.time_steps)
    )
    model = _call(own, "model", visible, neuron) if own.model else models.build(config.model, neuron)
    _check_model(config, own, model)
    _check_neuron(config, own, neuron, model)
    tx = optimizer.build(config.optimizer, config.epochs, steps_per_epoch, ordered_layers(config, model))
    tx = _call(own, "control", visible, tx) if own.control else tx
    loss = _call(own, "loss", visible) if own.loss else losses.build(config.loss)
    term = _call(own, "term", visible) if own.term else controls.TERMS[config.chaos.term]
    _check_loss(config, own, loss)
    _check_term(config, own, term, model)
    if own.control and not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise ConfigError(f"{own.label}: control gives a {type(tx).__name__}; expected is an optax transformation")
    return learner.make_recipe(model, tx, loss, config, steps_per_epoch, term)


def ordered_layers(config: Config, model: Any) -> tuple[str, ...]:
    """Return the layers of a network in their order if the config's optimiser needs them, else nothing."""
    return models.layer_names(model, config.model.input_shape) if config.optimizer.layer_decay != 1 else ()


def load_data(config: Config, own: Own, data_dir: str | pathlib.Path) -> tuple[dict[str, DataSource], str]:
    """Load the splits of the data, and a fingerprint that changes when their records do.

    Raises:
      ConfigError: as ``data.load``, or own data are not what they should be.
    """
    if not own.data:
        return data.load(config, data_dir), data.fingerprint(config, data_dir)
    splits = arrays.sources(_call(own, "data", _with_placeholders(config), pathlib.Path(data_dir)), config, own.label)
    if config.data.workers and any(defined_in_plugin(type(source.source)) for source in splits.values()):
        raise ConfigError(
            f"data.workers: {config.data.workers} is not possible for a source that {own.label} defines, which other "
            "processes do not know; take data.threads"
        )
    return dict(splits), arrays.fingerprint(splits)


def class_names(config: Config, splits: Mapping[str, DataSource], data_dir: str | pathlib.Path) -> list[str]:
    """Return the classes' names in the order of their labels; of own data, as the training source names them."""
    train = splits["train"]
    if not isinstance(train, UserSource):
        return data.classes(config, data_dir)
    names = list(train.class_names)
    return names if len(names) == config.model.classes else [str(n) for n in range(config.model.classes)]


def _with_placeholders(config: Config) -> Config:
    """Return the config as own functions see it, which are called once for all members that share a compilation."""
    for field in TRACED:
        config = replaced(config, field, TracedPlaceholder(field))
    return config


def _call(own: Own, part: str, *arguments: Any) -> Any:
    function = getattr(own, part)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        names = {"data": "config, data_dir", "model": "config, neuron", "control": "config, tx"}.get(part, "config")
        raise ConfigError(f"{own.label}: {part} cannot be called so; expected is {part}({names})") from None
    except ValueError:  # a callable without a signature, such as a built-in
        pass
    return function(*arguments)


# Each own part is traced on shapes; nothing is computed. Neurons and terms may hold arrays that fit only the tensors of
# the network: those that fail on an example are traced within it.


def _check_neuron(config: Config, own: Own, neuron: Any, model: Any) -> None:
    if not own.neuron or hasattr(neuron, "init"):  # a Linen module gives its neuron only within a network
        return
    x = jax.ShapeDtypeStruct((2, config.model.time_steps, 3), jnp.float32)
    expected = "neuron(x [B, T, ...], state=None) -> (spikes like x, state: an array [B, ...] or a pytree of such)"
    try:
        shapes = _output_shapes(own, "neuron", expected, neuron, x)
    except (TypeError, ValueError):
        if not callable(neuron):
            raise
        _output_shapes(own, "neuron", expected, functools.partial(_applied, model), *_network_arguments(config))
        return
    if shapes[0] != x.shape or len(shapes) < 2 or any(shape[:1] != (2,) for shape in shapes[1:]):
        raise ConfigError(f"{own.label}: neuron gives {shapes} for x {x.shape}; expected is {expected}")


def _check_model(config: Config, own: Own, model: Any) -> None:
    if not own.model:
        return
    if not (hasattr(model, "init") and hasattr(model, "apply")):
        raise ConfigError(f"{own.label}: model gives a {type(model).__name__}; expected is a flax.linen Module")
    steps, classes = config.model.time_steps, config.model.classes
    key, x = _network_arguments(config)
    expected = f"(logits {(2, steps, classes)}, csbp_jax.models.taps.Aux) for x {x.shape}"
    options: dict[str, Any] = {"membrane_term": losses.membrane_error} if config.loss.membrane else {}
    call = functools.partial(jax.eval_shape, functools.partial(_applied, model, **options))
    output = _traced(own, "model", expected, call, key, x)
    pair = isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Aux)
    if not pair or getattr(output[0], "shape", ()) != (2, steps, classes):
        shapes = getattr(output[0], "shape", "no logits") if pair else "no pair of logits and Aux"
        raise ConfigError(f"{own.label}: model gives {shapes}; expected is {expected}")


def _check_loss(config: Config, own: Own, loss: Any) -> None:
    if not own.loss:
        return
    classes = config.model.classes or 2
    size = classes + 1  # not the number of classes, with which wrong axes could be multiplied
    logits = jax.ShapeDtypeStruct((size, config.model.time_steps, classes), jnp.float32)
    where = jax.ShapeDtypeStruct((size,), bool)
    labels = {"integers [B] here, as in validation and test": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if config.loss.smoothing or {"mixup", "cutmix"} & set(config.data.augment):
        form = "probabilities [B, C] here, as in training with loss.smoothing, mixup or cutmix"
        labels[form] = jax.ShapeDtypeStruct((size, classes), jnp.float32)
    for form, y in labels.items():
        expected = f"loss(logits [B, T, C], labels, where=None) -> a scalar; labels are {form}"
        try:
            _check_scalar(own, "loss", expected, lambda o, y, w: (loss(o, y), loss(o, y, where=w)), logits, y, where)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{error_line(error)}; labels are {form}") from error


def _check_term(config: Config, own: Own, term: Any, model: Any) -> None:
    if not own.term:
        return
    chaos = config.chaos
    x = jax.ShapeDtypeStruct((2, config.model.time_steps, 3), jnp.float32)
    expected = "term(h, target, scale, *, cut, reduce) -> a scalar"

    def tap(h: jax.Array) -> Any:
        return term(h, 0.5, 1.0, cut=chaos.cut, reduce=chaos.reduce)

    def terms(key: jax.Array, x: jax.Array) -> dict[str, Any]:
        values: dict[str, Any] = _applied(model, key, x, tap=tap, taps=chaos.taps)[1].terms
        return values

    try:
        _check_scalar(own, "term", expected, tap, x)
    except (TypeError, ValueError):
        _check_scalar(own, "term", expected, terms, *_network_arguments(config))


def _applied(model: Any, key: jax.Array, x: jax.Array, **options: Any) -> Any:
    return model.init_with_output(key, x, False, **options)[0]


def _network_arguments(config: Config) -> tuple[jax.Array, jax.ShapeDtypeStruct]:
    return jax.random.key(0), jax.ShapeDtypeStruct((2, 1, *config.model.input_shape), jnp.float32)


def _check_scalar(own: Own, part: str, expected: str, function: Any, *arguments: Any) -> None:
    shapes = _output_shapes(own, part, expected, function, *arguments)
    if wrong := [shape for shape in shapes if shape != ()]:
        raise ConfigError(f"{own.label}: {part} gives {wrong[0]}; expected is {expected}")


def _output_shapes(own: Own, part: str, expected: str, function: Any, *arguments: Any) -> list[tuple[int, ...]]:
    if not callable(function):
        raise ConfigError(f"{own.label}: {part} gives a {type(function).__name__}; expected is {expected}")
    output = _traced(own, part, expected, functools.partial(jax.eval_shape, function), *arguments)
    return [leaf.shape for leaf in jax.tree.leaves(output)]


def _traced(own: Own, part: str, expected: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        if plugin_frames(error):
            raise  # reported with its line in the user's file
        raise ConfigError(f"{own.label}: {part}: {error}; expected is {expected}") from error
