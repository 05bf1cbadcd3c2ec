"""The study of methods: its mixed model is that of least squares, its flow and its words those of the plan."""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax import learner, losses, models
from csbp_jax.config import replaced
from csbp_jax.learner import optimizer
from experiments.claims import runs
from experiments.claims.forest import __main__ as forest
from experiments.claims.forest import analysis, methods, pages, training

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "results" / "claims_forest"
OPTIONS = argparse.Namespace(side=None, labels=None, epochs=1, width=1.0, data_dir="nowhere")


def least_squares(accuracy):
    """Effect of the term, its interval, and F of the interaction, of ``[methods, seeds, 2]`` by nested models."""
    count, seeds, _ = accuracy.shape
    method, seed, term = np.indices(accuracy.shape).reshape(3, -1)
    y = accuracy.reshape(-1)
    blocks = np.eye(count * seeds)[method * seeds + seed]  # seed within method
    sign = (term - 0.5)[:, None]
    contrasts = np.eye(count)[method][:, 1:] - np.eye(count)[method][:, :1]  # sum to zero: the effect is the mean
    additive, full = np.hstack([blocks, sign]), np.hstack([blocks, sign, sign * contrasts])

    def residual(design):
        return float(np.sum((y - design @ np.linalg.lstsq(design, y)[0]) ** 2))

    freedom = len(y) - np.linalg.matrix_rank(full)
    variance = residual(full) / freedom
    effect = float(np.linalg.lstsq(full, y)[0][count * seeds])
    error = np.sqrt(variance * np.linalg.pinv(full.T @ full)[count * seeds, count * seeds])
    half = stats.t.ppf(0.975, freedom) * error
    return effect, effect - half, effect + half, (residual(additive) - residual(full)) / (count - 1) / variance


def test_the_mixed_model_is_that_of_least_squares():
    generator = np.random.default_rng(0)
    accuracy = (
        generator.normal(50, 2, (5, 1, 1)) + generator.normal(0, 1, (5, 7, 1)) + generator.normal(0, 1, (5, 7, 2))
    )
    accuracy[:, :, 1] += generator.normal(0.5, 1, (5, 1))
    result = analysis.pooled(accuracy[:, :, 1] - accuracy[:, :, 0])
    expected = least_squares(accuracy)
    assert [result[name] for name in ("mean", "low", "high", "F")] == pytest.approx(expected)
    assert result["p_interaction"] == pytest.approx(stats.f.sf(expected[3], 4, 30))
    assert result["n"] == 35 and result["random_low"] < result["mean"] < result["random_high"]


def test_equal_effects_have_no_spread_over_methods():
    noise = np.random.default_rng(1).normal(0, 1, (4, 12))
    noise -= noise.mean(axis=1, keepdims=True)
    result = analysis.pooled(0.2 + noise)
    assert result["tau"] == 0 and result["F"] == pytest.approx(0, abs=1e-20) and result["tost"] < 0.05


def test_weights_by_precision_are_those_of_the_textbook():
    # Two methods of variances 1/4 and 1 of the mean, means 0 and 3: Q = 7.2, tau**2 = (7.2 - 1) / 1.6.
    result = analysis.weighted(np.array([[-0.5, 0.5], [2.0, 4.0]]))
    weights = 1 / (np.array([0.25, 1.0]) + 6.2 / 1.6)
    assert result["mean"] == pytest.approx(3 * weights[1] / weights.sum())
    assert result["p_Q"] == pytest.approx(stats.chi2.sf(7.2, 1))


def test_the_interval_by_precision_covers_the_mean_of_methods_that_differ():
    generator, covered = np.random.default_rng(0), []
    spreads = np.array([0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 2.0, 4.0])[:, None]
    for _ in range(300):
        effects = generator.normal(0, 2, (9, 1))
        result = analysis.weighted(effects + spreads * generator.normal(size=(9, 12)))
        covered.append(result["low"] < 0 < result["high"])
    assert np.mean(covered) > 0.93  # 0.89 with quantiles of the normal distribution


def test_a_single_method_shows_in_what_is_pooled_without_it():
    noise = np.random.default_rng(0).normal(0, 0.1, 12)
    effects = analysis.leave_one_out({"a": noise, "b": noise, "c": noise - 9})
    assert effects["c"]["low"] < noise.mean() < effects["c"]["high"] and effects["c"]["low"] > -0.5
    assert effects["a"]["mean"] == pytest.approx(noise.mean() - 4.5) == pytest.approx(effects["b"]["mean"])


def analysed(gains, drift=0.0):
    """The analysis of CSBP's gains by method, in points, with noise of 0.1; the drift gains as much plus ``drift``."""
    noise = np.random.default_rng(2).normal(0, 0.1, (len(gains), 12))
    return analysis.analyse(
        {
            str(i): {"P": np.full(12, 50.0), "C": 50 + gain + noise[i], "D": 50 + gain + drift + noise[i, ::-1]}
            for i, gain in enumerate(gains)
        }
    )


def test_verdicts_are_the_words_of_the_plan():
    def words(*arguments, **options):
        result = analysed(*arguments, **options)
        return result["verdict"].partition(";")[0], result["any method"]

    assert words([1.0, 0.8, 0.0]) == ("the pull helps", "confirmed")
    assert words([1.0, 0.8, 0.5], drift=-0.4) == ("chaos helps", "confirmed")
    assert words([1.0, 1.0, -0.3]) == ("the pull helps", "refuted")
    assert words([0.0, 0.1, -0.1]) == ("nothing", "refuted")
    assert words([-1.0, -0.8, -0.9]) == ("harm", "refuted")
    assert words([4.0, -0.02, 0.0], drift=1.0) == ("not decided", "not decided")
    assert analysis.overall(["confirmed"] * 2) == "confirmed"
    assert analysis.overall(["confirmed", "not decided"]) == "not decided"
    assert analysis.overall(["not decided", "refuted"]) == "refuted"


