"""Networks and recipes step for step against PyTorch references (experiments/parity), in float64; parameter counts."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models
from experiments.parity import cases, ours

FAST = ("cnn7_tebn",)
DATA = pathlib.Path(__file__).parents[1] / "data"
FORWARD, TRAINING = 1e-9, 1e-6
CASES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in cases.CASES]


@pytest.mark.parametrize("name", CASES)
def test_five_steps_equal_the_reference(name, reference):
    differences = ours.largest_differences(ours.run(cases.CASES[name]), reference(f"parity_{name}"))
    assert differences["before"] < FORWARD
    assert max(differences.values()) < TRAINING


@pytest.mark.parametrize("name", cases.CASES)
def test_the_references_were_not_silent(name, reference):
    values = reference(f"parity_{name}")
    for logits in (values["before"], values["logits"][0]):
        assert len(np.unique(logits.reshape(-1, logits.shape[-1]).round(9), axis=0)) > 1
    assert values["grad_norm"].min() > 0.1 and np.ptp(values["task_loss"]) > 0.1


@pytest.mark.parametrize("name", cases.ORIGINALS)
def test_parameters_and_logits_at_full_size_equal_the_published_network(name):
    config = cases.ORIGINALS[name]
    steps = 1 if config.input_shape[-1] == 3 else config.time_steps
    picture = jax.ShapeDtypeStruct((1, steps, *config.input_shape), jnp.float32)
    model = models.build(config)
    (logits, _), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), picture)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    sizes = json.loads((DATA / "parity_sizes.json").read_text())
    assert {"parameters": parameters, "logits": list(logits.shape)} == sizes[name]


def test_largest_differences_by_name():
    values = {"task_loss": np.array([1.0, 2.0]), "statistics/a": np.array([4.0]), "statistics/b": np.array([1.0])}
    changed = values | {"statistics/b": np.array([1.5]), "task_loss": np.array([1.5, 2.0])}
    assert ours.largest_differences(changed, values) == {"task_loss": 0.25, "statistics": 0.5}
    with pytest.raises(ValueError, match="names differ"):
        ours.largest_differences({}, values)
    with pytest.raises(ValueError, match="shape"):
        ours.largest_differences(values | {"task_loss": np.zeros(3)}, values)
