"""The study of generalisation: its steps are the package's, its flow the plan's, its verdicts the plan's words."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, data, learner, losses, models
from csbp_jax.config import ConfigError, replaced
from csbp_jax.data.source import ArraySource
from csbp_jax.learner import optimizer
from experiments import study
from experiments.claims import events, generalisation, report, runs, settings, spike_timing
from experiments.statistics import holm
from tests.support import small_net

BASE = dataclasses.replace(
    small_net.CONFIG,
    epochs=2,
    batch_size=8,
    chaos=dataclasses.replace(small_net.CONFIG.chaos, z0=(3.0,), taps=("fc1.membrane",), anneal="epoch"),
    optimizer=dataclasses.replace(small_net.SGD, weight_decay=0.0),
)
X, Y = np.asarray(small_net.batch(size=24)["x"], np.float32), np.arange(24) % 3
TASK = runs.Task(BASE, 8, (X, Y), (X, Y), (X, Y))
KNOBS = runs.OFF | {"z0": 3.0, "beta": 0.9}
STEPS: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {
    "chaos": ("plain", {}, {}),
    "drift": ("plain", {"chaos": 0.0, "drift": 1.0}, {"chaos.term": "drift"}),
    "linear": ("plain", {"chaos": 0.0, "linear": 1.0}, {"chaos.term": "linear"}),
    "smoothing": ("plain", {"smoothing": 0.2}, {"loss.smoothing": 0.2}),
    "decay": ("plain", {"decay": 0.1}, {"optimizer.weight_decay": 0.1}),
    "membrane": ("plain", {"membrane": 0.7}, {"loss.membrane": 0.7}),
    "width": ("plain", {"width": 0.5}, {"model.neuron.surrogate_param": 0.5}),
    "sub-steps": ("substeps", {}, {"chaos.substeps": 10}),
    "SAM": ("sam", {"radius": 0.3}, {"optimizer.sam_radius": 0.3}),
}


@pytest.mark.parametrize(
    "name", [name if name in ("membrane", "SAM") else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]
)
def test_a_step_equals_that_of_a_config_with_the_same_options(x64, name):
    kind, knobs, fields = STEPS[name]
    config = BASE
    for field, value in fields.items():
        config = replaced(config, field, value)
    tx = optimizer.build(config.optimizer, config.epochs, TASK.steps_per_epoch)
    expected = learner.make_recipe(models.build(config.model), tx, losses.build(config.loss), config, 3)
    knobs = {knob: jnp.float64(value) for knob, value in (KNOBS | knobs).items()}
    batch = small_net.batch()

    @jax.jit
    def step(knobs):
        recipe = runs.make_recipe(TASK, kind, knobs)
        return learner.train_step(recipe, runs.first_state(TASK, recipe, jax.random.key(0), knobs), batch)[0].params

    start = small_net.init(expected, jax.random.key(0))
    after = small_net.train_step(expected, start, batch)[0].params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), step(knobs), after)
    still = jax.tree.map(lambda a, b: np.abs(a - b).max(), start.params, after)
    assert max(jax.tree.leaves(still)) > 1e-3


@pytest.mark.slow
def test_noise_is_as_large_as_the_terms_gradient_and_dropout_spares_whole_columns(x64):
    knobs = {knob: jnp.float64(value) for knob, value in KNOBS.items()}
    recipe = runs.make_recipe(TASK, "noise", knobs)
    state, batch = runs.first_state(TASK, recipe, jax.random.key(0), knobs), small_net.batch()
    parts = learner.gradients(recipe, state, batch)
    _, gradient = recipe.value_and_grad(recipe, state, batch)
    added = gradient["fc1"]["dense"]["kernel"] - parts["task"]["fc1"]["dense"]["kernel"]
    term = parts["chaos"]["fc1"]["dense"]["kernel"]
    assert float(jnp.std(added) / jnp.sqrt(jnp.mean(term**2))) == pytest.approx(1, abs=0.4)
    np.testing.assert_allclose(gradient["readout"]["kernel"], parts["task"]["readout"]["kernel"], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dense", "small_conv"])
def test_runs_of_a_program_are_those_of_the_learner(network):
    """The second of two runs, CSBP with annealing, over its epochs and batches, in a chunk that is padded."""
    config, pictures = BASE, X
    if network == "small_conv":
        pictures = np.asarray(np.random.default_rng(0).normal(size=(24, 1, 4, 4, 1)), np.float32)
        model = dataclasses.replace(BASE.model, name=network, input_shape=(4, 4, 1), features=(3, 3))
        config = replaced(replaced(config, "model", model), "chaos.taps", ("conv1.membrane",))
    task = runs.Task(config, 8, (pictures, Y), (pictures, Y), (pictures, Y))
    draws = [runs.draw(task, seed, 0.25) for seed in (0, 1)]
    result = runs.train(task, "plain", [runs.OFF, KNOBS], draws, 3)[1]

    tx = optimizer.build(config.optimizer, config.epochs, task.steps_per_epoch)
    recipe = learner.make_recipe(models.build(config.model), tx, losses.build(config.loss), config, 3)
    state, x = learner.init(recipe, draws[1].key), pictures[draws[1].pictures]
    for rows in draws[1].order.reshape(-1, config.batch_size):
        batch = {"x": jnp.asarray(x[rows]), "y": jnp.asarray(draws[1].labels[rows])}
        state, _ = small_net.train_step(recipe, state, batch)
    sums = small_net.eval_step(recipe, state, {"x": pictures, "y": Y, "mask": np.ones(24, bool)})
    assert result["test"] == pytest.approx(float(sums["correct"] / 24))
    assert result["test_loss"] == pytest.approx(float(sums["loss"] / 24), rel=1e-3)


def test_a_draw_has_as_many_pictures_of_each_class_and_exactly_its_share_of_wrong_labels():
    clean, wrong = runs.draw(TASK, 3, 0.0), runs.draw(TASK, 3, 0.25)
    np.testing.assert_array_equal(np.bincount(Y[clean.pictures]), [8, 8, 8])
    np.testing.assert_array_equal(clean.labels, Y[clean.pictures])
    np.testing.assert_array_equal(clean.pictures, wrong.pictures)
    assert (clean.labels != wrong.labels).sum() == 6 and set(wrong.labels) <= {0, 1, 2}
    for rows in clean.order:
        assert sorted(rows.ravel()) == list(range(24))
    assert (runs.draw(TASK, 4, 0.25).pictures != wrong.pictures).any()


def stored(folder):
    return json.loads((folder / "generalisation.json").read_text())


def drawn_at_random(trained):
    """Results in place of training: C is better than all others by two points. ``trained`` collects the kinds."""

    def train(task, kind, knobs, draws, pad):
        trained.extend(kind for _ in knobs)
        results: list[dict[str, float]] = []
        for own, drawn in zip(knobs, draws, strict=True):
            seed = int(np.asarray(jax.random.key_data(drawn.key))[-1])
            accuracy = 0.8 + 0.02 * (own["z0"] > 0 and own["chaos"] > 0 and kind == "plain")
            accuracy += np.random.default_rng([seed, len(trained), len(results)]).normal(0, 0.005)
            names = ("validation", "test", "chosen_test", "train")
            results.append(dict.fromkeys(names, accuracy) | {"validation_loss": 1.0, "test_loss": 1.0})
        return results

    return train


def test_the_flow_is_that_of_the_plan_and_resumes(tmp_path, monkeypatch, capsys):
    trained: list[str] = []
    figures: list[Any] = []
    draw, save_figure = report.draw, study.save_figure

    def draw_first(arms):
        """Of the 18 figures the first, in which most conditions are missing; the last one is drawn below."""
        figures.append(arms)
        return draw(arms) if len(figures) == 1 else None

    def save_drawn(figure, *arguments):
        if figure is not None:
            save_figure(figure, *arguments)

    monkeypatch.setattr(report, "draw", draw_first)
    monkeypatch.setattr(study, "save_figure", save_drawn)
    monkeypatch.setattr(runs, "train", drawn_at_random(trained))
    monkeypatch.setattr(runs, "flip_ratio", lambda task, knobs, drawn: 0.01)
    arguments = ["--data", "digits", "cifar10", "--seeds", "16", "--out", str(tmp_path), "--data-dir", str(tmp_path)]
    generalisation.main(arguments)
    assert "cifar10 is left out" in capsys.readouterr().out
    tested = sum(11 * 16 + 16 * (arm["base"] != arm["chosen"]["P"]) for arm in stored(tmp_path)["arms"].values())
    count = 2 * (16 * 3 + 10 * 8 * 3) + tested
    assert len(trained) == count and trained.count("sam") == trained.count("noise") == 2 * (8 * 3 + 16)
    content = stored(tmp_path)
    assert [arm["analysis"]["verdict"] for arm in content["arms"].values()] == ["chaos helps"] * 2
    assert (tmp_path / "generalisation.png").exists() and "Not finished" not in (tmp_path / "table.md").read_text()
    generalisation.main(arguments)
    assert len(trained) == count
    (tmp_path / "generalisation.png").unlink()
    save_figure(draw(figures[-1]), tmp_path, "generalisation")
    assert (tmp_path / "generalisation.png").exists()


def test_fewer_seeds_than_those_of_the_first_look_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "train", drawn_at_random([]))
    monkeypatch.setattr(runs, "flip_ratio", lambda task, knobs, drawn: 0.01)
    monkeypatch.setattr(report, "draw", lambda arms: None)
    monkeypatch.setattr(study, "save_figure", lambda *arguments: None)
    generalisation.main(["--data", "digits", "--seeds", "4", "--out", str(tmp_path)])
    content = stored(tmp_path)
    assert [arm["analysis"]["family"]["C-P"]["n"] for arm in content["arms"].values()] == [4, 4]
    command = f"python -m experiments.claims.generalisation --out {tmp_path} --data digits --seeds 4"
    assert content["provenance"]["command"] == command


@pytest.mark.parametrize("known", [{}, {"data_marks": {"digits": "others"}}])
def test_runs_join_no_file_of_other_or_unknown_pictures(tmp_path, monkeypatch, capsys, known):
    monkeypatch.setattr(runs, "train", None)
    options = dict.fromkeys(("labels", "side", "epochs", "seeds")) | {"network": "dense"}
    begun = options | {"settings": settings.SETTINGS, "arms": {}} | known
    (tmp_path / "generalisation.json").write_text(json.dumps(begun))
    with pytest.raises(SystemExit, match="2"):
        generalisation.main(["--data", "digits", "--out", str(tmp_path)])
    assert "generalisation.json: of other data, or without a record of its data" in capsys.readouterr().err


@pytest.mark.parametrize("command", [generalisation.main, events.main])
def test_one_seed_is_refused_before_any_run(tmp_path, capsys, command):
    with pytest.raises(SystemExit):
        command(["--seeds", "1", "--out", str(tmp_path / "out")])
    assert "--seeds: from 2 on" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_verdicts_are_the_words_of_the_plan():
    def pair(mean, holm=1.0, tost=1.0, sd=1.0):
        return {"mean": mean, "holm": holm, "tost": tost, "sd": sd}

    def word(p, d, s):
        return report.verdict({"C-P": p, "C-D": d, "C-S": s})

    up, same, open_ = pair(1.0, holm=0.01), pair(0.0, tost=0.01), pair(0.3)
    assert word(up, up, up) == "chaos helps"
    assert word(up, same, open_) == "the pull helps"
    assert word(same, up, up) == "nothing"
    assert word(pair(-1.0, holm=0.01), same, same) == "harm"
    assert word(open_, same, up).startswith("not decided; 45 pairs")
    assert word(up, open_, up).startswith("not decided")
    # As of two of 32 nets that learned nothing.
    assert word(pair(-3.0, sd=21.0), same, up) == "not decided; more than 10,000 pairs would decide 0.5 points"


def test_equal_budgets():
    assert len(settings.SETTINGS["P"]) == 16
    assert all(len(rows) == 8 for name, rows in settings.SETTINGS.items() if name != "P")
    knobs = settings.knobs_of("D", settings.SETTINGS["D"][0], settings.SETTINGS["P"][1], 0.01)
    assert knobs["drift"] == 1 and knobs["chaos"] == 0 and knobs["lr"] == settings.SETTINGS["P"][1]["lr"]
    assert knobs["z0"] == pytest.approx(100 * settings.SETTINGS["C"][0]["flips"])
    with pytest.raises(ConfigError):
        generalisation.load_task("cifar10", generalisation_options())


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("claims", "generalisation"),
        ("claims_mnist", "generalisation"),
        ("claims_events", "events"),
        ("claims_fsdd", "events"),
        ("claims_nmnist", "events"),
    ],
)
def test_committed_tables_are_those_of_the_committed_runs(folder, name):
    folder = study.RESULTS / folder
    arms = json.loads((folder / f"{name}.json").read_text())["arms"]
    texts = [report.arm_text(title, arm) for title, arm in arms.items() if arm.get("analysis")]
    assert (folder / "table.md").read_text().strip() == "\n\n".join(texts)


def generalisation_options(**changes):
    none = dict.fromkeys(("side", "labels", "epochs", "seeds"))
    return argparse.Namespace(**{"network": "dense", "data_dir": "nowhere"} | none | changes)


def test_spike_timing_has_its_classes_in_times_alone():
    x, y = spike_timing.draw(seed=0, samples=30)
    assert x.shape == (300, 10, 32) and (x.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(np.bincount(y), [30] * 10)
    times = x.argmax(axis=1).astype(float)
    # The nearest of 20 samples of each class has the class of another sample far more often than one time in ten.
    nearest = ((times[200:, None] - times[None, :200]) ** 2).sum(-1).argmin(1)
    assert (y[:200][nearest] == y[200:]).mean() > 0.3
    np.testing.assert_array_equal(spike_timing.draw(seed=0, samples=30)[0], x)
    assert (spike_timing.draw(seed=1, samples=30)[0] != x).any()


def test_tasks_of_the_study_on_events():
    task, use = events.load_task("spike_timing", generalisation_options(labels=5))
    assert [len(labelled[1]) for labelled in (task.train, task.validation, task.test)] == [10_000, 300, 2000]
    assert use.labels == task.labels == 5 and task.config.model.neuron.decay == 0.9
    assert runs.draw(task, 0, 0.0).order.shape == (30, 2, 20)


@pytest.mark.slow
def test_recordings_of_digits_are_sums_over_blocks_of_pixels(tmp_path):
    task, _ = events.load_task("digits_events", generalisation_options(data_dir=str(tmp_path)))
    assert task.train[0].shape == (1258, 10, 8, 8, 2) and task.config.model.input_shape == (8, 8, 2)
    whole = data.load(configs.load("digits_events"), str(tmp_path))["train"].take(np.arange(3), np.empty((3, 0)))
    np.testing.assert_array_equal(task.train[0][:3].sum(axis=(2, 3)), whole["x"].sum(axis=(2, 3)))


def test_recordings_of_nmnist_are_sums_over_blocks_and_each_has_one_part(monkeypatch):
    x = np.random.default_rng(0).integers(0, 4, (1100, 2, 34, 34, 2)).astype(np.uint8)
    monkeypatch.setattr(events, "recordings", lambda data_dir: (x, np.arange(1100, dtype=np.int32)))
    task, _ = events.load_task("nmnist", generalisation_options())
    parts = [task.train, task.validation, task.test]
    assert [frames.shape for frames, _ in parts] == [(n, 2, 8, 8, 2) for n in (500, 100, 500)]
    assert sorted(np.concatenate([numbers for _, numbers in parts])) == list(range(1100))
    block = x[task.train[1][7], 1, 1 + 4 * 3 : 1 + 4 * 4, 1 + 4 * 5 : 1 + 4 * 6, 0]
    assert task.train[0][7, 1, 3, 5, 0] == block.sum()


def test_recordings_of_fsdd_are_sums_of_four_frames_and_those_left_are_for_the_test(monkeypatch):
    random = np.random.default_rng(0)

    def source(size, first):
        # The first count of a recording is its number.
        x = random.integers(0, 4, (size, 40, 64)).astype(np.int32)
        x[:, 0, 0], x[:, 1:4, 0] = first + np.arange(size), 0
        return ArraySource(x, np.arange(size, dtype=np.int32) % 10, 10)

    splits = {"train": source(1200, 0), "validation": source(30, 5000), "test": source(50, 6000)}
    whole = splits["train"].take(np.arange(1200), np.empty((1200, 0)))["x"]
    monkeypatch.setattr(data, "load", lambda config, data_dir: splits)
    task, _ = events.load_task("fsdd", generalisation_options())
    assert [frames.shape for frames, _ in (task.train, task.validation, task.test)] == [
        (n, 10, 64) for n in (1000, 30, 250)
    ]
    numbers = [frames[:, 0, 0].astype(int) for frames, _ in (task.train, task.test)]
    assert sorted(np.concatenate(numbers)) == [*range(1200), *range(6000, 6050)]
    np.testing.assert_array_equal(task.train[0][3, 2], whole[numbers[0][3], 8:12].sum(0))


NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DRAWN_ONCE = ("digits", "cifar10", "mnist", "fashion_mnist", "digits_events", "spike_timing", "fsdd", "nmnist")


def shown(pairs):
    """Numbers of tasks where CSBP is shown to be lower and higher, by Holm's correction over all, in words."""
    corrected = holm({name: pair["p"] for name, pair in pairs.items()})
    means = [pair["mean"] for name, pair in pairs.items() if corrected[name] < 0.05]
    return NUMBERS[sum(mean < 0 for mean in means)], NUMBERS[sum(mean > 0 for mean in means)]


