"""The studies' own arithmetic, and that their pages say what their data say."""

import functools
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax import controls, dynamics
from experiments import accuracy, replay, shares
from experiments import exponents as exponents_study
from experiments.bifurcations import __main__ as bifurcations
from experiments.bifurcations import systems
from experiments.cbp import conditions, exponents, net, pages
from experiments.release import __main__ as release
from experiments.steering import __main__ as steering
from experiments.xor import __main__ as xor
from experiments.xor import conditions as xor_conditions
from experiments.xor import maps
from experiments.xor import net as xor_net

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"


def test_first_layers_curvature_is_that_of_the_patterns():
    inputs = np.concatenate([np.asarray(xor_net.X), np.ones((4, 1))], axis=1)
    assert np.linalg.eigvalsh(inputs.T @ inputs / 4).max() / 2 == pytest.approx(maps.FIRST_LAYER, abs=2e-4)


@pytest.mark.parametrize("target", [0.65, 0.8])
def test_theorys_line_is_where_the_flip_ratio_of_the_term_is_one(x64, target):
    rest = np.log(target / (1 - target))
    # Hidden neurons at their fixed point, and silent or always firing by it; the output neuron far from any curvature.
    params = {"w1": jnp.zeros((2, 2)), "b1": jnp.full(2, rest), "w2": jnp.zeros((2, 1)), "b2": jnp.full(1, 60.0)}
    line = maps.lines()["flip, first layer"][maps.TARGETS.index(pytest.approx(target))]
    setting = xor_net.Setting(lr=0.5, target=target)
    gradient = jax.grad(functools.partial(xor_net.term_loss, setting=setting, term="chaos"))
    ratio = dynamics.flip_ratio(lambda p: jax.tree.map(lambda g: line / 0.5 * g, gradient(p)), params, 0.5)
    assert ratio == pytest.approx(1, abs=2e-3)


def test_first_chaos_of_the_term_alone():
    assert maps.first_chaos(0.65) == pytest.approx(14.4, abs=0.1)


def test_holms_correction():
    # The textbook's example: sorted p times n, n - 1, ..., never below the one before.
    assert shares.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )


def test_paired_shares_are_mcnemars():
    found = shares.compared({"one": {"solved": "110010"}, "two": {"solved": "011110"}}, "one")["two"]
    assert found["difference"] == pytest.approx(1 / 6)
    assert found["p"] == found["p_holm"] == stats.binomtest(2, 3).pvalue
    assert found["half"] == pytest.approx(1.96 * np.std([-1, 0, 1, 1, 0, 0]) / 6**0.5, rel=1e-4)
    assert shares.points(found) == "+16.7 ± 55.0"


def test_a_kick_is_the_same_for_all_parameters_of_a_neuron():
    params = net.start(3, 1.0)
    h = net.inputs(params)
    kick = net.kick("chaos", params, h, 2.0)
    wanted = [2.0 * (0.65 - jax.nn.sigmoid(one).mean(0)) for one in h]
    np.testing.assert_allclose(kick["w1"], jnp.stack([wanted[0]] * 2), rtol=1e-6)
    np.testing.assert_allclose(kick["b1"], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(kick["w2"], jnp.stack([wanted[1]] * 2), rtol=1e-6)
    np.testing.assert_allclose(kick["b2"], wanted[1], rtol=1e-6)


def test_drift_has_the_kicks_value_at_0_and_its_zero():
    rest = np.log(0.65 / 0.35)
    for h in (jnp.zeros((4, 1)), jnp.full((4, 1), rest)):
        np.testing.assert_allclose(net.KICKS["drift"](h), net.KICKS["chaos"](h), atol=1e-6)
    assert net.KICKS["drift"](jnp.ones((4, 1))) != net.KICKS["chaos"](jnp.ones((4, 1)))


@pytest.mark.parametrize("draw", [controls.shuffled, controls.phase_randomised])
def test_a_record_drawn_under_its_annealing_falls_as_it_did(draw):
    z = 0.97 ** jnp.arange(200)
    sign = jax.random.rademacher(jax.random.key(0), (200, 3), jnp.float32)
    found = controls.annealed(functools.partial(draw, jax.random.key(1)), z, {"w": z[:, None] * sign})["w"]
    assert not np.allclose(found, z[:, None] * sign)
    size = np.sqrt(np.mean((found / z[:, None]) ** 2, axis=1))
    np.testing.assert_allclose([size[:100].mean(), size[100:].mean()], 1, atol=0.15)


@pytest.mark.parametrize("study", [conditions, xor_conditions])
def test_a_wider_tuning_holds_the_first_ones_settings(study):
    for name, condition in study.WIDELY.items():
        assert {*study.CONDITIONS[name].settings} < {*condition.settings}, name
    assert {name for name, one in study.CONDITIONS.items() if "z0" in told(one)} == {*study.WIDELY}


def told(condition):
    """What a condition is tuned over."""
    return {
        field for field in condition.settings[0]._fields if len({getattr(s, field) for s in condition.settings}) > 1
    }


def test_plain_levers_of_cbps_net(x64):
    params = jax.tree.map(lambda p: p.astype(float), net.start(2, 1.0))
    plain, decayed = (net.step(params, net.Setting(decay=d), 0.0, net.Kind(kick=None))[0] for d in (0.0, 0.01))
    jax.tree.map(lambda a, b, p: np.testing.assert_allclose(a - b, 0.2 * 0.01 * p, rtol=1e-9), plain, decayed, params)
    # The cross-entropy is linear in its targets, and soft + (1 - 2 soft) y lies between y and 1/2.
    h = net.inputs(params)[1][:, 0]
    half = jnp.mean(jnp.logaddexp(0, h) - h / 2)
    np.testing.assert_allclose(net.loss(params, 0.1)[0], 0.8 * net.loss(params)[0] + 0.2 * half, rtol=1e-6)


def test_many_sub_steps_of_a_small_kick_are_the_kick_itself(x64):
    params = net.start(1, 1.0)
    h = net.inputs(params)
    whole, parts = (net.kicks(params, h, 1e-6, net.Kind(substeps=m)) for m in (1, 20))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), whole, parts)
    # Sub-steps cannot overshoot a neuron's rest, whatever z is.
    moved = jax.tree.map(jnp.add, params, net.kicks(params, h, 50.0, net.Kind(substeps=2000)))
    assert np.abs(jax.nn.sigmoid(net.inputs(moved)[0]).mean(0) - 0.65).max() < 1e-3


