"""What trainers expect, off by default: label smoothing, averaged weights, early stopping."""

import dataclasses
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csbp_jax
from csbp_jax import configs, data, learner, losses, models, sweep
from csbp_jax.config import Chaos, Config, ConfigError, Loss, Model, Optimizer, replaced
from csbp_jax.evaluation import restore
from csbp_jax.learner import optimizer
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime.preemption import Stop, Stopped
from csbp_jax.training import compiled, loop
from csbp_jax.training.checkpoint import location
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=40,
    batch_size=256,
    checkpoint_every=5,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8,), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
)


def run(config, root, name="r", stop=None):
    text = io.StringIO()
    return train(config, root=root, name=name, console=Console(file=text, width=200), stop=stop), text.getvalue()


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Runs of the same config share one compilation."""
    known, compile = {}, loop.compile

    def once(config, source, *more):
        if config not in known:
            known[config] = compile(config, source, *more)
        return known[config]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile", once)
        yield


class After(Stop):
    """Tells a run to stop when it has been asked so many times: once a step, a validation and a batch of one."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    @property
    def code(self):
        self.times -= 1
        return 42 if self.times < 0 else None


# --- label smoothing ----------------------------------------------------------------------------------------------


@functools.cache
def tiny(**changes):
    """The three functions and a batch of a dense net, with any fields changed."""
    config = Config(
        model=Model(name="dense", input_shape=(6,), classes=3, time_steps=3, features=(7,)),
        chaos=Chaos(),
        optimizer=changes.pop("optimizer", Optimizer(name="sgd", lr=0.1, schedule="constant")),
        **changes,
    )
    tx = optimizer.build(config.optimizer, 1, 10)
    functions = map(jax.jit, learner.make(models.build(config.model), tx, losses.build(config.loss), config))
    rng = np.random.default_rng(0)
    batch = {"x": jnp.asarray(2 * rng.normal(size=(8, 1, 6)), jnp.float32), "y": jnp.asarray(rng.integers(0, 3, 8))}
    return tuple(functions), batch


@pytest.mark.parametrize("name", ["rate", "tet", "mse"])
def test_smoothing_is_the_loss_on_the_formulas_labels(name):
    """Of every loss; and of labels that are probabilities already, as mixup makes them."""
    plain, logits = losses.build(Loss(name)), jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 5)), jnp.float32)
    labels = jnp.arange(8) % 5
    hot = np.eye(5)[labels]
    mixed = 0.6 * hot + 0.4 * np.roll(hot, 1, axis=0)
    for given, rows in ((labels, hot), (jnp.asarray(mixed, jnp.float32), mixed)):
        told = plain(logits, losses.smoothed(given, 5, 0.3))
        expected = plain(logits, jnp.asarray(0.7 * rows + 0.3 / 5, jnp.float32))
        np.testing.assert_allclose(told, expected, rtol=1e-5)
        assert abs(expected - plain(logits, given)) > 1e-3


def test_labels_are_smoothed_in_training_and_not_in_evaluation():
    ((_, step, evaluate), batch), ((init, plain_step, plain_evaluate), _) = tiny(loss=Loss(smoothing=0.3)), tiny()
    state = init(jax.random.key(0))
    smooth = batch | {"y": losses.smoothed(batch["y"], 3, 0.3)}
    told = step(state, batch)[1]["task_loss"]
    np.testing.assert_allclose(told, plain_step(state, smooth)[1]["task_loss"], rtol=1e-5)
    masked = batch | {"mask": jnp.ones(8, bool)}
    assert evaluate(state, masked)["loss"] == plain_evaluate(state, masked)["loss"] != 8 * told


# --- averaged weights ---------------------------------------------------------------------------------------------


def test_averages_equal_the_closed_form_and_leave_training_alone():
    """w~[n] = d**n w[0] + (1 - d) sum_i d**(n - i) w[i], of running statistics too; a bad step changes nothing."""
    decay, moving = 0.8, Optimizer(name="sgd", lr=0.1, schedule="constant", ema=0.8)
    (init, step, _), batch = tiny(optimizer=moving)
    (plain_init, plain_step, _), _ = tiny()
    state, plain = (begin(jax.random.key(0)) for begin in (init, plain_init))
    assert not jax.tree.leaves(plain.ema)
    seen = [weights(state)]
    for _ in range(4):
        (state, _), (plain, _) = step(state, batch), plain_step(plain, batch)
        seen.append(weights(state))
    jax.tree.map(np.testing.assert_array_equal, weights(state), weights(plain))
    powers = [decay**4, *((1 - decay) * decay ** (4 - i) for i in range(1, 5))]
    expected = jax.tree.map(lambda *leaves: sum(p * leaf for p, leaf in zip(powers, leaves, strict=True)), *seen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.ema, expected)
    assert np.abs(state.ema["params"]["fc1"]["dense"]["kernel"] - state.params["fc1"]["dense"]["kernel"]).max() > 1e-3
    after, told = step(state, batch | {"x": batch["x"].at[0].set(jnp.nan)})
    assert told["bad_steps"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.ema, state.ema)


