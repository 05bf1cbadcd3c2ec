"""Configs: every rule refuses by name, names follow from content."""

import dataclasses
import json
from typing import get_type_hints

import pytest

from csbp_jax import configs
from csbp_jax.config import (
    Chaos,
    Config,
    ConfigError,
    Data,
    Loss,
    Model,
    Neuron,
    Optimizer,
    check,
    flatten,
    replaced,
    run_name,
    to_json,
)

BAD = {
    "seed": -1,
    "epochs": 0,
    "model.time_steps": -3,
    "model.classes": 1,
    "model.features": (),
    "model.depth": 10**9,
    "model.input_shape": (8, 0, 1),
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
    "loss.firing_low": 0.5,
    "loss.firing_high": 1.5,
    "model.init_rate": 0.0,
    "data.test_speaker": "theo",
    "data.split": "first",
    "optimizer.lr": -1.0,
    "optimizer.momentum": 1.0,
    "optimizer.clip": 0.0,
    "optimizer.warmup_epochs": 30,
    "optimizer.weight_decay": float("nan"),
    "optimizer.layer_decay": 0.0,
    "data.randaugment_operations": 0,
    "data.randaugment_magnitude": 31,
    "data.erasing_probability": 1.5,
    "data.mix_off_epochs": 1,
    "checkpoint_every": 0,
    "loss_limit": 0.5,
    "data.threads": 10**9,
    "data.workers": 10**9,
    "batch_size": 1.5,
    "deterministic": 1,
    "chaos.reduce": "max",
    "loss.name": "hinge",
    "model.name": "resnet",
    "model.neuron.reset": "soft ",
    "optimizer.schedule": None,
}


# So large that arrays of such a size, or loops of such a length, cannot be.
TOO_LARGE = {
    "epochs": 10**18,
    "batch_size": 2**62,
    "model.time_steps": 10**9,
    "model.features": (10**12, 2, 2),
    "model.classes": 10**18,
    "model.input_shape": (100_000, 100_000, 1),
    "model.width": 1e300,
    "data.size": (100_000, 100_000),
}


def with_field(config, name, value):
    head, _, rest = name.partition(".")
    return dataclasses.replace(config, **{head: with_field(getattr(config, head), rest, value) if rest else value})


@pytest.mark.parametrize("name, value", [*BAD.items(), *TOO_LARGE.items()])
def test_an_impossible_value_is_refused_by_the_name_of_its_field(name, value):
    config = with_field(configs.load("digits"), name, value)
    with pytest.raises(ConfigError) as error:
        check(config)
    assert str(error.value).startswith(f"{name}: ") and "\n" not in str(error.value)