def test_the_pages_have_the_differences_of_the_studies_of_few_labels():
    arms: dict[str, Any] = {}
    for file in ("claims/generalisation", "claims_mnist/generalisation"):
        arms |= json.loads((study.RESULTS / f"{file}.json").read_text())["arms"]
    for folder in ("claims_events", "claims_fsdd", "claims_nmnist"):
        arms |= json.loads((study.RESULTS / folder / "events.json").read_text())["arms"]
    # The order of the page is that of the studies; wrong labels follow right ones.
    names = [arm for name in DRAWN_ONCE for arm in (name, f"{name}, wrong labels") if arm in arms]
    analyses = [arms[name]["analysis"] for name in names]
    tuned, equal = (
        {name: analysis[against][pair] for name, analysis in zip(names, analyses, strict=True)}
        for against, pair in (("family", "C-P"), ("against base", "C"))
    )
    section = (study.RESULTS / "README.md").read_text().partition("## With few labels")[2].partition("\n## ")[0]
    rows = [row.strip("|").split(" | ")[1:] for row in section.splitlines() if row.startswith("| ") and "[" in row]
    expected = [
        [f"{pair['mean']:+.2f} [{pair['low']:.2f}, {pair['high']:.2f}]" for pair in pairs]
        for pairs in zip(tuned.values(), equal.values(), strict=True)
    ]
    assert len(expected) == 13 and [[cell.strip() for cell in row] for row in rows] == expected
    section = " ".join(section.split())
    same = NUMBERS[sum(analysis["family"]["C-D"]["tost"] < 0.05 for analysis in analyses)]
    (lower, higher), (lower_equal, higher_equal) = shown(tuned), shown(equal)
    assert f"CSBP ends lower on {lower} and higher on {higher}." in section
    assert f"it ends lower on {lower_equal}, " in section and f"higher on {higher_equal}, " in section
    assert f"In {same} of the thirteen the drift equals CSBP within 0.5 points" in section
    readme = " ".join((pathlib.Path(__file__).parents[2] / "README.md").read_text().split())
    assert f"lower on {lower} of thirteen tasks (" in readme and f"higher on {higher} (" in readme


