"""Twins: a record replayed is the run again, sizes are those of the record, and what cannot be is told in one line."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import Own, configs, controls, data
from csbp_jax.config import Chaos, ConfigError, Data, Optimizer, replaced
from csbp_jax.instruments import replay
from csbp_jax.training.compiled import resolve

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
def parts(tmp_path_factory):
    return data.load(DENSE, tmp_path_factory.mktemp("data"))


def apart(one, other):
    return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.parametrize("kind", ["dense", "conv, augmented"])
def test_a_record_replayed_from_the_same_start_is_the_run_again(x64, parts, kind):
    """Through Adam, decay and clipping: the pushes are part of the gradient."""
    config = DENSE
    if kind != "dense":
        model = dataclasses.replace(DENSE.model, name="small_conv")
        chaos = dataclasses.replace(DENSE.chaos, taps=("conv1.membrane", "conv1.norm"), z0=(30.0, 10.0), anneal="step")
        config = dataclasses.replace(DENSE, epochs=1, model=model, chaos=chaos, data=Data(augment=("mixup",)))
    config = resolve(config, parts)
    csbp = replay.make(config, parts["train"])
    end, record = replay.record(csbp, 3)
    twin = replay.make(replaced(config, "chaos.z0", (0.0,)), parts["train"], REPLAY)
    assert apart(replay.train(twin, 3, record).params, end.params) < 1e-10
    assert apart(replay.train(twin, 3, jax.tree.map(lambda r: r[::-1], record)).params, end.params) > 1e-4


def test_sizes_are_the_records_root_mean_squares(parts):
    run = replay.make(resolve(DENSE, parts), parts["train"])
    end, record = replay.record(run, 0)
    again, sizes = replay.record_sizes(run, 0)
    assert apart(end.params, again.params) == 0
    assert all(leaf.shape == (6,) for leaf in jax.tree.leaves(sizes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), sizes, controls.rms(record))
    assert run.evaluate(end, parts["validation"])["count"] == len(parts["validation"])


def test_the_pages_python_forces_a_run_by_its_twins_sizes(tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    monkeypatch.setattr(configs, "load", lambda name: replaced(DENSE, "epochs", 1))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    assert float(capsys.readouterr().out.split("'accuracy': ")[1].split(",")[0]) <= 1
    forced = names["state"].opt_state[0]
    assert int(names["state"].step) == 3 and type(forced).__name__ == "Forced"
    assert apart(names["state"].hparams["forcing"], names["sizes"]) == 0


@pytest.mark.parametrize("anneal", ["epoch", "step"])
def test_annealing_is_that_of_the_run(parts, anneal):
    run = replay.make(resolve(replaced(DENSE, "chaos.anneal", anneal), parts), parts["train"])
    expected = [1, 1, 1, 0.5, 0.5, 0.5] if anneal == "epoch" else 0.5 ** np.arange(6)
    np.testing.assert_allclose(replay.annealing(run), expected)


def test_a_record_without_its_annealing_is_drawn_and_annealed_again(x64):
    """The pushes keep their size at each step, but for z, and z = 0 stays 0."""
    z = jnp.asarray([8.0, 4.0, 2.0, 1.0, 0.0])
    signs = jnp.asarray([[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])
    drawn = controls.annealed(lambda r: controls.shuffled(jax.random.key(4), r), z, {"w": z[:, None] * signs})["w"]
    rows = np.asarray(drawn[:4] / z[:4, None])
    known = np.asarray(signs.at[4].set(0.0))
    assert not np.allclose(rows, signs[:4]) and np.all(drawn[4] == 0)
    assert all(np.any(np.all(np.isclose(known, row), axis=1)) for row in rows)
    whole = controls.annealed(lambda record: record, z, {"w": z[:, None] * signs})["w"]
    np.testing.assert_allclose(whole, z[:, None] * signs, rtol=1e-12)


def test_what_cannot_be_recorded_is_told_in_one_line(parts):
    config = resolve(DENSE, parts)
    run = replay.make(config, parts["train"])
    with pytest.raises(ConfigError, match=r"record: 6 steps of \d+ parameters take .* GiB, more than 9.31e-07; take"):
        replay.record(run, 0, most=1000)
    for field, value in (("chaos.z0", (0.0,)), ("chaos.substeps", 3)):
        with pytest.raises(ConfigError, match=field):
            replay.record(replay.make(replaced(config, field, value), parts["train"]), 0)
    for field, value in (("chaos.unit", "flip"), ("weights", "a.pt"), ("patience", 2)):
        with pytest.raises(ConfigError, match=f"{field}: not possible in a run that is recorded"):
            replay.make(replaced(config, field, value), parts["train"])
    with pytest.raises(ConfigError, match="forcing: missing"):
        replay.train(replay.make(resolve(PLAIN, parts), parts["train"], REPLAY), 0)