def test_a_replay_is_the_run_again_and_a_force_stands_in_for_the_kick():
    kind = net.Kind(first=30)
    setting = jax.tree.map(jnp.float32, net.Setting(z0=1.5))
    _, record = net.train(7, setting, kind=kind, record=True)
    again = net.Kind(kick=None, force=conditions.REPLAY, first=30)
    _, replayed = net.train(7, setting, record, kind=again, record=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), record, replayed)
    assert all(np.abs(one).max() > 0 for one in jax.tree.leaves(record))


def test_kicks_alone_flip_where_they_overshoot(monkeypatch):
    # Of a neuron whose inputs are all alike, h moves by z (I0 - s(h)) (1 + |x|**2): here by the whole net's own map.
    monkeypatch.setattr(exponents, "STRENGTHS", np.array([0.5, 10.0]))
    monkeypatch.setattr(exponents, "STARTS", 2)
    for name in ("TRANSIENT", "COUNTED"):
        monkeypatch.setattr(exponents, name, 200)
    with jax.enable_x64(True):
        found = exponents.of(net.Kind(), 0.0)
    below, above = np.array(found["tangent"])
    assert np.all(np.abs(below) < 0.02) and np.all(above > 0.3)


def test_a_diagram_shows_the_fixed_point_below_the_flip_and_chaos_above(x64):
    steps = bifurcations.Steps(transient=200, align=20, counted=200, chunk=4)
    found = bifurcations.diagram(systems.neuron(), "z", [2.0, 8.6], steps)
    assert found["visited"].shape == (2, 4, bifurcations.KEEP)
    spread = np.ptp(found["visited"], axis=2)
    assert np.all(spread[0] < 1e-3) and np.all(spread[1] > 0.5)
    assert np.all(found["tangent"][0] < 0.02) and np.median(found["tangent"][1]) > 0.05


def test_a_run_that_cannot_take_its_steps_has_run_away_and_no_exponent():
    """A learner skips steps that are not finite: a map that does nothing, whose exponent would be 0."""

    class Learner(NamedTuple):
        x: jax.Array
        z: jax.Array
        bad: jax.Array

    def step(state, _):
        x = state.x - state.z * state.x**3
        finite = jnp.isfinite(x) & jnp.isfinite(x**3)
        return Learner(jnp.where(finite, x, state.x), state.z, ~finite)

    def states(_, values):
        z = jnp.asarray(values)
        return Learner(jnp.ones(len(values)), z, jnp.zeros(len(values), bool))

    system = systems.System(
        step, states, Learner(True, False, False), lambda s: s.x, None, 1, lambda s: jnp.where(s.bad, jnp.nan, s.x)
    )
    found = bifurcations.diagram(system, "z", [0.1, 1.5, 9.0], bifurcations.Steps(10, 5, 20, 3))
    np.testing.assert_array_equal(np.isnan(found["tangent"][:, 0]), [False, False, True])
    np.testing.assert_array_equal(np.isnan(found["finite_size"][:, 0]), [False, False, True])
    assert bifurcations.summary(found)["share_runs_away"] == pytest.approx(1 / 3)


