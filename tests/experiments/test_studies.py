"""Arithmetic of the studies, and agreement of their pages with their data."""

import argparse
import functools
import json
import os
import pathlib
import signal
import subprocess
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax import controls
from csbp_jax.config import replaced
from csbp_jax.runtime.hardware import float64
from experiments import accuracy, forcing, known_exponents, precision, statistics, study
from experiments import exponents as exponents_study
from experiments.cbp import __main__ as cbp
from experiments.cbp import conditions, exponents, net, overshoot
from experiments.ergodic import __main__ as ergodic
from experiments.parity import __main__ as parity
from experiments.xor import conditions as xor_conditions
from experiments.xor import escape, tuned
from experiments.xor import net as xor_net
from tests.support import small_map
from tests.support.quotes import body
from tests.support.stops import send_within_collection

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.full
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
def test_a_stop_ends_a_study_in_one_line_and_its_results_stay(number, code, tmp_path, capsys):
    def main():
        study.write_json(tmp_path / "first.json", {})
        send_within_collection(number)
        study.write_json(tmp_path / "second.json", {})
        study.write_json(tmp_path / "third.json", {})

    with pytest.raises(SystemExit, match=str(code)):
        study.run(main)
    assert capsys.readouterr().err == "stopped; the same command goes on from the results that are stored\n"
    assert sorted(os.listdir(tmp_path)) == ["first.json", "second.json"]


def test_paired_shares_are_compared_by_mcnemars_test():
    pair = statistics.compare_solved({"first": {"solved": "110010"}, "second": {"solved": "011110"}}, "first")["second"]
    assert pair["difference"] == pytest.approx(1 / 6)
    assert pair["p"] == pair["p_holm"] == stats.binomtest(2, 3).pvalue
    assert pair["half"] == pytest.approx(1.96 * np.std([-1, 0, 1, 1, 0, 0]) / 6**0.5, rel=1e-4)
    assert statistics.points_text(pair) == "+16.7 ± 55.0"


def test_results_resume_only_with_the_same_options(tmp_path, capsys):
    parser = study.make_parser("A study.", "folder", starts=8)
    assert vars(parser.parse_args([])) == {"out": pathlib.Path("docs/results/folder"), "starts": 8}
    file = tmp_path / "new" / "study.json"
    content = study.resume(parser, file, {"starts": 2}, {"conditions": {}})
    assert content == {"starts": 2, "conditions": {}}
    study.write(file.parent, "study", content | {"conditions": {"a": 1}}, "| a |")
    assert study.resume(parser, file, {"starts": 2}, {"conditions": {}})["conditions"] == {"a": 1}
    assert (file.parent / "table.md").read_text() == "| a |\n"
    with pytest.raises(SystemExit, match="2"):
        study.resume(parser, file, {"starts": 3}, {"conditions": {}})
    assert "study.json: made with other options; give another --out" in capsys.readouterr().err


def test_arrays_of_which_one_cannot_be_written_leave_the_last_ones(tmp_path):
    file = tmp_path / "a.npz"
    study.write_arrays(file, {"x": np.arange(3)})
    with pytest.raises(TypeError, match="pickle"):
        study.write_arrays(file, {"x": np.arange(4), "y": np.array([threading.Lock()])})
    assert np.load(file)["x"].tolist() == [0, 1, 2] and list(tmp_path.iterdir()) == [file]


def test_provenance_names_versions_machine_device_and_commit():
    origin = study.provenance("python -m experiments.x", ("jax", "numpy"))
    assert origin["versions"] == {"jax": jax.__version__, "numpy": np.__version__}
    assert origin["command"] == "python -m experiments.x" and origin["device"] and "CPUs, Python" in origin["machine"]


def test_provenance_of_later_calls_stands_beside_that_of_the_first():
    def origin(commit):
        return {"command": "python -m experiments.x", "commit": commit}

    content: dict[str, Any] = {"conditions": {}}
    for commit in "aabab":
        study.sign(content, origin(commit))
    assert content == {"conditions": {}, **origin("a"), "later": [origin("b")]}
    content = {"provenance": {}}
    for commit in "abc":
        study.sign(content, origin(commit))
    assert content == {"provenance": origin("a") | {"later": [origin("b"), origin("c")]}}


