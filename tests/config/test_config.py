"""Configs: every rule refuses by name, names follow from content."""

import json
import math
from typing import get_args

import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import (
    Config,
    ConfigError,
    FixedInExperiments,
    Mark,
    Traced,
    check,
    fields_marked,
    flatten,
    marks_by_field,
    replaced,
    run_name,
)
from csbp_jax.config.rules import RULES
from csbp_jax.config.validation import allowed_range, check_value, hints

WRONG = {
    "seed": -1,
    "epochs": 0,
    "model.time_steps": -3,
    "model.classes": -1,
    "data.size": (8, 0),
    "model.depth": 65,
    "model.patch": 3,
    "model.dropout": 1.0,
    "model.drop_path": 1.0,
    "model.neuron.decay": 1.1,
    "model.neuron.threshold": 0.0,
    "model.neuron.surrogate_param": 0.0,
    "model.neuron.name": "izhikevich",
    "model.neuron.synapse_decay": 1.5,
    "model.neuron.adaptation": -0.1,
    "model.neuron.adaptation_decay": 1.1,
    "model.neuron.levels": 0,
    "model.neuron.order": 0,
    "chaos.beta": 1.5,
    "chaos.target": 1.0,
    "chaos.scale": 0.0,
    "chaos.z0": (-1.0,),
    "chaos.cut": (9.9, -10.0),
    "chaos.taps": ("conv1.norm", "conv1.norm"),
    "loss.lam": -0.1,
    "loss.firing": -1.0,
    "model.init_rate": 0.0,
    "optimizer.lr": -1.0,
    "optimizer.momentum": 1.0,
    "optimizer.clip": 0.0,
    "optimizer.weight_decay": float("nan"),
    "optimizer.layer_decay": 0.0,
    "data.randaugment_operations": 0,
    "data.randaugment_magnitude": 31,
    "data.crop_padding": -1,
    "checkpoint_every": 0,
    "loss_limit": 0.5,
    "data.threads": 10**9,
    "data.buckets": 0,
    "data.workers": 10**9,
    "batch_size": 1.5,
    "deterministic": 1,
    "chaos.reduce": "max",
    "loss.name": "hinge",
    "loss.task": "words",
    "loss.per": "batch",
    "model.name": "resnet",
    "model.neuron.reset": "soft ",
    "optimizer.schedule": None,
    "data.augment": ("flip", "mix"),
    # So large that arrays of such a size, or loops of such a length, cannot be.
    "model.features": (10**12, 2, 2),
    "model.input_shape": (100_000, 100_000, 1),
    "model.width": 1e300,
    "data.dir": None,
}


@pytest.mark.parametrize("name, value", [*WRONG.items(), ("model.features", (2,) * 201)])
def test_an_impossible_value_is_refused_by_the_name_of_its_field(name, value):
    with pytest.raises(ConfigError) as error:
        check(replaced(configs.load("digits"), name, value))
    assert str(error.value).startswith(f"{name}: ") and "\n" not in str(error.value)


NUMBERS = [
    (name, hint, kind)
    for name, hint in hints(Config).items()
    for kind in (int, float)
    if kind in get_args(hint) or get_args(hint)[:1] == (kind | None,) or hint is kind
]


@pytest.mark.parametrize("name, hint, kind", NUMBERS)
def test_every_number_has_a_range_and_whole_ones_an_upper_bound(name, hint, kind):
    assert allowed_range(hint)
    below = -11 if name == "model.neuron.coupling" else -1
    for value in (2**62 if kind is int else math.nan, below):
        with pytest.raises(ConfigError, match=rf"^{name}: "):
            check(replaced(configs.load("digits"), name, value))


def test_the_values_in_marks_are_possible_values_of_their_fields():
    values = {field: traced.stand_in for field, traced in marks_by_field(Traced).items()}
    values |= {field: fixed.value for field, fixed in marks_by_field(FixedInExperiments).items()}
    assert len(values) > 3
    for field, value in values.items():
        check_value(field, value, hints(Config)[field])


def test_a_field_without_effect_may_change_at_any_time_and_is_in_no_program():
    without_effect = set(fields_marked(Mark.NO_EFFECT))
    assert "log_every" in without_effect
    assert without_effect <= set(fields_marked(Mark.EDITABLE)) & set(fields_marked(Mark.NO_PROGRAM))
    assert not set(marks_by_field(Traced)) & set(fields_marked(Mark.NO_PROGRAM)), "a program has it as an argument"


