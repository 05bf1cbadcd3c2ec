"""Configs at fields, and which of them share a compilation."""

import json

import numpy as np
import pytest

from csbp_jax.config import from_json, replaced, to_json
from csbp_jax.experiment import Training, fields
from csbp_jax.training.plugins import Own
from tests.support.small_runs import SMALL, of_grid


def groups(configs, own=Own()):
    """The numbers of the configs of each compile group."""
    of_group: dict = {}
    for number, config in enumerate(configs):
        of_group.setdefault(fields.compile_group(config, own), []).append(number)
    return list(of_group.values())


def test_a_strength_may_vary_at_one_of_several_taps():
    two = replaced(SMALL, "chaos.taps", ("fc1.membrane", "fc2.norm"))
    members = of_grid(two, {"chaos.z0.fc2.norm": [0.0, 7.0]})
    assert [c.chaos.z0 for c in members] == [(10.0, 0.0), (10.0, 7.0)]
    assert len(groups(members)) == 1


def test_a_value_in_another_type_is_the_same_setting():
    system = Training(SMALL)
    values = (3, 3.0, np.int64(3), np.float64(3), [3], (3.0,))
    assert [repr(system.canonical({"chaos.z0": value})) for value in values] == ["{'chaos.z0': 3.0}"] * len(values)
    assert system.canonical({"optimizer.lr": 1, "epochs": np.int64(5)}) == {"optimizer.lr": 1.0, "epochs": 5}
    assert system.canonical({"chaos.z0": 10, "model.features": [5, 4]}) == {}, "as the base has it"
    assert fields.at(SMALL, {"model.features": 7}).model.features == (7,)
    assert fields.key({"epochs": 5, "seed": 3}) == fields.key({"seed": 3, "epochs": 5})


def test_only_fields_that_are_not_traced_need_another_compilation():
    traced = {
        "seed": [0, 1],
        "chaos.z0": [0.0, 1.0],
        "chaos.beta": [0.5, 1.0],
        "chaos.target": [0.6, 0.7],
        "chaos.scale": [1.0, 10.0],
        "optimizer.lr": [0.1, 1.0],
        "model.neuron.surrogate_param": [1.0, 2.0],
        "model.neuron.decay": [0.2, 0.5],
        "model.neuron.threshold": [0.9, 1.0],
        "optimizer.weight_decay": [0.0, 1e-3],
        "loss.smoothing": [0.0, 0.1],
    }
    for field, values in traced.items():
        assert len(groups(of_grid(SMALL, {field: values}))) == 1, field
    for field, values in {"chaos.term": ["chaos", "drift"], "model.neuron.surrogate": ["triangle", "erf"]}.items():
        assert groups(of_grid(SMALL, {field: values, "seed": [0, 1]})) == [[0, 1], [2, 3]], field
    for field in ("model.neuron.decay", "optimizer.weight_decay", "loss.smoothing"):
        own = Own(loss=lambda config: None)  # which may read it
        assert len(groups(of_grid(SMALL, {field: [0.2, 0.5]}), own)) == 2, field
        shared = Own(data=lambda config, folder: {}, control=lambda config, tx, hparams: tx)  # which may not
        count = 2 if field == "optimizer.weight_decay" else 1  # a control may call the optimiser without it
        assert len(groups(of_grid(SMALL, {field: [0.2, 0.5]}), shared)) == count, field
    alif = replaced(SMALL, "model.neuron.name", "alif")
    assert len(groups(of_grid(alif, {"model.neuron.decay": [0.2, 0.5]}))) == 1
    assert len(groups(of_grid(alif, {"model.neuron.adaptation": [0.2, 0.5]}))) == 2
    plif, tdbn = replaced(SMALL, "model.neuron.learn", "layer"), replaced(SMALL, "model.norm", "tdbn")
    for config in (plif, tdbn, replaced(SMALL, "model.neuron.name", "psn")):
        assert len(groups(of_grid(config, {"model.neuron.decay": [0.2, 0.5]}))) == 2


@pytest.mark.parametrize(("name", "count"), [("ms_resnet18", 2), ("ms_resnet34", 2), ("max_resnet18", 1)])
def test_a_threshold_that_initial_weights_hold_needs_another_compilation(name, count):
    """In MS-ResNet it is the initial scale of the norms."""
    config = replaced(replaced(replaced(SMALL, "model.name", name), "model.features", None), "chaos.z0", (0.0,))
    assert len(groups(of_grid(config, {"model.neuron.threshold": [1.0, 0.25]}))) == count


def test_a_config_survives_json():
    config = replaced(replaced(SMALL, "data.size", (4, 4)), "chaos.cut", (-1.0, 2.0))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
