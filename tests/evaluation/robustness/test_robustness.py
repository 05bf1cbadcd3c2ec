"""The command: outcomes are those of the perturbed networks, equal for all batch sizes, compared as they should be."""

import dataclasses
import io
import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, data, models
from csbp_jax.config import Model, replaced
from csbp_jax.data.source import ArraySource
from csbp_jax.evaluation.robustness import battery, command, comparison, events, measure, pgd, pictures, weight_errors
from csbp_jax.evaluation.robustness.measure import Measured, Outcome, Plan
from csbp_jax.evaluation.robustness.programs import Programs, programs_of
from csbp_jax.reporting import plots, plots_robustness, terminal
from csbp_jax.reporting.statistics import student
from csbp_jax.runs import Run, RunTable, restore

NAMES = ("noise", "lost_spikes", "weight_bits", "pgd", "square")
EXAMPLES = 14


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("robust") / "run")


def measured(runs, plan, **options):
    text = io.StringIO()
    console = terminal.Console(file=text, width=150, highlight=False, markup=False)
    result = command.robustness(runs, plan, console=console, **options)
    return result, text.getvalue()


@pytest.fixture(scope="module")
def result(run):
    return measured([restore.restore(run)], Plan(NAMES, examples=EXAMPLES, queries=20))


def outcomes(result, name, run=0):
    """The outcomes of a perturbation, ``[severities, variants, examples]``."""
    row = result["runs"][run]
    count = len(row["attacked" if name in ("pgd", "square") else "examples"])
    texts_by_severity = row["perturbations"][name]["correct"]
    return np.array([[command.unpacked(text, count) for text in texts] for texts in texts_by_severity])


@pytest.mark.full
def test_outcomes_are_those_of_perturbed_inputs_and_weights(run, result):
    """Computed example by example with the pure functions, without the command's batches and programs."""
    restored = restore.restore(run)
    test = data.load(restored.config)["test"]
    rows = np.linspace(0, len(test) - 1, EXAMPLES).round().astype(int)
    records = [test[int(i)] for i in rows]
    x, y = np.stack([r["x"] for r in records]), np.array([r["y"] for r in records])
    apply = jax.jit(lambda variables, x: restored.apply(variables, x)[0].mean(1).argmax(-1))
    content, _ = result
    assert content["runs"][0]["examples"] == content["runs"][0]["attacked"] == rows.tolist()
    assert np.array_equal(outcomes(content, "clean")[0, 0], apply(restored.variables, x) == y)
    keys = [jax.random.fold_in(battery.key(0, "noise"), int(i)) for i in rows]
    for number, severity in enumerate(battery.PERTURBATIONS["noise"].severities):
        noisy = np.stack([pictures.noise(key, record, severity) for key, record in zip(keys, x, strict=True)])
        assert np.array_equal(outcomes(content, "noise")[number, 0], apply(restored.variables, noisy) == y)
    for number, bits in enumerate(battery.PERTURBATIONS["weight_bits"].severities):
        variables = restored.variables | {
            "params": weight_errors.rounded(jax.random.key(0), restored.variables["params"], bits)
        }
        assert np.array_equal(outcomes(content, "weight_bits")[number, 0], apply(variables, x) == y)


def test_the_file_and_the_table_agree(run, result):
    content, text = result
    assert json.loads((run / "robustness.json").read_text()) == json.loads(json.dumps(content))
    assert content["plan"] == {"names": list(NAMES), "examples": EXAMPLES, "queries": 20, "seed": 0, "split": "test"}
    for name in NAMES:
        row = content["runs"][0]["perturbations"][name]
        correct = outcomes(content, name)
        accuracies = (correct.all(1) if name == "pgd" else correct.mean(1)).mean(1)
        assert row["accuracy"] == pytest.approx(accuracies.tolist())
        for severity, accuracy in zip(row["severities"], accuracies, strict=True):
            assert f"{severity:g}: {100 * accuracy:.2f}" in text
    for name in ("pgd", "square"):
        assert not (outcomes(content, name) & ~outcomes(content, "clean")).any()
    assert content["runs"][0]["perturbations"]["pgd"]["variants"] == list(pgd.SURROGATES)
    assert text.count("/255: accuracy ") == len(content["runs"][0]["masking"]) == 3
    assert (run / "figures" / "robustness.png").stat().st_size > 10_000
    caption = plots.caption_of((run / "figures" / "robustness.png").read_bytes())
    assert caption.startswith(f"Robustness on {EXAMPLES} examples of the test split: accuracy under")


@pytest.mark.full
def test_outcomes_do_not_depend_on_batches_or_on_the_other_perturbations(run, result, monkeypatch):
    monkeypatch.setattr(plots_robustness, "draw", lambda *arguments: None)
    restored = restore.restore(run)
    restored = restored._replace(config=dataclasses.replace(restored.config, eval_batch_size=8))
    again, _ = measured([restored], Plan(("noise", "lost_spikes"), examples=EXAMPLES))
    for name in ("clean", "noise", "lost_spikes"):
        assert np.array_equal(outcomes(again, name), outcomes(result[0], name))