WRONG_TOGETHER = [
    {"data.dir": "x"},
    {"data.test_speaker": "theo"},
    {"data.split": "first"},
    {"data.shorter_side": 32},
    {"data.resizer": "cykooz"},
    {"data.crop_padding": 2},
    {"data.mix_off_epochs": 3},
    {"data.mix_off_epochs": 30, "data.augment": ("cutmix",)},
    {"data.frames": 3, "model.neuron.name": "psn"},
    {"model.max_delay": 4, "model.time_steps": 4},
    {"model.init_rate": 0.1},
    {"model.init_rate": 0.1, "model.norm": "none", "weights": "a.pth"},
    {"model.connect": "iand", "model.neuron.name": "ilif"},
    {"model.drop_path": 0.1, "model.connect": "and"},
    {"model.read_out": "last", "loss.per": "step"},
    {"model.read_out": "max", "loss.name": "tet"},
    {"model.read_out": "softmax", "loss.task": "labels"},
    {"model.neuron.name": "masked_psn", "model.name": "recurrent"},
    {"model.neuron.scale_input": True, "model.neuron.name": "sliding_psn"},
    {"model.neuron.scale_input": True, "model.neuron.name": "adlif"},
    {"model.neuron.adaptation_scale": 60.0, "model.neuron.form": "bittar"},
    {"model.neuron.decay": 1.0, "model.neuron.name": "adlif"},
    {"model.neuron.decay": 1.0, "model.neuron.scale_input": True},
    {"model.neuron.learn": "layer", "model.neuron.name": "alif"},
    {"model.neuron.decay": 0.0, "model.neuron.learn": "channel"},
    {"chaos.taps": ()},
    {"chaos.z0": (1.0, 2.0), "chaos.taps": ("a.norm", "b.norm", "c.norm")},
    {"loss.name": "rate", "loss.task": "value"},
    {"model.classes": 1},
    {"loss.smoothing": 0.1, "loss.task": "labels"},
    {"data.augment": ("flip", "mixup"), "loss.per": "step"},
    {"data.frames": 3, "loss.per": "step"},
    {"loss.firing_high": 4.1, "model.neuron.name": "ilif"},
    {"loss.firing_low": 0.5},
    {"weights_table": "t.json"},
    {"optimizer.accumulate": 2, "chaos.reduce": "sum"},
    {"optimizer.accumulate": 2, "chaos.substeps": 5},
    {"chaos.substeps": 5, "optimizer.layer_decay": 0.9},
    {"optimizer.warmup_epochs": 30},
    {"batch_size": 30, "optimizer.accumulate": 2, "model.norm_groups": 4},
]
"""For each rule, in their order, fields that it refuses together; the first is the one that it names."""

POSSIBLE_TOGETHER = [
    {"model.neuron.name": "psn", "data.frames": 4, "model.time_steps": 4},
    {"model.neuron.name": "sliding_psn", "data.frames": 3},
    {"model.neuron.name": "ilif", "loss.firing_high": 4.0, "model.connect": "add"},
    {"chaos.z0": (1.0, 2.0), "chaos.taps": ("a.norm", "b.norm")},
    {"chaos.z0": (0.0,), "chaos.taps": ()},
    {"model.norm": "none", "model.init_rate": 0.1},
    {"data.mix_off_epochs": 29, "data.augment": ("mixup",)},
    {"model.neuron.order": 1000},
    {"model.features": (2,) * 200, "model.depth": 64},
    {"loss.task": "value", "loss.name": "huber", "model.classes": 1},
    {"optimizer.lr": 1, "optimizer.clip": 2},
]


def changed(changes):
    config = configs.load("digits")
    for name, value in changes.items():
        config = replaced(config, name, value)
    return config


@pytest.mark.parametrize(
    "rule, changes", [*zip(RULES, WRONG_TOGETHER, strict=True)], ids=lambda x: getattr(x, "field", "")
)
def test_every_rule_between_fields_refuses(rule, changes):
    field, value = next(iter(changes.items()))
    with pytest.raises(ConfigError) as error:
        check(changed(changes))
    message = str(error.value)
    assert message.startswith(f"{field}: {value} is not possible with {rule.others[0]} ")
    assert message.endswith(f"; allowed is {rule.words}")