WHOLE = {
    f"{prefix}{field}": hint
    for prefix, kind in (("", Config), ("data.", Data), ("model.", Model), ("model.neuron.", Neuron),
                         ("chaos.", Chaos), ("loss.", Loss), ("optimizer.", Optimizer))
    for field, hint in get_type_hints(kind).items()
    if hint in (int, int | None)
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_every_whole_number_has_an_upper_bound(name):
    with pytest.raises(ConfigError, match=rf"^{name}: "):
        check(with_field(configs.load("digits"), name, 2**62))


@pytest.mark.parametrize("name", configs.NAMES)
def test_every_config_that_ships_is_possible_and_named_after_its_data_set(name):
    assert name.startswith(check(configs.load(name)).data.name)


SPIKINGJELLY = ("sew_", "plif_", "max_resnet", "spikformer_", "qkformer_", "sdt_")


@pytest.mark.parametrize("name", [n for n in configs.NAMES if configs.load(n).model.name.startswith(SPIKINGJELLY)])
def test_neurons_of_networks_written_with_spikingjelly_fire_at_their_threshold(name):
    assert configs.load(name).model.neuron.at_threshold == "fire"


@pytest.mark.parametrize("value, kind", [(1.0, "tuple"), ((1.0, "2"), "tuple"), ([1.0], "tuple")])
def test_a_wrong_type_is_refused(value, kind):
    with pytest.raises(ConfigError, match=rf"chaos.z0: .* is not possible; allowed is {kind}"):
        check(Config(chaos=Chaos(z0=value)))
    with pytest.raises(ConfigError, match=r"chaos\.cut"):
        check(Config(chaos=Chaos(cut=(1.0, 2.0, 3.0))))  # type: ignore[arg-type]  # refused at run time
    check(Config(optimizer=Optimizer(lr=1, clip=2)))


def test_a_psn_takes_all_frames():
    for name in ("masked_psn", "psn"):
        neuron = replaced(Neuron(), "name", name)
        config = Config(data=Data(frames=3), model=Model(time_steps=4, neuron=neuron))
        with pytest.raises(ConfigError, match=rf"data.frames: 3 is not possible with {name}, whose weights are for"):
            check(config)
        check(replaced(config, "data.frames", 4))
        check(replaced(config, "model.neuron.name", "sliding_psn"))


def test_integer_neurons_may_fire_several_times_in_a_time_step():
    ilif = replaced(replaced(Config(), "model.neuron.name", "ilif"), "loss.firing_high", 4.0)
    assert check(ilif) is ilif
    for changes in ({"loss.firing_high": 4.1}, {"model.neuron.levels": 3}, {"model.neuron.name": "lif"}):
        ((field, value),) = changes.items()
        with pytest.raises(ConfigError, match=r"loss.firing_high: 4.* is not possible; allowed is from 0 to [134]$"):
            check(replaced(ilif, field, value))


def test_the_order_of_a_psn_has_an_end():
    """Each of its time steps is traced."""
    check(replaced(Config(), "model.neuron.order", 1000))
    with pytest.raises(ConfigError, match=r"model.neuron.order: 1001 is not possible; allowed is from 1 to 1,000"):
        check(replaced(Config(), "model.neuron.order", 1001))


def test_strengths_and_taps_must_agree():
    with pytest.raises(ConfigError, match=r"chaos.taps: empty, but chaos.z0 is \(1.0,\)"):
        check(Config(chaos=Chaos(z0=(1.0,))))
    with pytest.raises(ConfigError, match=r"chaos.z0: 2 numbers for 3 taps"):
        check(Config(chaos=Chaos(z0=(1.0, 2.0), taps=("a.norm", "b.norm", "c.norm"))))
    check(Config(chaos=Chaos(z0=(1.0, 2.0), taps=("a.norm", "b.norm"))))


def test_a_run_is_named_after_all_of_its_config():
    base = configs.load("digits")
    names = {run_name(base)}
    for field, value in flatten(base).items():
        other = {str: "other", int: -7, float: 0.123, bool: not value, tuple: (0.5,), type(None): 0.5}[type(value)]
        names.add(run_name(with_field(base, field, other)))
    assert len(names) == 1 + len(flatten(base))
    assert run_name(base) == run_name(configs.load("digits"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer.layer_decay": 0.9, "chaos.substeps": 5},
            "chaos.substeps: 5 is not possible with .*; allowed is 1",
        ),
        ({"data.mix_off_epochs": 3}, "data.mix_off_epochs: 3, but data.augment has neither mixup nor cutmix; add one"),
        (
            {"data.mix_off_epochs": 30, "data.augment": ("cutmix",)},
            r"data.mix_off_epochs: 30 is not possible; allowed is less than epochs \(30\)",
        ),
    ],
)
def test_options_of_recipes_that_exclude_one_another(changes, message):
    config = configs.load("digits")
    for name, value in changes.items():
        config = with_field(config, name, value)
    with pytest.raises(ConfigError, match=f"^{message}"):
        check(config)


def test_json_round_trip():
    config = Config(chaos=Chaos(cut=(-10.0, 9.9)), optimizer=Optimizer(clip=1.0))
    assert json.loads(json.dumps(to_json(config))) == to_json(config)


def test_unknown_data_set():
    with pytest.raises(ConfigError, match=r"DATASET: there is no config 'mnits'; perhaps you meant mnist"):
        configs.load("mnits")


def test_an_unknown_augmentation_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"^data.augment: 'randaug', 'mix' is not possible; allowed are crop, flip, "):
        check(replaced(Config(), "data.augment", ("flip", "randaug", "mix")))
