"""Each optimiser by its name: trained with the chaos term, loaded, resumed and in a sweep over its rate."""

import dataclasses
import hashlib
import io
from typing import Any

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax import configs, data
from csbp_jax.config import Optimizer
from csbp_jax.experiment import Experiment
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from tests.support import shared_programs
from tests.support.stops import After

DIGITS = configs.load("digits")
TEST: Any = data.load(DIGITS)["test"]
SMALL = dataclasses.replace(
    DIGITS,
    epochs=3,
    batch_size=256,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8, 8), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
)
OPTIMIZERS = {
    "lion": Optimizer(name="lion", lr=0.003, weight_decay=0.01),
    "muon": Optimizer(name="muon", lr=0.02, weight_decay=0.01, eps_root=1e-8),
}


def run(config, root, name="r", stop=None):
    console = Console(file=io.StringIO())
    with shared_programs.patched():
        return train(config, root=root, name=name, console=console, stop=stop)


@pytest.mark.full
@pytest.mark.parametrize("name", [n if n == "muon" else pytest.param(n, marks=pytest.mark.full) for n in OPTIMIZERS])
def test_it_trains_resumes_to_the_bit_loads_what_was_tested_and_varies_its_rate_in_a_sweep(name, tmp_path):
    config = dataclasses.replace(SMALL, optimizer=OPTIMIZERS[name])
    result = run(config, tmp_path)
    rows = [row for row in read_rows(tmp_path / "r" / "metrics.jsonl") if row["kind"] == "epoch"]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert rows[0]["chaos_loss"] != 0

    loaded = {}
    for weights_of in ("last", "chosen"):
        apply, variables, _ = csbp_jax.load(tmp_path / "r", weights_of)
        loaded[weights_of] = variables["params"]
        right = np.asarray(jax.jit(apply)(variables, TEST.x)[0]).mean(1).argmax(1) == TEST.y
        assert right.mean() == pytest.approx(result[weights_of]["test_accuracy"], abs=1e-9)
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(loaded["last"]))
    assert hashlib.sha256(content).hexdigest() == result["params_sha256"]

    with pytest.raises(Stopped):
        run(config, tmp_path, "stopped", After(6))
    assert {**run(config, tmp_path, "stopped"), "seconds": 0} == {**result, "seconds": 0}

    arms = {"as given": {}, "slow": {"optimizer.lr": config.optimizer.lr / 3}}
    experiment = Experiment(config, arms, seeds=(config.seed,))
    assert len(set(experiment.plan().groups.values())) == 1
    table = experiment.run(tmp_path / "sweep", console=Console(file=io.StringIO()))
    for (_, row), (arm, fields) in zip(table.frame.iterrows(), arms.items(), strict=True):
        alone = result if not fields else run(config.replace(**fields), tmp_path, "slow")
        assert row["arm"] == arm and row["last_test_loss"] == pytest.approx(alone["last"]["test_loss"], rel=5e-3)