def test_the_page_of_claims_has_the_parts_of_the_plans_that_did_not_confirm():
    text = " ".join((study.RESULTS / "README.md").read_text().split())
    escape, ergodic = (
        text.partition(f"## {title}")[2].partition("## ")[0]
        for title in ("It leaves stuck points of XOR", "The chaotic search is ergodic")
    )
    untuned = json.loads((study.RESULTS / "xor_escape" / "escape.json").read_text())["groups"]["untuned"]
    csbp, drift, plain = (
        100 * untuned["conditions"][name]["share"] for name in ("CSBP", "drift", "plain backpropagation")
    )
    assert untuned["verdict"] == "not decided" in escape
    assert f"CSBP {csbp:.1f} %, drift {drift:.1f} % (p = 0.003), BP {plain:.1f} %" in escape
    assert "a digits net" in ergodic


def test_the_advice_on_pairs_has_the_smallest_and_largest_spread_of_the_studies():
    arms: dict[str, Any] = {}
    for folder in ("claims", "claims_mnist"):
        arms |= json.loads((study.RESULTS / folder / "generalisation.json").read_text())["arms"]

    def ends(*data_sets):
        named = (arm for name, arm in arms.items() if name.partition(",")[0] in data_sets)
        spreads = [pair["sd"] for arm in named for pair in arm["analysis"]["family"].values()]
        return [f"{end:.1f}" for end in (min(spreads), max(spreads))]

    page = (study.RESULTS / "claims" / "README.md").read_text()
    assert "{} to {} with 10,000 test pictures".format(*ends("cifar10", "mnist", "fashion_mnist")) in page
    most, least = ends("cifar10", "fashion_mnist")[1], ends("mnist")[0]
    assert f"(up to {most} on CIFAR-10 and Fashion-MNIST, from {least} on MNIST)" in page