@pytest.mark.parametrize("changes", POSSIBLE_TOGETHER, ids=str)
def test_fields_that_are_possible_together(changes):
    config = changed(changes)
    assert check(config) is config


@pytest.mark.parametrize("name", configs.NAMES)
def test_every_config_that_ships_is_possible_and_named_after_its_data_set(name):
    assert name.startswith(check(configs.load(name)).data.name)


SPIKINGJELLY = ("sew_", "plif_", "max_resnet", "spikformer_", "qkformer_", "sdt_")


@pytest.mark.parametrize("name", [n for n in configs.NAMES if configs.load(n).model.name.startswith(SPIKINGJELLY)])
def test_neurons_of_networks_written_with_spikingjelly_fire_at_their_threshold(name):
    assert configs.load(name).model.neuron.at_threshold == "fire"


@pytest.mark.parametrize("field, value, words", [
    ("chaos.z0", 1.0, "(a finite number, ...)"),
    ("chaos.z0", (1.0, "2"), "(a finite number, ...)"),
    ("chaos.z0", [1.0], "(a finite number, ...)"),
    ("chaos.cut", (1.0, 2.0, 3.0), "(a finite number, a finite number) or None"),
    ("optimizer.lr", math.inf, "a finite number"),
    ("epochs", True, "a whole number"),
    ("loss.name", "hinge", "rate, tet, mse, mae, huber"),
])  # fmt: skip
def test_a_wrong_type_is_refused_with_the_right_one(field, value, words):
    with pytest.raises(ConfigError) as error:
        check(replaced(Config(), field, value))
    assert str(error.value) == f"{field}: {value!r} is not possible; allowed is {words}"


REPLACED = [
    ("chaos.z0", 0, (0.0,)),
    ("chaos.z0", [1, 2.5], (1.0, 2.5)),
    ("chaos.z0.fc1.dense", np.float32(0.5), (10.0, 0.5)),
    ("epochs", np.int64(3), 3),
    ("optimizer.clip", 1, 1.0),
    ("optimizer.clip", None, None),
    ("data.augment", "flip", ("flip",)),
    ("model.features", np.array([8, 9, 10]), (8, 9, 10)),
    ("deterministic", True, True),
]


@pytest.mark.parametrize("name, value, stored", REPLACED)
def test_a_config_is_replaced_by_the_names_of_the_command_line(name, value, stored):
    config = configs.load("digits").replace("chaos.taps", ["conv1.membrane", "fc1.dense"])
    changed = config.replace(name, value)
    field = name.removesuffix(".fc1.dense")
    assert flatten(changed)[field] == stored and json.dumps(flatten(changed)[field]) == json.dumps(stored)
    assert changed == config.replace(**{name: value}) == eval(repr(changed), {"Config": Config})


NOT_REPLACED = {"chaos.z": 1, "chaos": 1, "chaos.z0.fc9": 1, "epochs": -1, "epochs.x": 1, "optimizer.lr": 10**400}


@pytest.mark.parametrize("name, value", NOT_REPLACED.items())
def test_a_wrong_replacement_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=rf"^{name}: "):
        configs.load("digits").replace(name, value)


def test_a_run_is_named_after_all_of_its_config():
    base = configs.load("digits")
    names = {run_name(base)}
    for field, value in flatten(base).items():
        other = {str: "other", int: -7, float: 0.123, bool: not value, tuple: (0.5,), type(None): 0.5}[type(value)]
        names.add(run_name(replaced(base, field, other)))
    assert len(names) == 1 + len(flatten(base))
    assert run_name(base) == run_name(configs.load("digits"))


def test_a_path_is_not_taken_for_the_name_of_a_preset():
    with pytest.raises(ConfigError, match=r"runs/nope: there is no such run, nor a preset"):
        configs.load("runs/nope")


@pytest.mark.parametrize(("name", "hint"), [
    ("z0", "perhaps you meant chaos.z0"),
    ("decy", "perhaps you meant model.neuron.decay"),
    ("foo", f"the nearest of {len(hints(Config))} are model.pool, model.norm, model.dropout"),
])  # fmt: skip
def test_an_unknown_field_is_refused_with_the_nearest_ones(name, hint):
    with pytest.raises(ConfigError) as error:
        Config().replace(name, 1)
    assert str(error.value) == f"{name}: there is no such field; {hint}"