@pytest.mark.full
def test_outcomes_of_a_random_encoding_do_not_depend_on_batches():
    """Each spike more turns the answer over, so that outcomes are equal only where all spikes are."""

    def parity(variables, x):
        return jax.nn.one_hot(x.sum((1, 2, 3, 4)).astype(jnp.int32) % 2, 2)[:, None], None

    source = ArraySource(np.full((30, 1, 8, 8, 1), 127, np.uint8), np.zeros(30, np.int32), classes=2)
    results = []
    for size in (16, 30):
        config = replaced(dataclasses.replace(configs.load("digits"), eval_batch_size=size), "data.encode", "rate")
        programs = Programs(config, parity, None, events=False)
        subject = measure.Subject("net", programs, {}, source)
        results.append(measure.measure(subject, Plan(("contrast", "square"), queries=1), lambda *_: None).outcomes)
    for name in ("clean", "contrast", "square"):
        first, second = (by_name[name].correct for by_name in results)
        assert np.array_equal(first, second) and 0 < first.mean() < 1


def fake(correct, rows=None):
    correct = np.array(correct, bool)
    return Outcome(
        correct, tuple(map(str, range(correct.shape[1]))), np.arange(correct.shape[2]) if rows is None else rows
    )


def test_the_title_has_the_numbers_of_examples_of_all_runs():
    measured = [Measured({"clean": fake(np.ones((1, 1, count)))}, {}) for count in (359, 200)]
    assert command._title(Plan(), measured) == "Robustness on 200 or 359 examples of the test split"


def test_draws_are_averaged_and_the_worst_surrogate_counts():
    both = [[[1, 1, 0, 0], [1, 0, 1, 0]]]
    scores = comparison.scores(
        Measured({"clean": fake([[[1, 1, 1, 1]]]), "weight_noise": fake(both), "pgd": fake(both)}, {})
    )
    assert scores["weight_noise"].tolist() == [[1, 0.5, 0.5, 0]] and scores["pgd"].tolist() == [[1, 0, 0, 0]]


def test_a_white_box_attack_counts_below_the_black_box_one_or_where_it_fools_all():
    def check(white, black):
        rows = {"pgd": white, "square": black}
        return comparison.masking_checks({name: np.array([r, r, r], float) for name, r in rows.items()})

    assert [c.counts for c in check([1, 0, 0], [1, 1, 0])] == [True] * 3
    assert [c.counts for c in check([1, 1, 0], [1, 0, 0])] == [False] * 3
    assert [c.counts for c in check([1, 0], [0, 1])] == [False] * 3
    assert [c.counts for c in check([0, 0], [0, 0])] == [True] * 3  # no attack is stronger
    assert check([1, 1], [1, 0])[0][:3] == (2.0, 1.0, 0.5)
    lines = command._masking_lines({"pgd": np.ones((3, 2)), "square": np.zeros((3, 2))})
    assert len(lines) == 3 and all("quote its row, for PGD's" in line for line in lines)
    assert "without the square attack" in command._masking_lines({"pgd": np.ones((3, 2))})[0]


def runs_of(scores, tmp_path):
    """A table of runs ``{(z0, seed): scores}`` without files."""
    data = {"name": "digits"}
    contents = [{"config": {"seed": seed, "chaos": {"z0": [z0]}, "data": data}} for z0, seed in scores]
    return RunTable.of([Run(tmp_path / str(number), content) for number, content in enumerate(contents)])


def test_settings_are_compared_over_seeds_or_over_examples(tmp_path):
    rng = np.random.default_rng(0)
    scores = {(z0, seed): rng.integers(0, 2, (3, 40)).astype(float) for z0 in (0.0, 5.0) for seed in range(4)}
    table = runs_of(scores, tmp_path)
    by_run = {run: {"noise": s, "blur": s / 2} for run, s in zip(table.frame["run"], scores.values(), strict=True)}
    pair = ("chaos.z0 5.0", "chaos.z0 0.0")

    def ends(difference, name):
        return tuple(difference.by_perturbation[name].frame.iloc[0][["difference", "low", "high"]] / 100)

    (difference,) = comparison.differences(table.frame, [pair], by_run, margin=100)
    assert difference[:3] == (*pair, "seeds")
    by_seed = [scores[5.0, seed].mean() - scores[0.0, seed].mean() for seed in range(4)]
    assert ends(difference, "noise") == pytest.approx(student(by_seed))
    assert "equal within 100" in repr(difference.by_perturbation["noise"])
    assert ends(difference, "corruptions")[0] == pytest.approx(np.mean(by_seed) * 0.75)
    # Of seed 2 alone, which both have, and without a seed that both have.
    # The numbers of the rows of z0 0 and 5: seed 2 alone is in both, and no seed is.
    for rows, first, second in (([1, 2, 6, 7], 2, 2), ([0, 1, 6, 7], 2, 0)):
        (difference,) = comparison.differences(table.frame.iloc[rows], [pair], by_run, None)
        by_example = (scores[5.0, first] - scores[0.0, second]).mean(0)
        assert difference.over == "examples"
        assert difference.by_perturbation["noise"].frame["pairs"].tolist() == [40]
        assert ends(difference, "noise") == pytest.approx(student(by_example))


