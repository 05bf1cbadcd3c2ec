"""The learning-rate test: each step at its rate, whatever the schedule; where it ends and what it says."""

import dataclasses
import io
import itertools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, data
from csbp_jax.config import Config, ConfigError, Optimizer, flatten
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import sharding
from csbp_jax.training import compiled, lr_finder
from tests.support import shared_programs

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    batch_size=256,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8,), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
    optimizer=Optimizer(name="sgd", lr=7.0, schedule="cosine", warmup_epochs=3),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lr")
    text = io.StringIO()
    console = Console(file=text, width=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr_finder, "compile_run", shared_programs.compile_run)
        found = lr_finder.find(SMALL, rates=lr_finder.RateRange(1e-3, 1e6, 60), out=folder / "a", console=console)
    return folder, found, text.getvalue()


def test_each_step_is_one_of_plain_training_at_its_rate(found):
    flat = dataclasses.replace(SMALL, optimizer=Optimizer(name="sgd", schedule="constant"))
    parts = data.load(flat)
    run = compiled.compile_run(flat, parts["train"], 4, mesh=sharding.data_parallel(1))
    state, step, losses = jax.jit(run.pure_init)(jax.random.key(0)), jax.jit(run.pure_train_step), []
    batches = itertools.islice(data.train_batches(parts["train"], 256, 0), 8)
    for batch, rate in zip(batches, np.geomspace(1e-3, 1e6, 60), strict=False):
        state = state.replace(hparams=state.hparams | {"lr": jnp.float32(rate)})
        state, metrics = step(state, batch)
        losses.append(float(metrics["task_loss"]))
    np.testing.assert_allclose(found[1]["losses"][:8], losses, rtol=1e-4)
    np.testing.assert_allclose(found[1]["rates"][:8], np.geomspace(1e-3, 1e6, 60)[:8])
    assert np.ptp(losses) > 0.01


def test_it_ends_where_the_loss_has_blown_up_and_leaves_a_figure(found):
    folder, reported, text = found
    assert 10 < len(reported["losses"]) == len(reported["rates"]) < 60
    assert (
        1e-3
        < reported["suggested"]
        <= reported["steepest"]
        < reported["rates"][int(np.argmin(reported["smoothed"]))]
        < 100
    )
    assert json.loads((folder / "a" / "lr.json").read_text()) == reported
    assert (
        folder / "a" / "lr.png"
    ).stat().st_size > 5000 and f"try --optimizer.lr {reported['suggested']:.2g} (the config has " in text


def test_the_smoothed_loss_is_a_mean_without_bias():
    np.testing.assert_allclose(list(lr_finder.smooth([2.0] * 5)), 2.0)
    np.testing.assert_allclose(list(lr_finder.smooth([1.0, 3.0])), [1.0, (0.09 * 1 + 0.1 * 3) / 0.19])


def test_rates_that_do_not_lower_the_loss_are_refused():
    with pytest.raises(ConfigError, match=r"--low: no rate from 0.001 to 1 lowered the loss"):
        lr_finder.suggest(np.geomspace(1e-3, 1, 20), list(np.linspace(1, 5, 20)))


def test_a_first_step_that_is_not_finite_is_one_line():
    """Of what is not finite before any rate has an effect, no rate can be suggested."""
    with pytest.raises(ConfigError, match=r"^no learning rate can be suggested: .* at the first step[^\n]*chaos\.z0$"):
        lr_finder.suggest(np.array([]), [])


def test_where_the_result_cannot_be_written_no_step_is_trained(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(lr_finder, "initial_state", lambda *_: pytest.fail("the output was not checked first"))
    with pytest.raises(ConfigError, match=r"notes.txt: cannot be written \(File exists\); give another directory"):
        lr_finder.find(SMALL, out=tmp_path / "notes.txt")


def test_the_page_names_options_that_are_and_are_off():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "training.md").read_text()
    section = page.partition("## Regularisation, averaging")[2].partition("\n## ")[0]
    named = re.findall(r"^\| .*`--([a-z.-]+) ", section, re.MULTILINE)
    assert len(named) == 8
    assert all(not flatten(Config())[name.replace("-", "_")] for name in named)