def test_the_command_of_a_study_has_what_differs_from_its_defaults():
    parser = study.make_dataset_parser("A study.", starts=8)
    parser.add_argument("--arms", nargs="+", default=["a"])
    options, fields = parser.parse_known_args(
        ["digits", "--arms", "b", "c", "--starts", "8", "--out", "X", "--chaos.z0", "3"]
    )
    command = "python -m experiments.x digits --out X --arms b c --chaos.z0 3"
    assert study.command_of(parser, "python -m experiments.x", options, fields) == command


@pytest.fixture
def plain_git(monkeypatch):
    """Git without the user's settings, and without those of a hook, which would choose the user's repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def test_results_that_a_study_writes_do_not_make_its_commit_dirty(tmp_path, plain_git):
    def git(*words):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", "-C", tmp_path, *name, *words], check=True, capture_output=True, text=True)

    code = tmp_path / "code" / "study.py"
    results = [tmp_path / folder / "study.json" for folder in (study.RESULTS, study.CHECKS)]
    for file in (code, *results):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "--message", "first")
    head = git("rev-parse", "HEAD").stdout.strip()
    for file in results:
        file.write_text("2")
    assert study._commit(code.parent) == head
    code.write_text("2")
    study._commit.cache_clear()
    assert study._commit(code.parent) == f"{head}-dirty"


def test_a_study_in_float64_ends_with_one_line_on_a_tpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(SystemExit, match=r"^JAX_PLATFORMS: TPUs have no float64"):
        study.float64()


def test_a_kick_is_the_same_for_all_parameters_of_a_neuron():
    params = net.start(3, 1.0)
    h = jax.jit(net.inputs)(params)
    kick = jax.jit(functools.partial(net.kick, "chaos"))(params, h, 2.0)
    for layer, neurons in enumerate(h, start=1):
        expected = 2.0 * (0.65 - np.asarray(jax.nn.sigmoid(neurons)).mean(0))
        np.testing.assert_allclose(kick[f"w{layer}"], np.stack([expected] * 2), rtol=1e-6)
        np.testing.assert_allclose(kick[f"b{layer}"], expected, rtol=1e-6)


def test_drift_has_the_value_of_the_kick_at_0_and_its_zero():
    rest = np.log(0.65 / 0.35)
    for h in (jnp.zeros((4, 1)), jnp.full((4, 1), rest)):
        np.testing.assert_allclose(net.KICKS["drift"](h), net.KICKS["chaos"](h), atol=1e-6)
    assert net.KICKS["drift"](jnp.ones((4, 1))) != net.KICKS["chaos"](jnp.ones((4, 1)))


@pytest.mark.parametrize("draw", [controls.shuffled, controls.phase_randomised])
def test_a_shuffled_record_falls_as_the_annealed_original(draw):
    z = 0.97 ** jnp.arange(200)
    sign = jax.random.rademacher(jax.random.key(0), (200, 3), jnp.float32)
    drawn = controls.annealed(functools.partial(draw, jax.random.key(1)), z, {"w": z[:, None] * sign})["w"]
    assert not np.allclose(drawn, z[:, None] * sign)
    size = np.sqrt(np.mean((drawn / z[:, None]) ** 2, axis=1))
    np.testing.assert_allclose([size[:100].mean(), size[100:].mean()], 1, atol=0.15)


def test_conditions_of_cbp_have_as_many_tries_and_share_their_runs():
    """A wider tuning has the tries of the first, the published table the runs of the conditions that are not tuned."""
    plans = {name: experiment.plan(conditions.CHUNK) for name, experiment in cbp.experiments(64, 1024).items()}
    tries = {
        part: {cell.arm: [plan.settings[key] for key in cell.tries] for cell in plan.cells}
        for part, plan in plans.items()
    }
    assert {name: len(of) for name, of in tries["conditions"].items()} == dict.fromkeys(conditions.CONDITIONS, 6)
    assert {name: len(of) for name, of in tries["tuned_widely"].items()} == dict.fromkeys(conditions.STRONG, 9)
    assert all(of[3:] == tries["conditions"][name] for name, of in tries["tuned_widely"].items())
    assert tries["untuned"]["CBP descent"] == tries["untuned"]["CBP, z0 12"] == [tries["conditions"]["CBP"][4]]
    assert tries["conditions"]["term as a loss (CSBP)"][0]["z0"] == 3.75
    assert {size for plan in plans.values() for size in plan.sizes.values()} == {256}


def test_a_run_of_cbp_is_its_net_trained_from_a_seed_at_every_init(monkeypatch):
    """Also where its force is of the run from the seed before, whoever trains beside it."""
    for name in ("CBP", "replay of another start"):
        condition = conditions.CONDITIONS[name]
        monkeypatch.setitem(conditions.CONDITIONS, name, condition._replace(kind=condition.kind._replace(first=300)))
    monkeypatch.setattr(conditions, "Kind", functools.partial(net.Kind, first=300))
    tried = [{"condition": "replay of another start", "z0": 6.0, "lr": lr} for lr in (0.2, 5.0)]
    measures = conditions.Cbp().train("replay of another start", tried, [4, 9])
    for n, (fields, seed) in enumerate(zip(tried, (4, 9), strict=True)):
        for init in conditions.INITS:
            setting = jax.tree.map(jnp.float32, net.Setting(z0=6.0, lr=fields["lr"], init=init))
            kicks = net.train(seed - 1, setting, kind=net.Kind(first=300), record=True)[1]
            kind = conditions.CONDITIONS["replay of another start"].kind
            assert measures[f"n = {init:g}"][n] == net.train(seed, setting, kicks, kind=kind)[0]
        assert measures["solved"][n] == np.mean([measures[f"n = {init:g}"][n] for init in conditions.INITS])


@pytest.mark.slow
@pytest.mark.parametrize(("module", "file"), [(cbp, "cbp.json"), (overshoot, "overshoot.json")])
def test_a_study_of_cbp_writes_its_results_and_repeats_no_run(module, file, tmp_path, monkeypatch):
    """Nets are trained for 30 steps, in the fewest conditions that all tables need."""
    monkeypatch.setattr(study, "WORK", tmp_path / "work")
    names = ("plain backpropagation", "CBP", "kick in 20 sub-steps", "larger rate")
    monkeypatch.setattr(cbp, "CONDITIONS", names)
    monkeypatch.setattr(cbp, "STRONG", names[1:3])
    monkeypatch.setattr(overshoot, "STRENGTHS", [6.0, overshoot.RELEASED])
    monkeypatch.setattr(overshoot, "TASKS", dict(list(overshoot.TASKS.items())[:2]))
    monkeypatch.setattr(conditions, "Kind", functools.partial(net.Kind, first=30))
    for of in (conditions.CONDITIONS, conditions.AFTER, overshoot.CONDITIONS, vars(conditions)):
        for name in of if of is not vars(conditions) else ("PLAIN",):
            kind = of[name].kind
            short = kind._replace(first=min(kind.first, 30), last=min(kind.last, 30))
            monkeypatch.setitem(of, name, of[name]._replace(kind=short))
    sizes = {"cbp.json": "--tuning 2 --starts 4", "overshoot.json": "--grid 40 --rises 40 --starts 4"}[file]
    words, out = [*sizes.split(), "--out", str(tmp_path)], tmp_path / file
    if module is cbp:  # its exponents are measured first, and not again
        measured = json.loads((RESULTS / "cbp" / "published" / file).read_text())["exponents"]
        out.write_text(json.dumps({"tuning": 2, "starts": 4, "exponents": measured}))
    module.main(words)
    content, table = json.loads(out.read_text()), (tmp_path / "table.md").read_text()
    for system in (conditions.Cbp, overshoot.Overshoot):
        monkeypatch.setattr(system, "train", None)  # all is finished
    module.main(words)
    assert json.loads(out.read_text()) == content and (tmp_path / "table.md").read_text() == table
    assert list(tmp_path.glob("*.pdf")) and {"starts", "command"} <= content.keys()


def test_plain_levers_of_cbps_net(x64):
    params = jax.tree.map(lambda p: p.astype(float), net.start(2, 1.0))
    step = jax.jit(lambda decay: net.step(params, net.Setting(decay=decay), 0.0, net.Kind(kick=None))[0])
    plain, decayed = step(0.0), step(0.01)
    jax.tree.map(lambda a, b, p: np.testing.assert_allclose(a - b, 0.2 * 0.01 * p, rtol=1e-9), plain, decayed, params)
    # The cross-entropy is linear in its targets, and soft + (1 - 2 soft) y lies between y and 1/2.
    h = net.inputs(params)[1][:, 0]
    half = jnp.mean(jnp.logaddexp(0, h) - h / 2)
    loss = jax.jit(lambda soft: net.loss(params, soft)[0])
    np.testing.assert_allclose(loss(0.1), 0.8 * loss(0.0) + 0.2 * half, rtol=1e-6)


def test_many_sub_steps_of_a_small_kick_are_the_kick_itself(x64):
    params = net.start(1, 1.0)
    h = net.inputs(params)
    single, split = (net.kicks(params, h, 1e-6, net.Kind(substeps=m)) for m in (1, 20))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), single, split)
    # Sub-steps cannot overshoot a neuron's rest, whatever z is.
    moved = jax.tree.map(jnp.add, params, net.kicks(params, h, 50.0, net.Kind(substeps=2000)))
    assert np.abs(jax.nn.sigmoid(net.inputs(moved)[0]).mean(0) - 0.65).max() < 1e-3


def test_a_replayed_record_repeats_the_run_in_place_of_the_kick():
    kind = net.Kind(first=30)
    setting = jax.tree.map(jnp.float32, net.Setting(z0=1.5))
    _, record = net.train(7, setting, kind=kind, record=True)
    again = net.Kind(kick=None, force=conditions.REPLAY, first=30)
    _, replayed = net.train(7, setting, record, kind=again, record=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), record, replayed)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(record))


def test_the_map_at_fixed_z_adds_the_kick_of_its_setting():
    params, setting = net.start(3, 1.0), net.Setting(z0=2.0, lr=0.0)
    moved, fixed = jax.jit(functools.partial(exponents.push, net.Kind()))((params, setting), None)
    kick = jax.jit(functools.partial(net.kick, "chaos"))(params, jax.jit(net.inputs)(params), 2.0)
    jax.tree.map(lambda a, b, k: np.testing.assert_allclose(a - b, k, atol=1e-6), moved, params, kick)
    assert fixed == setting


def test_a_run_that_ran_away_has_no_exponent_in_the_rows(monkeypatch):
    monkeypatch.setattr(exponents, "STRENGTHS", np.array([0.5, 10.0]))
    monkeypatch.setattr(exponents, "STARTS", 2)
    values = jnp.array([[0.5, 0.1], [jnp.nan, 0.1], [-0.25, 0.1], [jnp.inf, 0.1]])
    assert exponents.rows(values) == [[0.5, None], [-0.25, None]]


@pytest.mark.slow
def test_kicks_alone_flip_where_they_overshoot(monkeypatch):
    # h of a neuron with equal inputs moves by z (I0 - s(h)) (1 + |x|**2); measured on the map of the whole net.
    monkeypatch.setattr(exponents, "STRENGTHS", np.array([0.5, 10.0]))
    monkeypatch.setattr(exponents, "STARTS", 2)
    for name in ("TRANSIENT", "COUNTED"):
        monkeypatch.setattr(exponents, name, 200)
    with float64():
        measured = exponents.measure(net.Kind(), 0.0)
    below, above = np.array(measured["tangent"])
    assert np.all(np.abs(below) < 0.02) and np.all(above > 0.3)


def test_all_quantities_of_parity_are_compared():
    content = json.loads((study.CHECKS / "parity" / "parity.json").read_text())
    quantities = parity.QUANTITIES
    assert all(row.keys() == quantities.keys() for row in content["largest_relative_difference"].values())


def test_notes_count_runs_that_are_not_decided_and_runs_of_an_earlier_rule():
    content = json.loads((RESULTS / "exponents" / "conv_batch" / "exponents.json").read_text())
    assert len(list(exponents_study.notes(content))) == 1  # all runs are of the earlier rule, as its page says
    content["conditions"]["drift"][2] |= {"word": "not decided", "bound": 0.005}
    _, undecided, earlier = exponents_study.notes(content)
    assert undecided.startswith("Not decided: 1 of 56 runs") and "The classes of 55 runs" in earlier


def test_known_exponents_are_measured_with_their_errors():
    content = json.loads((study.CHECKS / "known_exponents" / "known_exponents.json").read_text())
    for name, system in known_exponents.SYSTEMS.items():
        for i, known in enumerate(system.exponents):
            values, errors = (content["systems"][name]["1000"][f"exponent {i + 1}"][k] for k in ("values", "errors"))
            scatter = np.std(values, ddof=1)
            assert 0.7 < np.mean(errors) / scatter < 1.5
            assert known is None or abs(np.mean(values) - known) < 3 * scatter / len(values) ** 0.5


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        (exponents_study, "digits --steps 2", "--steps: from 3 on"),
        (exponents_study, "digits --anneal-to -1", "--anneal-to: from 0 to 1"),
        (exponents_study, "digits --sequences 2", "--sequences: only with --map stream"),
        (exponents_study, "digits --starts 0", "--starts: 0 is not possible; allowed are whole numbers from 1 on"),
        (exponents_study, "digits --map stream --sequences -1", "--sequences: -1 is not possible"),
        (accuracy, "digits --seeds x", "--seeds: x is not possible; allowed are whole numbers from 1 on"),
        (ergodic, "--starts 4", "--starts: from 16 on"),
        (known_exponents, "--starts 1", "--starts: at least 2"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(module, line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        module.main(line.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("substeps", "noises"), [(1, list(exponents_study.NOISES)), (3, [])])
def test_noises_are_as_large_as_gradients_and_left_out_for_substeps(substeps, noises, tmp_path, monkeypatch):
    monkeypatch.setattr(exponents_study.training_map, "conditions", lambda config: {"as given": config})
    monkeypatch.setattr(exponents_study.measure, "measure", lambda *_: small_map.CALM | {"apart": {}})
    options = argparse.Namespace(
        data_dir=str(tmp_path), map="batch", starts=1, steps=3, sequences=None, exponents=2, anneal_to=0.1, dataset="d"
    )
    config = replaced(small_map.DENSE, "chaos.substeps", substeps)
    content = exponents_study.measured(config, options, tmp_path / "exponents.json", argparse.ArgumentParser(), "")
    assert list(content["conditions"]) == ["as given", *noises]


def test_starts_can_be_added_to_a_study_but_not_taken_away(tmp_path, monkeypatch, capsys):
    """With fewer, conditions had different numbers of starts: a traceback, after a figure with a false caption."""
    monkeypatch.setattr(exponents_study.training_map, "conditions", lambda config: {"as given": config})
    monkeypatch.setattr(exponents_study.measure, "measure", lambda *_: small_map.CALM | {"apart": {}})
    file = tmp_path / "exponents.json"

    def measured(starts):
        options = argparse.Namespace(
            **{"data_dir": str(tmp_path), "map": "batch", "starts": starts, "steps": 3, "sequences": None},
            **{"exponents": 2, "anneal_to": 0.1, "dataset": "d"},
        )
        content = exponents_study.measured(small_map.DENSE, options, file, argparse.ArgumentParser(), "")
        return {len(runs) for runs in content["conditions"].values()}

    assert measured(2) == {2} and measured(3) == {3}
    stored = file.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        measured(2)
    assert f"{file}: has 3 starts; give --starts 3 or more, or another --out" in capsys.readouterr().err
    assert file.read_bytes() == stored


def test_every_tenth_step_of_a_course_is_stored():
    steps = np.arange(301)
    courses = {"deltas": [1e-8, 1e-2], "logits": np.stack([1e-8 * np.exp(0.1 * steps), np.ones(301)], axis=1).tolist()}
    thinned = exponents_study.thinned({"cumulated": (0.1 * (steps[1:])).tolist(), "apart": courses, "word": "chaotic"})
    assert thinned["cumulated"][:2] == [1.0, 2.0] and len(thinned["cumulated"]) == 30 and thinned["word"] == "chaotic"
    assert len(thinned["apart"]["logits"]) == 31 and thinned["apart"]["logits"][1][0] == pytest.approx(
        1e-8 * np.e, rel=1e-4
    )


@pytest.mark.slow
def test_the_study_of_exponents_reports_its_measures_and_why_an_exponent_is_missing(tmp_path, monkeypatch, capsys):
    """On a single condition, under Adam without eps_root."""
    monkeypatch.setattr(exponents_study.training_map, "conditions", lambda config: {"as given": config})
    line = "digits --starts 1 --steps 6 --exponents 2 --anneal-to 0.01 --batch-size 96 --model.name dense "
    line += "--model.features 4 --model.time-steps 2 --optimizer.name adam --chaos.taps fc1.dense --chaos.z0 1"
    exponents_study.main([*line.split(), "--data-dir", str(tmp_path), "--out", str(tmp_path)])
    content, table = json.loads((tmp_path / "exponents.json").read_text()), (tmp_path / "table.md").read_text()
    assert content["config"]["chaos"]["beta"] ** 6 == pytest.approx(0.01) and content["steps_per_epoch"] == 13
    (run,) = content["conditions"]["as given"]
    assert run["word"] == "no exponent" and run["counted"] == 4
    sized = run["finite_size"]
    assert [sized["deltas"][0], sized["deltas"][-1]] == [1e-12, 0.1]
    for values in (sized["exponents"], sized["parameters"]["exponents"], sized["logits"]["exponents"], sized["spikes"]):
        assert len(values) == 12 and np.isfinite(values).all()
    assert "| as given | not defined | not defined | 0.0 of 2 | not defined | not defined | " in table
    assert "| as given | 1e-08 | " in table and "| as given | 0.01 | " in table
    assert "z falls to 0.01 of z0, by a factor of 0.4642 per step" in table and "Adam has no tangent" in table
    assert (tmp_path / "exponents.pdf").stat().st_size > 1000
    said = f"digits --data-dir {tmp_path} --out {tmp_path} --starts 1 --steps 6 --exponents 2 --anneal-to 0.01"
    assert content["command"].startswith(f"python -m experiments.exponents {said} --batch-size 96 --model.name dense ")
    capsys.readouterr()
    exponents_study.main([*line.split(), "--data-dir", str(tmp_path), "--out", str(tmp_path)])
    assert "start 0" not in capsys.readouterr().out  # finished runs are not repeated
    with pytest.raises(SystemExit, match="2"):
        exponents_study.main([*line.split(), "--out", str(tmp_path), "--data-dir", str(tmp_path), "--steps", "9"])
    assert "made with other options" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["dense_batch", "dense_epoch", "dense_stream", "conv_batch"])
def test_the_page_of_exponents_has_rows_of_their_tables(folder):
    table = (RESULTS / "exponents" / folder / "table.md").read_text()
    page, rows = (RESULTS / "exponents" / "README.md").read_text(), {row[0]: row for row in reversed(body(table))}
    exponents = [rows[name][1] for name in ("as given", "z = 0", "drift")]
    assert f"({folder}/table.md) | {' | '.join(exponents)} |" in page


def test_intervals_over_starts_and_over_sequences_are_of_their_means():
    runs = [{"start": s, "sequence": q} for s in range(2) for q in range(3)]
    text = exponents_study.intervals(runs, [10.0 * run["start"] + run["sequence"] for run in runs])
    over_starts, over_sequences = (statistics.mean_text(means) for means in ([1.0, 11.0], [5.0, 6.0, 7.0]))
    assert text == f"{over_starts}, {over_sequences.split(' ', 1)[1]}"
    runs = [{"start": s, "sequence": s} for s in range(3)]
    assert exponents_study.intervals(runs, [1.0, 2.0, 6.0]) == statistics.mean_text([1.0, 2.0, 6.0])


def test_results_of_other_options_or_more_seeds_are_not_replaced(tmp_path, monkeypatch, capsys):
    run = {"test_accuracy": 0.9, "test_count": 10}
    result = {"last": run, "chosen": run, "seconds": 1.0, "gradient_norms": {"chaos": 1.0, "task": 2.0}}
    for module in (accuracy, precision):
        monkeypatch.setattr(module, "train_arms", lambda arms, seeds, _: {arm: [result] * seeds for arm in arms})
    file = tmp_path / "accuracy.json"
    for module, words in (
        (accuracy, ["digits"]),
        (accuracy, ["mnist", "--seeds", "1"]),
        (accuracy, ["mnist", "--batch-size", "16"]),
        (precision, ["mnist"]),
    ):
        stored = (RESULTS / ("presets/mnist" if module is accuracy else "precision") / "accuracy.json").read_text()
        file.write_text(stored)
        with pytest.raises(SystemExit, match="2"):
            module.main([*words, "--out", str(tmp_path)])
        assert "made with other options or more seeds; give another --out" in capsys.readouterr().err
        assert file.read_text() == stored
    stored = (study.PRESETS / "mnist" / "accuracy.json").read_text()
    file.write_text(stored)
    accuracy.main(["mnist", "--seeds", "3", "--out", str(tmp_path)])
    assert json.loads(file.read_text())["seeds"] == 3


def test_the_page_of_bfloat16_names_the_device():
    content = json.loads((RESULTS / "precision" / "accuracy.json").read_text())
    text = precision.page(content | {"device": "NVIDIA H100"})
    assert "test examples. Run on NVIDIA H100; time and memory are not reported." in text and "emulates" not in text


@pytest.mark.parametrize(("dataset", "fields"), [("digits", ["--chaos.z0", "30"]), ("shd", [])])
def test_sentences_on_a_preset_of_this_study_are_on_no_other_page(dataset, fields):
    content = json.loads((study.PRESETS / "digits" / "accuracy.json").read_text())
    text = accuracy.page(content | {"dataset": dataset, "fields": fields})
    assert "is the preset's" not in text and "near 100 %" not in text
    assert ("Images by the same writer" in text) == (dataset == "digits")


@pytest.mark.parametrize(
    ("pairs", "conclusion"),
    [
        ((-0.02, -0.019, -0.021), "CSBP is below"),
        ((0.01, -0.01, 0.0), "neither shown nor excluded: the paired interval contains 0."),
        ((-0.0028, -0.0028), "neither shown nor excluded: all pairs differ by the same."),
        ((0.02,), "One pair"),
    ],
)
def test_the_conclusion_follows_from_the_interval(pairs, conclusion):
    content = {"intervals": {"last": {"csbp - bp": statistics.student_dict(pairs)}}}
    assert conclusion in accuracy.conclusion(content)


def test_equal_values_have_no_interval():
    assert accuracy.cell(statistics.student_dict([0.1 + 0.2, 0.3, 0.3])) == "30.00 (all equal)"
    assert accuracy.cell(statistics.student_dict([0.3])) == "30.00"
    assert accuracy.cell(statistics.student_dict([0.2, 0.4])).startswith("30.00 [")


def test_patterns_of_the_parity_tasks():
    x, y = net.patterns("xor")
    assert np.array_equal(x, xor_net.X) and np.allclose(y, 0.1 + 0.8 * np.asarray(xor_net.Y))
    x, y = net.patterns("parity")
    assert np.allclose(y, [0.9 if sum(map(int, f"{i:03b}")) % 2 else 0.1 for i in range(8)])
    assert np.array_equal(x @ np.array([4, 2, 1]), np.arange(8))


@pytest.mark.parametrize("task", ["xor", "parity"])
def test_kicks_of_a_hidden_neuron_overshoot_from_the_flip_on(x64, task):
    """There, a small gap between the mean activation and I0 changes its sign at a kick and keeps its size."""
    rest, z = np.log(net.I0 / (1 - net.I0)), overshoot.flip(task)
    x, _ = net.patterns(task)

    def gap_after_a_kick(gap):
        weights, bias = jnp.full(x.shape[1], gap / 2), rest + gap / 2  # the kick's own direction
        kick = z * (net.I0 - jax.nn.sigmoid(x @ weights + bias).mean())
        return jax.nn.sigmoid(x @ (weights + kick) + bias + kick).mean() - net.I0

    before = jax.nn.sigmoid(x @ jnp.full(x.shape[1], 5e-7) + rest + 5e-7).mean() - net.I0
    assert gap_after_a_kick(1e-6) == pytest.approx(-float(before), rel=1e-3)


def test_alternating_force_has_the_records_size_and_changes_its_sign():
    record = {"w": jnp.array([[3.0, -4.0], [6.0, 8.0], [0.0, 1.0]]), "b": jnp.array([[2.0], [-1.0], [5.0]])}
    force = forcing.alternating(record)
    assert np.allclose(force["w"], np.sqrt([[12.5] * 2, [50.0] * 2, [0.5] * 2]) * [[1], [-1], [1]])
    assert np.allclose(force["b"], [[2.0], [-1.0], [5.0]])


def test_rises_under_the_alternating_force_are_of_the_run_that_is_trained():
    """Its map, with the paired run in the state, takes the steps of training under the force of the record."""
    kind, setting = net.Kind(task="parity", substeps=3), net.Setting(z0=11.0)
    move, push = jax.jit(net.step, static_argnames="kind"), jax.jit(overshoot.annealed_map(kind, True))
    alternating = jax.jit(lambda records: forcing.alternating(jax.tree.map(lambda *rows: jnp.stack(rows), *records)))
    paired = trained = net.start(5, setting.init, "parity")
    state = trained, setting, jnp.int32(0), paired
    # The force at a step follows from the record up to that step alone.
    records = [jax.tree.map(jnp.zeros_like, paired)] * 3
    for n in range(3):
        z = net.strength(jnp.int32(n), setting)
        moved, record = jax.device_get(move(paired, setting, z, kind=kind._replace(substeps=1)))
        paired, records[n] = jax.tree.map(np.add, moved, record), record
        force = jax.device_get(alternating(records))
        moved, kicked = jax.device_get(move(trained, setting, z, kind=kind))
        trained = jax.tree.map(lambda m, k, f, n=n: m + k + f[n], moved, kicked, force)
        state = push(state, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state[0], trained)


def test_ceiling_holds_the_strength_until_annealing_reaches_it():
    setting = net.Setting(z0=12.0, beta=0.5, ceiling=4.0)
    assert np.allclose(net.strength(jnp.arange(5), setting), [4, 4, 3, 1.5, 0.75])
    assert np.allclose(net.strength(jnp.arange(2), net.Setting(z0=12.0, beta=0.5)), [12, 6])


def test_rises_of_a_condition_are_of_the_run_that_is_trained():
    kind = xor_net.Kind(term="drift", substeps=3)
    setting = xor_net.Setting(z0=2.0, lr=1.0, width=2.0)
    trained = xor_net.train(3, setting, kind=kind, steps=3)[1]
    state, step = (
        (xor_net.start(jnp.int32(3), setting), jnp.int32(0)),
        jax.jit(functools.partial(tuned.annealed_step, setting, kind)),
    )
    for _ in range(3):
        state = step(state, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state[0], trained)


def test_missing_results_of_equal_tuning_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    with pytest.raises(SystemExit):
        escape.main([])
    error = f"{tmp_path}/xor/tuned/tuned.json: there is no such file; run python -m experiments.xor.tuned first"
    assert error in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_random_jump_is_as_long_as_the_displacement_of_each_tensor():
    params, end = xor_net.uniform(0), xor_net.uniform(1)
    params, end, jumped = jax.device_get((params, end, jax.jit(xor_conditions.jumped)(params, end, jnp.int32(5))))
    for name in params:
        length = np.linalg.norm(end[name] - params[name])
        assert np.linalg.norm(jumped[name] - params[name]) == pytest.approx(float(length), rel=1e-5)
        assert params[name].size == 1 or not np.allclose(jumped[name], end[name])


def test_stuck_points_are_ends_of_plain_training_that_do_not_solve_xor():
    setting = xor_net.Setting(lr=1.0, width=3.0)
    points = escape.find_stuck(setting, 8, steps=20)
    assert len(points.seeds) == 8 and len(set(points.seeds.tolist())) == 8
    rates = jax.jit(jax.vmap(lambda params: xor_net.forward(params, setting)[0]))(points.params)
    assert not np.any(np.all((np.asarray(rates) > 0.5) == (np.asarray(xor_net.Y) > 0.5), axis=1))