def test_two_runs_share_examples_programs_and_a_table(run, tmp_path, monkeypatch):
    monkeypatch.setattr(plots_robustness, "draw", lambda *arguments: None)
    restored = restore.restore(run)
    plain = replaced(restored.config, "chaos.z0", (0.0,))
    built = []

    def recorded(*arguments):
        built.append(programs_of(*arguments))
        return built[-1]

    monkeypatch.setattr(command, "programs_of", recorded)
    predict: Any = Programs.predict
    before = predict._cache_size()
    runs = [restored, restored._replace(folder=tmp_path / "other", config=plain)]
    content, text = measured(runs, Plan(("weight_bits",), examples=30), margin=1.0, out=tmp_path / "out")
    # The second is not used: nothing of it was compiled.
    assert len({id(program) for program in built}) == 2 and predict._cache_size() == before + 1
    (difference,) = content["differences"]
    arms = tuple(f"chaos.z0 {config.chaos.z0[0]}" for config in (restored.config, plain))
    assert (difference["arm"], difference["control"], difference["over"]) == (*arms, "examples")
    # The same weights: no difference, which lies within the margin.
    assert difference["by_perturbation"]["weight_bits"]["difference"] == 0 and "equal within 1 point" in text
    assert (tmp_path / "out" / "robustness.json").exists()


def test_what_does_not_fit_the_data_is_skipped_with_a_reason():
    config = configs.load("digits_events")
    counts = np.array(np.random.default_rng(0).poisson(1.0, (4, 10, 16, 16, 2)), np.uint8)
    for name in ("pgd", "square", "noise"):
        assert battery.obstacle(name, config, counts, True) == "its inputs are events, and these are for still pictures"
    assert battery.obstacle("jitter", config, counts, True) is None
    assert battery.obstacle("jitter", config, counts / 2, True) == "its frames are not counts of events"
    pixels = np.full((4, 1, 8, 8, 1), 0.5)
    rated = replaced(configs.load("digits"), "data.encode", "rate")
    assert battery.obstacle("jitter", rated, pixels, False) == "its inputs are not events"
    assert battery.obstacle("pgd", rated, pixels, False) == "data.encode rate has no gradient"
    assert battery.obstacle("square", rated, pixels, False) is None
    assert battery.obstacle("noise", rated, pixels * 3, False) == "its pictures are not brightness in [0, 1]"
    assert battery.obstacle("noise", rated, pixels[..., 0, 0], False) is not None
    assert all(battery.obstacle(name, rated, pixels, False) is None for name in ("lost_spikes", "weight_bits"))


@pytest.mark.full
def test_events_are_measured_and_attacks_on_pictures_left_out():
    model = Model(name="dense", input_shape=(3, 4, 2), classes=3, time_steps=5, features=(6,))
    config = dataclasses.replace(configs.load("digits_events"), model=model, eval_batch_size=16)
    net, rng = models.build(model), np.random.default_rng(0)
    source = ArraySource(rng.poisson(1.0, (20, 5, 3, 4, 2)).astype(np.uint8), rng.integers(0, 3, 20), classes=3)
    variables = jax.jit(net.init)(jax.random.key(0), source.x.astype(np.float32))
    apply: Any = net.apply
    programs = Programs(config, apply, net.neuron, events=True)
    subject = measure.Subject("net", programs, dict(variables), source)
    names = ("noise", "lost_steps", "added_spikes", "weight_noise", "pgd", "square")
    outcomes, skipped = measure.measure(subject, Plan(names), lambda *_: None)
    assert set(skipped) == {"noise", "pgd", "square"} and set(skipped.values()) == {
        "its inputs are events, and these are for still pictures"
    }
    assert {name: outcome.correct.shape for name, outcome in outcomes.items()} == {
        "clean": (1, 1, 20), "lost_steps": (3, 1, 20), "added_spikes": (3, 1, 20), "weight_noise": (4, 8, 20),
    }  # fmt: skip
    keys = [jax.random.fold_in(battery.key(0, "lost_steps"), i) for i in range(20)]
    lost = np.stack([events.lost_steps(key, x, 0.4) for key, x in zip(keys, source.x.astype(np.float32), strict=True)])
    expected = jax.jit(apply)(variables, lost)[0].mean(1).argmax(-1) == source.y
    assert np.array_equal(outcomes["lost_steps"].correct[2, 0], expected)