def test_a_diagram_whose_runs_all_ran_away_has_no_exponent():
    nowhere = {
        "values": np.array([1.0, 2.0]),
        "tangent": np.full((2, 2), np.nan),
        "finite_size": np.full((2, 2), np.nan),
    }
    found = bifurcations.summary(nowhere)
    assert found["share_runs_away"] == 1 and found["largest_exponent"] is None
    assert bifurcations.page({"x": found}).splitlines()[-1] == "| x | 2 | none | 0 | 0 | 100 | none |"
    half = nowhere | {"tangent": np.array([[np.nan, 0.3], [np.nan, np.nan]])}
    assert bifurcations.summary(half)["largest_exponent"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("folder", "file", "page"),
    [
        ("xor", "xor.json", xor.page),
        ("xor_phase", "phase.json", maps.page),
        ("cbp", "cbp.json", pages.page),
        ("release", "release.json", release.page),
        ("steering", "steering.json", steering.page),
        ("replay_digits", "replay.json", replay.page),
        ("replay_digits/flip", "replay.json", replay.page),
        ("bifurcations", "bifurcations.json", lambda content: bifurcations.page(content["diagrams"])),
    ],
)
def test_a_page_says_what_its_data_say(folder, file, page):
    content = json.loads((RESULTS / folder / file).read_text())
    assert (RESULTS / folder / "table.md").read_text() == page(content) + "\n"
    assert any((RESULTS / of / "plan.md").exists() for of in (folder, folder.split("/")[0]))


@pytest.mark.parametrize("folder", ["replay_digits", "replay_digits/flip"])
def test_a_replays_summary_is_that_of_its_seeds(folder):
    content = json.loads((RESULTS / folder / "replay.json").read_text())
    assert replay.summary(content) == content["summary"] and len(content["seeds"]) == 32
    assert (RESULTS / folder / "table.md").read_text() in (RESULTS / "replay_digits" / "README.md").read_text()
    mine, reference = ([content["seeds"][str(n)][name]["test"] for n in range(32)] for name in ("drift", "CSBP"))
    told = content["summary"]["test"]["drift"]["minus CSBP"]
    low, high = stats.ttest_rel(mine, reference).confidence_interval(0.95)
    assert (told["low"], told["high"]) == pytest.approx((low, high))


def test_a_replay_study_goes_on_with_the_seeds_that_are_left(tmp_path, monkeypatch):
    """At a tiny size: what is replayed is the run itself, and a second call trains only what is missing."""
    few = {name: replay.CONDITIONS[name] for name in ("plain backpropagation", "replay")}
    monkeypatch.setattr(replay, "CONDITIONS", few)
    net = ["--model.name", "dense", "--model.features", "4", "--model.time-steps", "1", "--chaos.taps", "fc1.norm"]
    words = ["digits", "--out", str(tmp_path), "--epochs", "1", "--batch-size", "320", "--optimizer.lr", "0.1", *net]
    replay.main([*words, "--seeds", "1"])
    first = json.loads((tmp_path / "replay.json").read_text())["seeds"]["0"]
    assert first["replay"] == first["CSBP"] != first["plain backpropagation"]
    begun, known = [], replay.forcing
    monkeypatch.setattr(
        replay, "forcing", lambda how, run, seed, *given: begun.append(seed) or known(how, run, seed, *given)
    )
    replay.main([*words, "--seeds", "2"])
    assert begun == [1, 1] and json.loads((tmp_path / "replay.json").read_text())["seeds"]["0"] == first
    assert (tmp_path / "replay.png").exists() and (tmp_path / "table.md").read_text().count("|---") == 6
    with pytest.raises(SystemExit):
        replay.main([*words, "--seeds", "2", "--chaos.beta", "0.1"])


@pytest.mark.parametrize("wrong", ["--steps 2", "--exponents 0", "--anneal-to -1", "--sequences 2"])
def test_options_of_the_study_of_exponents_that_make_no_sense_are_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        exponents_study.main(["digits", *wrong.split()])
    assert wrong.split()[0] in capsys.readouterr().err


def test_every_tenth_step_of_a_course_is_kept():
    steps = np.arange(301)
    apart = {"deltas": [1e-8, 1e-2], "logits": np.stack([1e-8 * np.exp(0.1 * steps), np.ones(301)], axis=1).tolist()}
    kept = exponents_study.thinned({"cumulated": (0.1 * (steps[1:])).tolist(), "apart": apart, "word": "chaotic"})
    assert kept["cumulated"][:2] == [1.0, 2.0] and len(kept["cumulated"]) == 30 and kept["word"] == "chaotic"
    assert len(kept["apart"]["logits"]) == 31 and kept["apart"]["logits"][1][0] == pytest.approx(1e-8 * np.e, rel=1e-4)


