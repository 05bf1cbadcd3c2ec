"""Recorded pushes: a replayed record is the run again, sizes are those of the record; refusals."""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import numpy as np
import optax
import pytest

from csbp_jax import Own, configs, controls, data
from csbp_jax.config import Chaos, ConfigError, Data, Optimizer, replaced
from csbp_jax.instruments import replay
from csbp_jax.runtime.hardware import float64
from csbp_jax.training.build import resolve

DENSE = dataclasses.replace(
    configs.load("digits"),
    batch_size=320,
    epochs=2,
    chaos=Chaos(z0=(30.0,), beta=0.5, taps=("fc1.norm",), scale=1.0),
    optimizer=Optimizer(name="adam", lr=0.01, weight_decay=0.01, clip=1.0),
    model=dataclasses.replace(configs.load("digits").model, name="dense", features=(4,), time_steps=2),
)
PLAIN = replaced(DENSE, "chaos.z0", (0.0,))
REPLAY = Own(control=lambda config, tx: optax.chain(controls.replay(), tx))


@pytest.fixture(scope="module")
def splits():
    return data.load(DENSE)


@pytest.fixture(scope="module")
def recorded(splits):
    """A run in float64 with augmentation: ``(run, its last state, its pushes)``."""
    with float64():
        run = replay.make(resolve(replaced(DENSE, "data", Data(augment=("mixup",))), splits), splits["train"])
        return run, *replay.record(run, 3)


def distance(tree, other):
    return max(
        float(np.abs(np.asarray(a) - b).max()) for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True)
    )


def assert_replays(run, end, pushes):
    """Through Adam, decay and clipping: the pushes are part of the gradient."""
    control_run = replay.make(replaced(run.config, "chaos.z0", (0.0,)), run.source, REPLAY)
    assert distance(replay.train(control_run, 3, pushes).params, end.params) < 1e-10
    backward = jax.tree.map(lambda record: np.asarray(record)[::-1], pushes)
    assert distance(replay.train(control_run, 3, backward).params, end.params) > 1e-4


def test_a_replayed_record_from_the_same_start_is_the_run_again(x64, recorded):
    assert_replays(*recorded)


@pytest.mark.slow
def test_a_replayed_record_of_a_convolutional_net_is_the_run_again(x64, splits):
    chaos = dataclasses.replace(DENSE.chaos, taps=("conv1.membrane", "conv1.norm"), z0=(30.0, 10.0), anneal="step")
    model = dataclasses.replace(DENSE.model, name="small_conv")
    config = dataclasses.replace(DENSE, epochs=1, model=model, chaos=chaos, data=Data(augment=("mixup",)))
    run = replay.make(resolve(config, splits), splits["train"])
    assert_replays(run, *replay.record(run, 3))


def test_sizes_are_the_root_mean_squares_of_the_record(x64, recorded, splits):
    run, end, pushes = recorded
    same_end, sizes = replay.record_sizes(run, 3)
    assert distance(end.params, same_end.params) == 0
    assert all(leaf.shape == (6,) for leaf in jax.tree.leaves(sizes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), sizes, controls.rms(pushes))
    assert run.evaluate(end, splits["validation"])["count"] == len(splits["validation"])


@pytest.mark.full
def test_the_python_of_the_page_forces_a_run_by_recorded_sizes(tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    monkeypatch.setattr(configs, "load", lambda name: replaced(DENSE, "epochs", 1))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "replay.make" in block)
    exec(block, names)
    assert float(capsys.readouterr().out.split("'accuracy': ")[1].split(",")[0]) <= 1
    forced = names["state"].opt_state[0]
    assert int(names["state"].step) == 3 and type(forced).__name__ == "Forced"
    assert distance(names["state"].hparams["forcing"], names["sizes"]) == 0


@pytest.mark.parametrize("anneal", ["epoch", "step"])
def test_annealing_is_the_runs(splits, anneal):
    run = replay.make(resolve(replaced(DENSE, "chaos.anneal", anneal), splits), splits["train"])
    expected = [1, 1, 1, 0.5, 0.5, 0.5] if anneal == "epoch" else 0.5 ** np.arange(6)
    np.testing.assert_allclose(replay.annealing(run), expected)


def test_runs_that_cannot_be_recorded_are_refused(splits):
    config = resolve(DENSE, splits)
    run = replay.make(config, splits["train"])
    with pytest.raises(ConfigError, match=r"record: 6 steps of \d+ parameters take .* GiB, more than 9.31e-07; take"):
        replay.record(run, 0, most=1000)
    without_record: dict[str, Any] = {"chaos.z0": (0.0,), "chaos.substeps": 3, "optimizer.sam_radius": 0.05}
    for field, value in without_record.items():
        with pytest.raises(ConfigError, match=f"^{field}: "):
            replay.record(replay.make(replaced(config, field, value), splits["train"]), 0)
    for field, value in (("weights", "a.pt"), ("patience", 2)):
        with pytest.raises(ConfigError, match=f"{field}: not possible in a run that is recorded"):
            replay.make(replaced(config, field, value), splits["train"])
    with pytest.raises(ConfigError, match="forcing: a function is not possible; give it to the force"):
        replay.train(run, 0, lambda step: 0.1)
    with pytest.raises(ConfigError, match="forcing: missing"):
        replay.train(replay.make(resolve(PLAIN, splits), splits["train"], REPLAY), 0)
