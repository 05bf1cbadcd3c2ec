"""Runs made before the package was rearranged still evaluate and resume: the formats of their files did not change.

``finished`` is a run of two epochs, ``stopped`` the same run without what came after its first. Both were trained by
commit 56e553d:

    config = configs.load("digits")
    model = dataclasses.replace(config.model, features=(2, 2), time_steps=2)
    config = dataclasses.replace(config, model=model, epochs=2, batch_size=512, checkpoint_every=1, log_every=1)
    training.train(config, name="finished")
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax.config import check, from_json
from csbp_jax.evaluation import evaluate
from tests.support import shared_programs

pytestmark = pytest.mark.usefixtures("no_figures")
RUNS = pathlib.Path(__file__).parents[1] / "data" / "previous_layout"


@pytest.fixture
def runs(tmp_path):
    shutil.copytree(RUNS, tmp_path / "runs")
    return tmp_path / "runs"


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_finished_run_of_the_previous_layout_evaluates(runs):
    expected = read(runs / "finished", "result.json")["last"]
    result = evaluate.evaluate_run(runs / "finished")
    assert result["accuracy"] == expected["test_accuracy"]
    np.testing.assert_allclose(result["nll"], expected["test_loss"], rtol=1e-5)


def test_a_stopped_run_of_the_previous_layout_resumes_to_the_same_weights(runs):
    config = check(from_json(read(runs / "stopped", "config.json")["config"]))
    with shared_programs.patched():
        result = csbp_jax.train(config, name="stopped", root=runs)
    expected = read(runs / "finished", "result.json")
    assert result["last"]["test_accuracy"] == expected["last"]["test_accuracy"]
    # Another processor may sum in another order.
    np.testing.assert_allclose(result["last"]["test_loss"], expected["last"]["test_loss"], rtol=1e-4)
    _, resumed, _ = csbp_jax.load(runs / "stopped")
    _, trained, _ = csbp_jax.load(runs / "finished")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), resumed, trained)
