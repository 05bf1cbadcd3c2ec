"""The grid of a sweep: its text, its members, and which of them share a compilation."""

import json
import re

import pytest

from csbp_jax.config import ConfigError, from_json, replaced, to_json
from csbp_jax.sweep import grid
from csbp_jax.training.plugins import Own
from tests.support.small_sweep import SMALL


def test_words_of_a_grid():
    assert grid.words("chaos.z0=0,1.5 seed=0:3,7") == {"chaos.z0": ["0", "1.5"], "seed": ["0", "1", "2", "7"]}


@pytest.mark.parametrize("text", ["", "seed", "seed=", "=3", "seed=1,,2", "seed=3:3", "seed=1 seed=2"])
def test_a_wrong_grid_is_refused(text):
    with pytest.raises(ConfigError, match=r"GRID: .*--grid"):
        grid.words(text)


def test_members_are_all_combinations_the_last_axis_fastest():
    members = grid.members(SMALL, {"chaos.z0": [(0.0,), (3.0,)], "seed": [4, 5]})
    assert [(c.chaos.z0, c.seed) for c in members] == [((0.0,), 4), ((0.0,), 5), ((3.0,), 4), ((3.0,), 5)]


def test_a_strength_may_vary_at_one_of_several_taps():
    two = replaced(SMALL, "chaos.taps", ("fc1.membrane", "fc2.norm"))
    members = grid.members(two, {"chaos.z0.fc2.norm": [0.0, 7.0]})
    assert [c.chaos.z0 for c in members] == [(10.0, 0.0), (10.0, 7.0)]
    assert len(grid.compile_groups(members)) == 1


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"chaos.z": [1.0]}, "no field chaos.z; perhaps you meant chaos.z0"),
        ({"chaos.z0.fc9.norm": [1.0]}, "no field chaos.z0.fc9.norm"),
        ({"chaos.beta": [0.5, 2.0]}, "chaos.beta: 2.0 is not possible"),
        ({"chaos.z0": [(1,), (1.0,)]}, "GRID: chaos.z0=1 and chaos.z0=1.0 are the same run"),
        ({"chaos.z0": [(1.0,), (2.0,)], "chaos.z0.fc1.membrane": [3.0]}, "chaos.z0=2.0 chaos.z0.fc1.membrane=3.0 are"),
        ({"patience": [0, 2]}, "patience: 2 is not possible in a sweep"),
    ],
)
def test_members_that_cannot_be_are_refused(axes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        grid.members(SMALL, axes)


def test_only_fields_that_are_not_traced_need_another_compilation():
    traced: grid.Axes = {
        "seed": [0, 1],
        "chaos.z0": [(0.0,), (1.0,)],
        "chaos.beta": [0.5, 1.0],
        "chaos.target": [0.6, 0.7],
        "chaos.scale": [1.0, 10.0],
        "optimizer.lr": [0.1, 1.0],
        "model.neuron.surrogate_param": [1.0, 2.0],
        "model.neuron.decay": [0.2, 0.5],
        "model.neuron.threshold": [0.9, 1.0],
    }
    for field, values in traced.items():
        assert len(grid.compile_groups(grid.members(SMALL, {field: values}))) == 1, field
    for field, values in {"chaos.term": ["chaos", "drift"], "model.neuron.surrogate": ["triangle", "erf"]}.items():
        assert grid.compile_groups(grid.members(SMALL, {field: values, "seed": [0, 1]})) == [[0, 1], [2, 3]], field
    decays = grid.members(SMALL, {"model.neuron.decay": [0.2, 0.5]})
    assert len(grid.compile_groups(decays, Own(loss=lambda config: None))) == 2
    alif = replaced(SMALL, "model.neuron.name", "alif")
    assert len(grid.compile_groups(grid.members(alif, {"model.neuron.decay": [0.2, 0.5]}))) == 1
    assert len(grid.compile_groups(grid.members(alif, {"model.neuron.adaptation": [0.2, 0.5]}))) == 2
    plif, tdbn = replaced(SMALL, "model.neuron.learn", "layer"), replaced(SMALL, "model.norm", "tdbn")
    for config in (plif, tdbn, replaced(SMALL, "model.neuron.name", "psn")):
        assert len(grid.compile_groups(grid.members(config, {"model.neuron.decay": [0.2, 0.5]}))) == 2


@pytest.mark.parametrize(("name", "groups"), [("ms_resnet18", 2), ("ms_resnet34", 2), ("max_resnet18", 1)])
def test_a_threshold_that_initial_weights_hold_needs_another_compilation(name, groups):
    """In MS-ResNet it is the initial scale of the norms."""
    config = replaced(replaced(replaced(SMALL, "model.name", name), "model.features", None), "chaos.z0", (0.0,))
    assert len(grid.compile_groups(grid.members(config, {"model.neuron.threshold": [1.0, 0.25]}))) == groups


def test_a_config_survives_json():
    config = replaced(replaced(SMALL, "data.size", (4, 4)), "chaos.cut", (-1.0, 2.0))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_controls_of_a_grid():
    configs = grid.members(SMALL, {"chaos.term": ["chaos", "drift"], "chaos.z0": [(3.0,), (0.0,)]})
    assert grid.controls(configs) == [1, None, 3, None]
    assert grid.controls(configs, {"chaos.term": "drift"}) == [2, 3, None, None]
    assert grid.controls(configs, {"chaos.term": "chaos", "chaos.z0": 3.0}) == [None, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"--control: chaos.z0=7.0: the grid has no such setting beside another"):
        grid.controls(configs, {"chaos.z0": (7.0,)})
