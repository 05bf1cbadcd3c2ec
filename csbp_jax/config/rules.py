"""Rules between the fields of a config, in one table, and the message of a value that is not allowed."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from csbp_jax.config.errors import ConfigError


class Rule(NamedTuple):
    """A field that others restrict: ``allows`` takes its value and those of the others, in this order."""

    field: str
    others: tuple[str, ...]
    allows: Callable[..., bool]
    words: str
    """The allowed values."""
    why: str = ""


def _unless(reason: Callable[[Any], bool], *values: Any) -> Callable[..., bool]:
    """Return a predicate: the field has one of some values, unless the reason against others does not hold."""
    return lambda value, other: value in values or not reason(other)


def _of_data_sets(field: str, without: Any, *names: str) -> Rule:
    words = f"{without or 'empty'}, or another with data.name {' or '.join(names)}"
    return Rule(field, ("data.name",), lambda value, name: value == without or name in names, words)


_ALL_STEPS = ("psn", "masked_psn")
_LOSSES = {"class": ("rate", "tet", "mse"), "labels": ("rate", "tet"), "value": ("mse", "mae", "huber")}

RULES = (
    _of_data_sets("data.dir", "", "folder"),
    _of_data_sets("data.test_speaker", "", "fsdd"),
    _of_data_sets("data.split", "last", "cifar10_dvs"),
    _of_data_sets("data.shorter_side", None, "imagenet"),
    _of_data_sets("data.resizer", "pillow", "imagenet", "folder"),
    Rule(
        "data.crop_padding",
        ("data.augment",),
        lambda padding, names: padding == 4 or not {"crop", "batch_crop_flip"}.isdisjoint(names),
        "4, or another with crop or batch_crop_flip in data.augment",
    ),
    Rule(
        "data.mix_off_epochs",
        ("data.augment",),
        lambda epochs, names: not epochs or not {"mixup", "cutmix"}.isdisjoint(names),
        "0, or more with mixup or cutmix in data.augment",
    ),
    Rule("data.mix_off_epochs", ("epochs",), operator.lt, "less than epochs"),
    Rule(
        "data.frames",
        ("model.neuron.name", "model.time_steps"),
        lambda frames, name, steps: name not in _ALL_STEPS or frames in (None, steps),
        "None or model.time_steps, or take sliding_psn",
        why="whose weights are for all time steps",
    ),
    Rule(
        "model.max_delay",
        ("model.time_steps",),
        lambda delay, steps: delay is None or delay < steps,
        "less than model.time_steps, or None",
    ),
    Rule(
        "model.init_rate",
        ("model.norm",),
        lambda rate, norm: rate is None or norm == "none",
        "None, or a rate with model.norm none",
        why="where a norm (None: the network's own) undoes a scale of the weights",
    ),
    Rule("model.init_rate", ("weights",), _unless(bool, None), "None", why="which are the initial ones"),
    Rule(
        "model.connect",
        ("model.neuron.name",),
        _unless(lambda name: name == "ilif", None, "add"),
        "add",
        why="whose spikes are numbers up to model.neuron.levels",
    ),
    Rule(
        "model.drop_path",
        ("model.connect",),
        _unless(("and", "iand").__contains__, None, 0),
        "0, or more with model.connect add",
        why="whose product needs spikes of 0 and 1",
    ),
    Rule(
        "model.read_out",
        ("loss.per",),
        _unless(lambda per: per == "step", "mean"),
        "mean",
        why="whose targets are those of all time steps",
    ),
    Rule(
        "model.read_out",
        ("loss.name",),
        _unless(lambda name: name == "tet", "mean"),
        "mean",
        why="which is taken at every time step",
    ),
    Rule(
        "model.read_out",
        ("loss.task",),
        lambda read_out, task: read_out != "softmax" or task == "class",
        "mean, max or last, or softmax with loss.task class",
    ),
    Rule(
        "model.neuron.name",
        ("model.name",),
        lambda neuron, network: neuron not in _ALL_STEPS or network != "recurrent",
        "any but psn and masked_psn, which compute all time steps at once, such as sliding_psn",
    ),
    Rule(
        "model.neuron.scale_input",
        ("model.neuron.name",),
        _unless(lambda name: "psn" in name, False),
        "False",
        why="which has no decay",
    ),
    Rule(
        "model.neuron.scale_input",
        ("model.neuron.name",),
        _unless(lambda name: name == "adlif", False),
        "False",
        why="which always scales its input",
    ),
    Rule(
        "model.neuron.adaptation_scale",
        ("model.neuron.form",),
        _unless(lambda form: form == "bittar", None),
        "None",
        why="which has none",
    ),
    Rule(
        "model.neuron.decay",
        ("model.neuron.name",),
        lambda decay, name: decay < 1 or name != "adlif",
        "below 1",
        why="which would scale all inputs to 0",
    ),
    Rule(
        "model.neuron.decay",
        ("model.neuron.scale_input",),
        lambda decay, scaled: decay < 1 or not scaled,
        "below 1, or 1 with model.neuron.scale_input False",
        why="which would scale all inputs to 0",
    ),
    Rule("model.neuron.learn", ("model.neuron.name",), _unless(lambda name: name != "lif", "none"), "none"),
    Rule(
        "model.neuron.decay",
        ("model.neuron.learn",),
        lambda decay, learn: learn == "none" or 0 < decay < 1,
        "between 0 and 1, where it is learned",
    ),
    Rule(
        "chaos.taps",
        ("chaos.z0",),
        lambda taps, z0: bool(taps) or not any(z0),
        "one tensor or more, or none with chaos.z0 0",
    ),
    Rule(
        "chaos.z0",
        ("chaos.taps",),
        lambda z0, taps: len(z0) in (1, len(taps)),
        "one number, or one for each tap",
    ),
    Rule(
        "loss.name",
        ("loss.task",),
        lambda name, task: name in _LOSSES[task],
        "; ".join(f"{', '.join(names)} with loss.task {task}" for task, names in _LOSSES.items()),
    ),
    Rule(
        "model.classes",
        ("loss.task",),
        lambda count, task: count != 1 or task != "class",
        "2 or more, 0, or 1 with loss.task labels or value",
    ),
    Rule("loss.smoothing", ("loss.task",), _unless(lambda task: task != "class", 0), "0", why="which has no classes"),
    Rule(
        "data.augment",
        ("loss.task", "loss.per"),
        lambda names, task, per: (task, per) == ("class", "example") or {"mixup", "cutmix"}.isdisjoint(names),
        "mixup and cutmix with loss.task class and loss.per example alone",
    ),
    Rule(
        "data.frames",
        ("loss.per",),
        _unless(lambda per: per == "step", None),
        "None",
        why="whose targets are those of all time steps",
    ),
    Rule(
        "loss.firing_high",
        ("model.neuron.name", "model.neuron.levels"),
        lambda high, name, levels: high <= (levels if name == "ilif" else 1),
        "from 0 to 1, or to model.neuron.levels for ilif",
    ),
    Rule("loss.firing_low", ("loss.firing_high",), operator.lt, "less than loss.firing_high"),
    Rule(
        "weights_table", ("weights",), lambda table, weights: bool(weights) or not table, "empty without a checkpoint"
    ),
    Rule(
        "optimizer.accumulate",
        ("chaos.reduce",),
        lambda count, reduction: count == 1 or reduction != "sum",
        "1, or more with chaos.reduce mean or neuron",
    ),
    Rule(
        "optimizer.accumulate",
        ("chaos.substeps",),
        lambda count, substeps: count == 1 or substeps == 1,
        "1, or more with chaos.substeps 1",
    ),
    Rule("chaos.substeps", ("optimizer.layer_decay",), _unless(lambda decay: decay != 1, 1), "1"),
    Rule("optimizer.warmup_epochs", ("epochs",), operator.lt, "less than epochs"),
    Rule(
        "batch_size",
        ("optimizer.accumulate", "model.norm_groups"),
        lambda size, count, groups: size % (count * groups) == 0,
        "multiples of optimizer.accumulate times model.norm_groups",
    ),
)
"""The rules between fields; those with facts of the data or the machine are where these become known."""


def refusal(field: str, value: Any, allowed: str, others: dict[str, Any] | None = None, why: str = "") -> ConfigError:
    """Return the error of a value that is not allowed, with the values of other fields that forbid it.

    >>> print(refusal("epochs", 2, "more than warmup", {"warmup": 3}))
    epochs: 2 is not possible with warmup 3; allowed is more than warmup
    """
    forbid = ", ".join(f"{name} {_shown(other)}" for name, other in (others or {}).items())
    reason = f" with {forbid}" * bool(forbid) + f", {why}" * bool(why)
    return ConfigError(f"{field}: {_shown(value)} is not possible{reason}; allowed is {allowed}")


def _shown(value: Any) -> str:
    return str(value) or "''"
