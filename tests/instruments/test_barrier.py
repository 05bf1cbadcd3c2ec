"""Loss barriers: of known losses, of a permuted copy, with statistics by hand, after perturbations."""

import dataclasses
import functools
import itertools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import learner, models
from csbp_jax.config import ConfigError, Model
from csbp_jax.config import Neuron as NeuronConfig
from csbp_jax.instruments import barrier, unit_matching
from csbp_jax.instruments.training_map import TrainingMap
from tests.support import small_net

MODEL = small_net.CONFIG.model


def learnable(seed):
    """A batch in which the class is that of the largest of the first three inputs."""
    x = small_net.batch(seed, 32)["x"]
    return {"x": x, "y": jnp.argmax(x[:, 0, :3], axis=-1)}


BATCHES = [learnable(0), learnable(1)]


@pytest.fixture(scope="module")
def run():
    return TrainingMap(small_net.recipe(), BATCHES[0])


@pytest.fixture(scope="module")
def learned():
    """The weights of a net that has learned two batches."""
    state = small_net.first_state(small_net.recipe())
    for step in range(50):
        state, metrics = small_net.train_step(small_net.recipe(), state, BATCHES[step % 2])
    assert metrics["task_loss"] < 0.8
    return learner.weights_of(state)


@pytest.fixture
def trained_run_twice(tmp_path, trained):
    """A folder whose runs ``a`` and ``b`` are the same run."""
    (tmp_path / "runs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "runs" / name).symlink_to(trained)
    return tmp_path


def permuted(weights, features, spatial=1):
    """The same network with permuted units, by indexing that is written out."""
    first, second = (np.random.default_rng(n).permutation(n) for n in features)
    params, stats = jax.tree.map(lambda leaf: leaf, (weights["params"], weights["batch_stats"]))
    names, synapse = [name for name in params if name != "readout"], "conv" if "conv1" in params else "dense"
    for name, order in zip(names, (first, second), strict=True):
        params[name][synapse] = {k: v[..., order] for k, v in params[name][synapse].items()}
        for tree in (params, stats):
            tree[name]["norm"] = {k: v if k == "p" else v[..., order] for k, v in tree[name]["norm"].items()}
        if "w" in params[name].get("neuron", {}):
            params[name]["neuron"] = {"w": params[name]["neuron"]["w"][order]}
    params[names[1]][synapse] = {k: v[..., first, :] for k, v in params[names[1]][synapse].items()}
    rows = np.arange(spatial * features[1]).reshape(spatial, features[1])[:, second].ravel()
    params["readout"]["kernel"] = params["readout"]["kernel"][rows]
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    ("loss", "start", "end", "expected", "above_line"),
    [
        (lambda x: 1 - x**2, -1, 1, 1, 1),  # the barrier of a parabola between its zeros
        (lambda x: (x**2 - 1) ** 2, -1, 1, 1, 1),  # a double well
        (lambda x: x**2, -1, 1, 0, 0),  # a valley has none
        (lambda x: x**2, 0, 2, 2, 0),  # ends of different loss give half their difference
        (lambda x: 3 - x, 0, 2, 1, 0),
        (lambda x: x + (x == 1), 0, 2, 1, 1),
        (lambda x: np.where(x == 1, np.nan, x), 0, 2, np.nan, np.nan),  # a lost loss is not hidden
    ],
)
def test_barriers_of_known_losses(loss, start, end, expected, above_line):
    losses = loss(np.linspace(start, end, 21))
    assert barrier.loss_barrier(losses) == pytest.approx(expected, nan_ok=True)
    assert barrier.barrier_above_line(losses) == pytest.approx(above_line, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("measure", [barrier.loss_barrier, barrier.barrier_above_line])
def test_losses_without_a_line_are_refused(measure):
    with pytest.raises(ValueError, match=rf"{measure.__name__}: losses are \[2\]; pass three or more, with both ends"):
        measure([1.0, 2.0])


def test_a_permuted_copy_has_a_barrier_until_its_units_are_matched(run, learned):
    copy = permuted(learned, MODEL.features)
    before = barrier.between(run, learned, copy, BATCHES)
    assert before["losses"][0] == pytest.approx(before["losses"][-1], rel=1e-4) and len(before["losses"]) == 21
    assert before["barrier"] > 0.2 and min(before["accuracies"]) < before["accuracies"][0]
    matched = unit_matching.match_units(MODEL, learned, copy)
    jax.tree.map(np.testing.assert_array_equal, matched, jax.tree.map(np.asarray, learned))
    after = barrier.between(run, learned, matched, BATCHES, points=3)
    assert after["barrier"] == pytest.approx(0, abs=1e-6)


DECAYS = NeuronConfig(learn="channel")
OPTIONS: dict[str, dict[str, Any]] = {
    "tebn": {"norm": "tebn", "neuron": DECAYS},
    "bntt": {"norm": "bntt", "neuron": DECAYS},
    "psn": {"neuron": NeuronConfig(name="psn")},
    "psn of more units": {"neuron": NeuronConfig(name="psn"), "features": (6, 5)},
    "sliding_psn": {"neuron": NeuronConfig(name="sliding_psn", order=4)},
    "delays": {"max_delay": 2},
}


@pytest.mark.parametrize(
    ("name", "options"), [*itertools.product(["dense", "small_conv"], [*OPTIONS][:-1]), ("dense", "delays")]
)
def test_all_parameters_of_a_unit_move_with_it(name, options):
    """As many units as time steps, but once, so that a parameter of time could be mistaken for one of the units."""
    sizes: dict[str, Any] = {"input_shape": (4, 4, 1), "classes": 3, "time_steps": 4, "features": (4, 4)}
    model = Model(name=name, **sizes | OPTIONS[options])
    x = jax.random.normal(jax.random.key(0), (3, 1, 4, 4, 1))
    network = models.build(model)
    variables = jax.jit(lambda key: network.init(key, x, False))(jax.random.key(1))
    # Every number differs from every other, so that nothing passes by being equal.
    rng = np.random.default_rng(2)
    weights = jax.tree.map(lambda leaf: np.abs(leaf + rng.normal(size=leaf.shape).astype(np.float32)), variables)
    copy = permuted(weights, model.features, 4 if name == "small_conv" else 1)
    apply = jax.jit(lambda variables: network.apply(variables, x, False)[0])
    np.testing.assert_allclose(apply(copy), apply(weights), rtol=1e-5, atol=1e-5)
    matched = unit_matching.match_units(model, weights, copy)
    jax.tree.map(np.testing.assert_array_equal, matched, jax.tree.map(np.asarray, weights))


def test_statistics_are_estimated_again_at_each_point():
    """The mean over the batches of their means and unbiased variances, computed by hand for a single layer."""
    model = dataclasses.replace(MODEL, features=(5,))
    config = dataclasses.replace(
        small_net.CONFIG, model=model, chaos=dataclasses.replace(small_net.CONFIG.chaos, taps=(), z0=(0.0,))
    )
    recipe = small_net.recipe(config)
    first, second = (learner.weights_of(small_net.first_state(recipe, seed)) for seed in (0, 1))
    measured = barrier.between(TrainingMap(recipe, BATCHES[0]), first, second, BATCHES, points=3)

    middle = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    currents = np.stack([np.asarray(b["x"][:, 0] @ middle["params"]["fc1"]["dense"]["kernel"]) for b in BATCHES])
    n = 32 * model.time_steps  # the current is repeated over time
    by_hand = {"mean": currents.mean(axis=(0, 1)), "var": currents.var(axis=1).mean(axis=0) * n / (n - 1)}

    @jax.jit
    def loss(batch):
        weights = {"params": middle["params"], "batch_stats": {"fc1": {"norm": by_hand}}}
        return recipe.loss(recipe.model.apply(weights, batch["x"], False)[0], batch["y"])

    assert measured["losses"][1] == pytest.approx(np.mean([loss(batch) for batch in BATCHES]), rel=1e-5)


def test_a_rescaled_copy_has_no_barrier_as_its_statistics_are_estimated_again(run, learned):
    """Batch norm removes the scale of a kernel, if its statistics are those of the kernel; running ones lag behind."""
    kernel = 0.1 * learned["params"]["fc1"]["dense"]["kernel"]
    params = learned["params"] | {"fc1": learned["params"]["fc1"] | {"dense": {"kernel": kernel}}}
    copy = {"params": params, "batch_stats": learned["batch_stats"]}
    measured = barrier.between(run, learned, copy, BATCHES, points=5)
    np.testing.assert_allclose(measured["losses"], measured["losses"][0], rtol=1e-3)
    stale = small_net.eval_step(
        run.recipe,
        dataclasses.replace(small_net.first_state(run.recipe), **copy),
        BATCHES[0] | {"mask": jnp.ones(32, bool)},
    )
    assert stale["loss"] / 32 > 1.2 * measured["losses"][-1]


def test_a_perturbation_of_size_0_leaves_the_run_as_it_is(run, monkeypatch):
    # Of each line both ends and the middle.
    monkeypatch.setattr(barrier, "between", functools.partial(barrier.between, points=3))
    plan = barrier.Perturbations(steps=4, times=(0, 4), sizes=(0.0, 1.0))
    results = barrier.after_perturbation(run, BATCHES, plan)
    assert [(row["time"], row["size"]) for row in results] == [(0, 0.0), (0, 1.0), (4, 0.0), (4, 1.0)]
    for row in results:
        first, last = row["losses"]
        if row["size"] == 0:
            assert row["distance"] == 0 and first == last
            assert row["barrier"] == pytest.approx(0, abs=1e-6) == row["matched"]
        else:
            assert row["distance"] > 0.3 and first != last and row["matched"] is not None
    # At the end nothing is trained: the distance is that of the noise, as large as the start.
    assert results[3]["distance"] == pytest.approx(1, rel=0.3)
    assert results[0]["losses"][0] == results[3]["losses"][0]


def test_the_python_of_the_page_compares_two_runs(trained_run_twice, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "barrier" in block]
    monkeypatch.chdir(trained_run_twice)
    exec(blocks[0], {})
    assert float(capsys.readouterr().out) == pytest.approx(0, abs=1e-6)


def test_networks_that_cannot_be_compared_are_refused_in_one_line(run, learned):
    with pytest.raises(
        ConfigError, match=r"model.name: hidden units of vgg9 cannot be matched; possible for dense, sm"
    ):
        unit_matching.match_units(Model(name="vgg9"), learned, learned)
    params = learned["params"] | {"readout": {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)}}
    for compare in (
        lambda: unit_matching.match_units(MODEL, learned, {"params": params}),
        lambda: barrier.between(run, learned, {"params": params}, BATCHES),
    ):
        with pytest.raises(ConfigError, match="the two networks differ in their layers; pass two networks of the same"):
            compare()
    with pytest.raises(ConfigError, match="match_units: the layers fc1, fc2, readout are not those of small_conv"):
        unit_matching.match_units(Model(name="small_conv"), learned, learned)
    with pytest.raises(ValueError, match=r"losses are \[2\]; pass three or more, with both ends"):
        barrier.between(run, learned, learned, BATCHES, points=2)
    with pytest.raises(ValueError, match=r"times \[5\], 2 batches; pass times from 0 to 4 and a batch"):
        barrier.after_perturbation(run, BATCHES, barrier.Perturbations(steps=4, times=(0, 5)))