def small_task(monkeypatch, name="digits_events"):
    """A task with random frames of 8x8."""
    use, generator = methods.DATA_SETS[name], np.random.default_rng(0)
    steps, channels = (1, 3) if name == "cifar10" else (use.time_steps, 2)
    frames = generator.normal(size=(40, steps, 8, 8, channels)).astype(np.float32), np.arange(40) % 10
    splits = [frames] * 3
    monkeypatch.setattr(methods, "_splits", lambda *arguments: splits)
    monkeypatch.setitem(methods.DATA_SETS, name, use._replace(labels=4, batch_size=10))
    return methods.load_task(name, OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("name", methods.DATA_SETS)
def test_every_method_trains_and_its_term_has_a_flip(monkeypatch, name, method):
    task = small_task(monkeypatch, name)
    trainer = training.Trainer(task._replace(config=methods.with_method(task.config, methods.METHODS[method])))
    result = trainer.train(training.Setting(0.05, 1.0), 0, True)
    assert result["bad"] == 0 and 0 <= result["test"] <= 1 and result["test"] == result["validation"]
    assert trainer.flip_ratio(0.05, 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_a_run_is_that_of_the_learner(monkeypatch, drift):
    task = small_task(monkeypatch)
    config = replaced(task.config, "chaos.term", "drift" if drift else "chaos")
    result = training.Trainer(task).train(training.Setting(0.05, 3.0, drift), 5, True)
    tx = optimizer.build(config.optimizer, config.epochs, task.steps_per_epoch)
    recipe = learner.make_recipe(
        models.build(config.model), tx, losses.build(config.loss), config, task.steps_per_epoch
    )
    drawn = runs.draw(task, 5, 0.0)
    state = learner.init(recipe, drawn.key, {"lr": 0.05, "z0": 3.0})
    x, step = task.train[0][drawn.pictures], jax.jit(lambda state, batch: learner.train_step(recipe, state, batch)[0])
    for rows in drawn.order.reshape(-1, config.batch_size):
        state = step(state, {"x": jnp.asarray(x[rows]), "y": jnp.asarray(drawn.labels[rows])})
    batch = {"x": task.test[0], "y": task.test[1], "mask": np.ones(40, bool)}
    assert result["test_loss"] == pytest.approx(float(learner.eval_step(recipe, state, batch)["loss"] / 40), rel=1e-3)


def test_the_flow_is_that_of_the_plan_and_resumes(tmp_path, monkeypatch, capsys):
    """With numbers in place of training: both terms gain two points, the best rate is 0.096 and strength 0.03."""
    trained = []

    class Trainer:
        def __init__(self, task):
            pass

        def train(self, setting, seed, test):
            trained.append(test)
            accuracy = 0.5 - 0.01 * abs(np.log(setting.lr / 0.09)) - 0.01 * abs(setting.z0 - 3 * (setting.z0 > 0))
            accuracy += 0.04 * (setting.z0 > 0) + np.random.default_rng([seed, len(trained)]).normal(0, 0.001)
            names = ("validation", "test") if test else ("validation",)
            return dict.fromkeys(names, accuracy) | {"validation_loss": 1.0, "bad": 0.0}

        def flip_ratio(self, lr, seed):
            return 0.01

    task = small_task(monkeypatch)
    monkeypatch.setattr(forest, "Trainer", Trainer)
    monkeypatch.setattr(methods, "load_task", lambda name, options: task)
    for name in set(methods.METHODS) - {"bn", "tdbn", "sew"}:
        monkeypatch.delitem(methods.METHODS, name)
    arguments = ["--seeds", "4", "--out", str(tmp_path)]
    forest.main(arguments)
    # 4 + 3 x 4 settings with 2 seeds, and 3 conditions with 4, of 3 methods on 2 data sets.
    assert len(trained) == 6 * (16 * 2 + 12) and sum(trained) == 6 * 12
    content = json.loads((tmp_path / "forest.json").read_text())
    assert content["data_marks"].keys() == methods.DATA_SETS.keys() and content["provenance"]["command"]
    cell = content["data"]["cifar10"]["cells"]["tdbn"]
    assert cell["chosen"] == {"P": "0.096", "C": "0.03", "D": "0.03"} and cell["seeds"] == [100, 101, 102, 103]
    assert content["verdict"] == "confirmed" and (tmp_path / "forest.png").exists()
    capsys.readouterr()
    forest.main(arguments)
    assert len(trained) == 6 * (16 * 2 + 12) and "The plan's rule for every method: **met**" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        forest.main([*arguments, "--labels", "5"])


def test_the_committed_table_is_that_of_the_data():
    content = json.loads((FOLDER / "forest.json").read_text())
    assert pages.page(content) + "\n" == (FOLDER / "table.md").read_text()
    stored = {name: values["analysis"] for name, values in content["data"].items() if "analysis" in values}
    analysed_again = pages.analyse(content)
    assert set(analysed_again) == set(stored) and stored
    for name, result in analysed_again.items():
        assert result["any method"] == stored[name]["any method"]
        for pair, values in result["pooled"].items():
            before = stored[name]["pooled"][pair]
            assert values.pop("weighted") == pytest.approx(before.pop("weighted"))
            assert values == pytest.approx(before)


def test_one_seed_is_refused_before_any_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        forest.main(["--seeds", "1", "--out", str(tmp_path / "out")])
    assert "--seeds: from 2 on" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_data_set_that_is_missing_is_left_out(tmp_path, capsys):
    forest.main(["--data", "cifar10", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "cifar10 is left out" in capsys.readouterr().out