@pytest.mark.slow
def test_the_study_of_exponents_tells_what_it_measures_and_why_there_is_no_exponent(tmp_path, monkeypatch, capsys):
    """On one condition, under Adam without eps_root."""
    monkeypatch.setattr(exponents_study.lab, "conditions", lambda config: {"as given": config})
    line = "digits --starts 1 --steps 6 --exponents 2 --anneal-to 0.01 --batch-size 96 --model.name dense "
    line += "--model.features 4 --model.time-steps 2 --optimizer.name adam --chaos.taps fc1.dense --chaos.z0 1"
    exponents_study.main([*line.split(), "--data-dir", str(tmp_path), "--out", str(tmp_path)])
    content, table = json.loads((tmp_path / "exponents.json").read_text()), (tmp_path / "table.md").read_text()
    assert content["config"]["chaos"]["beta"] ** 6 == pytest.approx(0.01) and content["steps_per_epoch"] == 13
    (found,) = content["conditions"]["as given"]
    assert found["word"] == "no exponent" and found["counted"] == 4
    sized = found["finite_size"]
    assert [sized["deltas"][0], sized["deltas"][-1]] == [1e-12, 0.1]
    for values in (sized["exponents"], sized["parameters"]["exponents"], sized["logits"]["exponents"], sized["spikes"]):
        assert len(values) == 12 and np.isfinite(values).all()
    assert "| as given | not defined | not defined | 0.0 of 2 | not defined | not defined | " in table
    assert "| as given | 1e-08 | " in table and "| as given | 0.01 | " in table
    assert "z falls to 0.01 of z0, by 0.4642 a step" in table and "Adam has no tangent" in table
    assert (tmp_path / "exponents.pdf").stat().st_size > 1000
    capsys.readouterr()
    exponents_study.main([*line.split(), "--data-dir", str(tmp_path), "--out", str(tmp_path)])
    assert "start 0" not in capsys.readouterr().out  # what is done is not done again
    with pytest.raises(SystemExit, match="made with other options"):
        exponents_study.main([*line.split(), "--out", str(tmp_path), "--data-dir", str(tmp_path), "--steps", "9"])


@pytest.mark.parametrize("folder", ["dense_batch", "dense_epoch", "dense_stream", "conv_batch"])
def test_tables_of_exponents_say_what_their_data_say(folder):
    content = json.loads((RESULTS / "exponents" / folder / "exponents.json").read_text())
    table = exponents_study.page(content)
    assert (RESULTS / "exponents" / folder / "table.md").read_text() == table + "\n"
    assert table in (RESULTS / "exponents" / "README.md").read_text()


def test_intervals_over_starts_and_over_sequences_are_of_their_means():
    found = [{"start": s, "sequence": q} for s in range(2) for q in range(3)]
    values = [10.0 * one["start"] + one["sequence"] for one in found]
    told = exponents_study.intervals(found, values)
    assert (
        told == f"{exponents_study.interval([1.0, 11.0])}, {exponents_study.interval([5.0, 6.0, 7.0]).split(' ', 1)[1]}"
    )
    alone = [{"start": s, "sequence": s} for s in range(3)]
    assert exponents_study.intervals(alone, [1.0, 2.0, 6.0]) == exponents_study.interval([1.0, 2.0, 6.0])


@pytest.mark.parametrize("dataset", ["digits", "mnist", "digits_events"])
def test_pages_of_accuracy_say_what_their_data_say(dataset):
    content = json.loads((RESULTS / dataset / "accuracy.json").read_text())
    assert (RESULTS / dataset / "README.md").read_text() == accuracy.page(content)


@pytest.mark.parametrize(
    ("pairs", "word"),
    [((-0.02, -0.019, -0.021), "CSBP is below"), ((0.01, -0.01, 0.0), "no difference"), ((0.02,), "One pair")],
)
def test_a_difference_is_told_by_its_interval(pairs, word):
    content = {"intervals": {"last": {"csbp - bp": accuracy.interval(pairs)}}}
    assert word in accuracy.conclusion(content)


def test_values_that_are_all_alike_have_no_interval():
    assert accuracy.cell(**accuracy.interval([0.1 + 0.2, 0.3, 0.3])) == "30.00 (all alike)"
    assert accuracy.cell(**accuracy.interval([0.3])) == "30.00"
    assert accuracy.cell(**accuracy.interval([0.2, 0.4])).startswith("30.00 [")