def weights(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


ALL_ON = dataclasses.replace(SMALL, patience=1, optimizer=Optimizer(lr=0.05, schedule="constant", ema=0.9))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with averages and patience."""
    root = tmp_path_factory.mktemp("whole")
    return root / "r", *run(ALL_ON, root)


def test_averages_are_checkpointed_evaluated_and_loaded(whole, tmp_path):
    folder, result, text = whole
    assert "moving average" in text and json.loads((folder / "config.json").read_text())["config"]["optimizer"]["ema"]
    last = read_rows(folder / "metrics.jsonl")[-1]
    assert last["ema_validation_accuracy"] == result["ema"]["validation_accuracy"]
    assert last["ema_validation_loss"] != last["validation_loss"]
    opened = restore.restore(folder, "ema")
    test = data.load(opened.config)["test"]
    right = np.asarray(jax.jit(opened.apply)(opened.variables, test.x)[0]).mean(1).argmax(1) == test.y
    assert right.mean() == pytest.approx(result["ema"]["test_accuracy"], abs=1e-9)
    assert result["ema"]["test_loss"] != result["last"]["test_loss"]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text().replace('"ema": 0.9', '"ema": 0.0'))
    with pytest.raises(ConfigError, match=r"has no moving average of its weights \(optimizer.ema 0\)"):
        csbp_jax.load(tmp_path, "ema")


def test_averages_start_from_loaded_weights(monkeypatch):
    config = compiled.resolve(ALL_ON, parts := data.load(SMALL))
    program = compiled.compile_run(replaced(config, "weights", "file"), parts["train"], 1)
    other = program.init(jax.random.key(7))
    monkeypatch.setattr(compiled.weights, "load", lambda *_, **__: weights(other))
    state = compiled.initial_state(program, print)
    jax.tree.map(np.testing.assert_array_equal, state.ema, weights(other))


def test_a_sweep_tabulates_averages(whole, tmp_path):
    """Of a member as of the run alone, over as many epochs; and it refuses patience."""
    with pytest.raises(ConfigError, match=r"patience: \d is not possible in a sweep"):
        sweep.run(ALL_ON, {"seed": [0, 1]}, root=tmp_path, console=Console(file=io.StringIO()))
    config = replaced(replaced(ALL_ON, "patience", 0), "epochs", 1)
    sweep.run(config, {"seed": [0, 1]}, name="s", root=tmp_path, console=Console(file=io.StringIO()))
    header, row, _ = (tmp_path / "s" / "epochs.csv").read_text().splitlines()
    first = next(row for row in read_rows(whole[0] / "metrics.jsonl") if row["kind"] == "epoch")
    told = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(told["ema_validation_loss"]) == pytest.approx(first["ema_validation_loss"], rel=2e-3)
    assert "ema_test_accuracy" in (tmp_path / "s" / "members.csv").read_text()


# --- early stopping -----------------------------------------------------------------------------------------------


def validations(folder):
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "epoch"]
    return [(row["validation_accuracy"], -row["validation_loss"]) for row in rows]


def test_it_stops_at_the_first_epoch_that_is_no_better(whole):
    folder, result, text = whole
    found = validations(folder)
    worse = next(n for n in range(1, len(found)) if found[n] <= max(found[:n]))
    assert result["last"]["epoch"] == len(found) == worse + 1 < ALL_ON.epochs
    assert result["chosen"]["epoch"] == worse and found[worse - 1] == max(found)
    assert result["stopped_early"] and f"stopped early: no epoch after {worse} was better in validation" in text
    assert location.steps(folder / "checkpoints")[-1] == len(found) * 4


def test_killed_and_resumed_it_stops_at_the_same_epoch(whole, tmp_path):
    """Stopped within its second epoch; and killed between the last checkpoint and the result."""
    folder, result, _ = whole
    with pytest.raises(Stopped):
        run(ALL_ON, tmp_path, stop=After(8))
    for _ in range(2):
        assert {**run(ALL_ON, tmp_path)[0], "seconds": 0} == {**result, "seconds": 0}
        assert validations(tmp_path / "r") == validations(folder)
        (tmp_path / "r" / "result.json").unlink()


@pytest.mark.parametrize(("patience", "ended", "chosen", "over"), [
    (0, 9, 1, False), (3, 3, 1, False), (3, 4, 1, True), (3, 0, 0, False), (1, 1, 1, False),
])  # fmt: skip
def test_patience_counts_the_epochs_since_the_best(patience, ended, chosen, over):
    saved = {"chosen": {"epoch": np.asarray(chosen)}}
    assert loop._out_of_patience(replaced(SMALL, "patience", patience), saved, ended) == over
