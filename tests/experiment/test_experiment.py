"""Experiments on a system of one's own: plan, choice, resumption, shards, table."""

import dataclasses
import io
import itertools
import os
from typing import Any

import numpy as np
import pandas
import pytest

import csbp_jax
from csbp_jax.config import ConfigError
from csbp_jax.experiment import Arm, Experiment
from csbp_jax.experiment.fields import key
from csbp_jax.experiment.store import Block, Store
from csbp_jax.reporting.terminal import Console
from csbp_jax.training import run_dir
from tests.support.rows import full


@dataclasses.dataclass
class Hill:
    """A system whose runs score best at a height of 3, with noise by their seed; it remembers what it trained."""

    noise: float = 0.1
    trained: list[Any] = dataclasses.field(default_factory=list)

    def group(self, fields):
        return fields.get("kind", "")

    def train(self, group, fields, seeds):
        assert {self.group(f) for f in fields} == {group}
        self.trained.append((group, [f["height"] for f in fields], list(seeds)))
        noise = [np.random.default_rng(seed).normal() for seed in seeds]
        score = [-abs(f["height"] - 3) + self.noise * n for f, n in zip(fields, noise, strict=True)]
        return {"score": np.array(score), "path": np.array([[s, 2 * s] for s in score]), "seed_of": np.array(seeds)}


def uniform(generator):
    return {"height": float(generator.uniform(0, 6))}


def run(experiment, folder, **options):
    return experiment.run(folder, console=Console(file=io.StringIO()), **options)


def content(folder):
    """The files of an experiment that its runs determine."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def tuned(system=None, **changes):
    """Two arms of two groups, of which one has fields of its own, on two cases, tuned over two draws."""
    arms: dict[str, Any] = {"a": {"kind": "A"}, "b": Arm({"kind": "B"}, tuned=lambda g: {"width": float(g.random())})}
    options: dict[str, Any] = {
        "arms": arms,
        "cases": {"low": {"place": 1}, "high": {"place": 2}},
        "tuned": uniform,
        "tries": 3,
        "draws": 2,
        "seeds": range(4),
        "tuning_seeds": range(10, 12),
    }
    return Experiment(Hill() if system is None else system, **options | changes)


def test_rows_of_a_tuned_experiment(tmp_path):
    table = run(tuned(), tmp_path / "e")
    frame = table.frame
    assert list(frame.columns[:6]) == ["case", "arm", "draw", "try", "role", "seed"]
    assert set(table.fields) == {"place", "height", "kind", "width"} and table.measures == ("score", "seed_of")
    assert len(frame) == 2 * 2 * 2 * (3 * 2 + 4)
    assert (frame["seed_of"] == frame["seed"]).all()
    for _, cell in frame.groupby(["case", "arm", "draw"]):
        tries, tests = cell[cell["role"] == "tune"], cell[cell["role"] == "test"]
        means = tries.groupby("try")["score"].mean()
        assert len(means) == 3 and tests["try"].unique().tolist() == [means.idxmax()]
        assert not set(tries["seed"]) & set(tests["seed"]) and len(set(tests["seed"])) == 4
        assert set(tests["height"]) == set(tries[tries["try"] == means.idxmax()]["height"])
    heights = frame[frame["role"] == "tune"].groupby(["draw", "arm", "case"])["height"].unique().apply(tuple)
    assert len(set(heights[0])) == len(set(heights[1])) == 1, "all arms and cases try the same settings"
    assert not set(heights[0].iloc[0]) & set(heights[1].iloc[0]), "draws are independent"
    assert not set(frame[frame["draw"] == 0]["seed"]) & set(frame[frame["draw"] == 1]["seed"])
    assert set(frame[frame["draw"] == 1]["seed"]) == {*range(100, 104), 110, 111}, "shifted by a power of ten"
    of_b = frame[frame["arm"] == "b"].groupby(["draw", "try"])["width"].nunique()
    assert (of_b == 1).all() and frame[frame["arm"] == "a"]["width"].isna().all()


def test_the_table_of_an_experiment_is_contrasted_over_its_draws(tmp_path):
    table = run(tuned(cases={"": {}}, draws=3), tmp_path / "e")
    row = table.contrast("a", "b").frame.iloc[0]
    tests = table.frame[table.frame["role"] == "test"]
    means = tests.groupby(["arm", "draw"])["score"].mean()
    assert row["pairs"] == 3 and row["difference"] == pytest.approx((means["a"] - means["b"]).mean())
    first = table.where(draw=0)
    chosen = tests[(tests["arm"] == "a") & (tests["draw"] == 0)]["height"].iloc[0]
    assert first.best("a", "score")["height"] == chosen
    assert csbp_jax.Experiment is Experiment and csbp_jax.Arm is Arm


def test_a_layer_of_a_system_that_fires_at_all_times_is_named(tmp_path):
    class Firing(Hill):
        def train(self, group, fields, seeds):
            return super().train(group, fields, seeds) | {"rates.fc": np.ones((len(seeds), 2))}

    lines = io.StringIO()
    tuned(Firing()).run(tmp_path / "e", console=Console(file=lines))
    assert "runs have a layer that never or always fires over an epoch (fc)" in lines.getvalue().replace("\n", " ")


def test_a_choice_at_the_edge_of_what_was_tried_is_named(tmp_path):
    """The score is best at a height of 3; of two values, or with 0, which is off, nothing can be said."""
    arms = {"a": {}, "b": {"kind": "B"}, "fixed": {"height": 9.0}}

    numbers = itertools.count()

    def notes(heights, **changes):
        lines = io.StringIO()
        experiment = tuned(Hill(noise=0), arms=arms, tuned={"height": heights}, draws=1, **changes)
        experiment.run(tmp_path / f"e{next(numbers)}", console=Console(file=lines, width=200))
        return [line for line in lines.getvalue().splitlines() if line.startswith("note: height")]

    line = "note: height: the {} value that was tried is chosen for {}; try {} ones"
    assert notes([0.5, 1.0, 2.0], cases={"": {}}) == [line.format("largest", "a, b", "larger")]
    assert notes([4, 5, 6], cases={"": {}}) == [line.format("smallest", "a, b", "smaller")]
    of_cases = "a in 2 of 2 choices, b in 2 of 2 choices"
    assert notes([1.0, 2.0, 0.25]) == [line.format("largest", of_cases, "larger")]
    for heights in ([1.0, 3.0, 5.0], [1.0, 2.0], [0, -4.0, -2.0]):
        assert notes(heights) == []


def test_changes_win_over_tuned_values_and_adapt_sees_all(tmp_path):
    def adapt(fields, splits):
        return {"kind": fields["kind"], "height": fields["height"] * fields["unit"]}

    arms = {"fixed": {"height": 9.0}, "adapted": Arm({"kind": "x", "unit": 10.0}, adapt=adapt)}
    frame = run(tuned(arms=arms, cases={"": {}}), tmp_path / "e").frame
    assert set(frame[frame["arm"] == "fixed"]["height"]) == {9.0}
    shared = [uniform(g)["height"] for g in [np.random.default_rng(0)] for _ in range(3)]
    first = frame[(frame["arm"] == "adapted") & (frame["draw"] == 0) & (frame["role"] == "tune")]
    assert first["height"].unique().tolist() == [10 * height for height in shared]


def test_a_grid_is_tried_in_all_combinations(tmp_path):
    grid = {"height": [1.0, 2.0], "width": (0, 1, 2)}
    frame = run(tuned(arms={"a": {}, "b": {"kind": "B"}}, cases={"": {}}, tuned=grid, draws=1), tmp_path / "e").frame
    tries = frame[frame["role"] == "tune"].groupby(["arm", "try"])[["height", "width"]].first()
    wanted = [[1.0, 0], [1.0, 1], [1.0, 2], [2.0, 0], [2.0, 1], [2.0, 2]]
    assert tries.loc["a"].to_numpy().tolist() == wanted == tries.loc["b"].to_numpy().tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"a": {}, "b": Arm(tuned={"width": [1, 2]})}}, "they have {'a': 3, 'b': 6}"),
        ({"tuning_seeds": ()}, "tuning_seeds: give some"),
        ({"tuning_seeds": (), "tuned": {"height": [1, 2]}, "arms": {"a": {}}, "draws": 1}, "tuning_seeds: give some"),
        ({"tuned": {"height": [1, 2]}, "arms": {"a": {}}}, "draws: several need a joint draw"),
        ({"tuned": {"height": []}, "arms": {"a": {}}, "draws": 1}, "tuned: arm a has no settings to try"),
        ({"tries": 0}, "tries is 0, but must be a positive whole number"),
        ({"draws": 0}, "draws is 0, but must be a positive whole number"),
        ({"arms": {"a": {"place": 3}}}, "cases: place is also tuned, or of arm a, which would win over it"),
        ({"cases": {"low": {"height": 1.0}}}, "cases: height is also tuned"),
        ({"tuning_seeds": (3, 4)}, "others than tuning_seeds"),
        ({"seeds": ()}, "seeds: give some"),
        ({"arms": {"a": {"role": 1}}}, "role: a column of the table of runs has this name; give the field another one"),
    ],
)
def test_unfair_comparisons_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tuned(**changes).plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["a"]}, r"arms: is \['a'\], but must have names and fields: \{\"plain\": \{\"chaos.z0\": 0\}\}$"),
        ({"arms": {"a": 3}}, r"arms: a is 3, but must be fields, as .*, or an Arm$"),
        ({"seeds": 3}, r"^seeds: is 3, but must be several, as range\(3\) or \[3\]$"),
        ({"tuning_seeds": 3}, r"^tuning_seeds: is 3, but must be several"),
    ],
)
def test_arguments_of_another_type_are_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        tuned(**changes)


def test_two_equal_arms_are_named():
    """Their runs are the same, and every difference 0; also where a field is given that the base has."""
    arms: dict[str, Any] = {"CSBP": {}, "plain": {"chaos.z0": 0}, "given": {"chaos.z0": 10}}
    notes = list(Experiment("digits", arms, seeds=(0,)).plan().notes())
    assert notes == ["note: arms CSBP and given have the same fields, and so the same runs"]


def test_an_arms_own_draw_is_independent_of_the_shared_one():
    """NumPy takes the seeds [0] and [0, 0] for the same."""
    own = Arm(tuned=lambda generator: {"width": generator.uniform()})
    plan = tuned(arms={"a": own, "b": own}, tries=50, draws=1).plan()
    for cell in plan.cells:
        fields = [plan.settings[setting] for setting in cell.tries]
        height, width = ([of[name] for of in fields] for name in ("height", "width"))
        assert abs(np.corrcoef(height, width)[0, 1]) < 0.5, cell.arm


def test_tries_that_are_the_same_setting_are_said(tmp_path):
    arms, lines = {"a": {}, "plain": {"height": 0.0}}, io.StringIO()
    grid = {"height": [1.0, 2.0], "width": [0, 1, 2]}
    experiment = tuned(arms=arms, cases={"": {}}, tuned=grid, draws=1)
    experiment.run(tmp_path / "e", console=Console(file=lines, width=200))
    assert "note: different settings among the tries: a 6, plain 3; a fair comparison" in lines.getvalue()


@pytest.mark.parametrize("choose", ["scores", "curve"])
def test_a_measure_that_cannot_choose_is_one_line(tmp_path, choose):
    class Curved(Hill):
        def train(self, group, fields, seeds):
            return super().train(group, fields, seeds) | {"curve": np.ones((len(seeds), 2))}

    with pytest.raises(ConfigError, match=rf"choose: {choose} is no measure of a whole run; those are score, seed_of"):
        run(tuned(Curved(), choose=choose), tmp_path / "e")


def test_runs_that_are_known_do_not_hide_how_the_others_were_trained(tmp_path):
    (tmp_path / "blocks").mkdir()
    store, fields = Store(tmp_path, print), {"height": 1.0}
    store.write(Block(key(fields), (0,)), fields, {"score": [1.0]}, {})
    store.write(Block(key(fields), (1,)), fields, {"score": [1.0]}, {"data": "A"})
    with pytest.raises(ConfigError, match="its data have changed"):
        store.check_how(key(fields), {"data": "B"})


def test_equal_settings_of_arms_are_trained_once_and_one_compilation_serves_a_group(tmp_path):
    system = Hill()
    arms = {"a": {}, "b": {"kind": "B"}, "same": {}}
    run(tuned(system, arms=arms, cases={"": {}}, tuned={"height": [0.0, 1.0, 2.0, 5.0]}, draws=1), tmp_path / "e")
    assert [(group, len(seeds)) for group, _, seeds in system.trained] == [("", 8), ("", 8), ("B", 8), ("B", 8)]
    trained = [
        (group, h, seed) for group, heights, seeds in system.trained for h, seed in zip(heights, seeds, strict=True)
    ]
    assert len({row for row in trained if row[0] == ""}) == 4 * 2 + 4, "the rest are copies that fill a chunk"


def test_a_group_is_compiled_once_although_draws_and_cases_take_turns(tmp_path):
    system = Hill()
    run(tuned(system), tmp_path / "e")
    groups = [group for group, _, _ in system.trained]
    assert len(groups) == 16 and sum(a != b for a, b in itertools.pairwise(groups)) == 1


class Died(BaseException):
    """The process is gone."""


def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """Before and after each file is moved to its place."""
    small = {"cases": {"": {}}, "draws": 1, "tries": 2}
    run(tuned(**small), tmp_path / "whole", chunk=3)
    whole, replace = content(tmp_path / "whole"), os.replace
    count = sum(name.startswith("blocks") for name in whole) + 3

    def dying(after, late):
        calls = iter(range(count + 1))

        def replacing(*paths):
            dies = next(calls) == after
            if not dies or late:
                replace(*paths)
            if dies:
                raise Died

        return replacing

    for after in range(count):
        for late in (False, True):
            folder = tmp_path / f"{after}-{late}" / "whole"
            with monkeypatch.context() as patch, pytest.raises(Died):
                patch.setattr(os, "replace", dying(after, late))
                run(tuned(**small), folder, chunk=3)
            before = {name: file for name, file in content(folder).items() if name.startswith("blocks")}
            assert before.items() <= whole.items()
            system = Hill()
            run(tuned(system, **small), folder, chunk=3)
            assert content(folder) == whole
    assert system.trained == [], "after the last file nothing is left"


def test_progress_counts_all_runs_also_those_that_were_finished_before(tmp_path):
    lines = io.StringIO()
    for seeds in (range(2), range(5)):
        experiment = Experiment(Hill(), {"a": {"height": 1.0}}, seeds=seeds)
        experiment.run(tmp_path / "e", chunk=2, console=Console(file=lines))
    named = dict.fromkeys(line.partition(",")[0] for line in lines.getvalue().splitlines() if line.startswith("run"))
    assert list(named) == ["runs 1 to 2 of 2", "runs 3 to 4 of 5", "run 5 of 5"]


def test_the_time_left_is_told_from_runs_that_compiled_nothing(tmp_path, monkeypatch):
    """Two programs, of which the first run takes 1000 seconds and each of the four others 100."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Slow(Hill):
        def train(self, group, fields, seeds):
            is_new = group not in {trained[0] for trained in self.trained}
            now[0] += 1000 if is_new else 100
            return super().train(group, fields, seeds)

    lines = io.StringIO()
    arms = {kind: {"kind": kind, "height": 1.0} for kind in "AB"}
    Experiment(Slow(), arms, seeds=range(5)).run(tmp_path / "e", chunk=1, console=Console(file=lines))
    left = [line.partition("0%")[2] for line in lines.getvalue().splitlines() if line.startswith("run")]
    minutes = [f", about 0:{seconds // 60:02}:{seconds % 60:02} left" for seconds in range(800, 0, -100)]
    assert left == ["", "", *minutes, ""]


@pytest.mark.parametrize("count", [2, *full([3, 20])])
def test_shards_are_the_whole_to_the_byte(tmp_path, count):
    run(tuned(), tmp_path / "whole" / "e", chunk=2)
    trained = []
    for number in reversed(range(count)):
        system = Hill()
        table = run(tuned(system), tmp_path / "shards" / "e", chunk=2, shard=(number, count))
        trained += [row for row in system.trained]
        assert (tmp_path / "shards" / "e" / "runs.csv").exists() == (number == 0)
        assert repr(table).startswith(f"{len(table.frame)} runs")
    assert len(table.frame) == 80 and content(tmp_path / "shards" / "e") == content(tmp_path / "whole" / "e")
    system = Hill()
    run(tuned(system), tmp_path / "again" / "e", chunk=2)
    assert sorted(map(repr, trained)) == sorted(map(repr, system.trained))


def test_shards_with_folders_of_their_own_are_merged_to_the_whole(tmp_path):
    """Also where two have trained the same runs, in other chunks."""
    whole = run(tuned(), tmp_path / "whole", chunk=2)
    for number, chunk in ((0, 2), (1, 3), (2, 2)):
        run(tuned(), tmp_path / str(number), chunk=chunk, shard=(number, 3))
    run(tuned(seeds=range(3)), tmp_path / "more", chunk=3)
    system, lines = Hill(), io.StringIO()
    sources = [tmp_path / name for name in ("0", "1", "2", "more")]
    merged = tuned(system).run(tmp_path / "merged", chunk=2, merge=sources, console=Console(file=lines, width=200))
    pandas.testing.assert_frame_equal(merged.frame, whole.frame)
    for name in ("runs.csv", "epochs.csv"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert system.trained == [] and "finished runs are merged from" in lines.getvalue()
    again = tuned(system).run(tmp_path / "merged", merge=sources, console=Console(file=io.StringIO()))
    assert len(again.frame) == 80


def test_runs_of_other_data_are_not_merged(tmp_path):
    fields, block = {"height": 1.0}, Block(key({"height": 1.0}), (0,))
    for name, of_data in (("a", "A"), ("b", "B")):
        (tmp_path / name / "blocks").mkdir(parents=True)
        Store(tmp_path / name, print).write(block, fields, {"score": [1.0]}, {"data": of_data})
    with pytest.raises(ConfigError, match="data: B there, A in other finished runs of this setting"):
        Store(tmp_path / "a", print).take(tmp_path / "b")


def test_other_arms_and_seeds_are_added(tmp_path):
    first, second = Hill(), Hill()
    arms = {"a": {"height": 1.0}}
    one = run(Experiment(first, arms, seeds=range(3)), tmp_path / "e").frame
    both = run(Experiment(second, arms | {"b": {"height": 2.0}}, seeds=range(5)), tmp_path / "e").frame
    (trained,) = second.trained
    assert set(zip(*trained[1:], strict=True)) == {(1.0, 3), (1.0, 4), *((2.0, seed) for seed in range(5))}
    kept = both[(both["arm"] == "a") & (both["seed"] < 3)].reset_index(drop=True)
    assert kept[one.columns].equals(one) and len(both) == 10


def test_known_runs_are_found_by_fields_and_seed_and_not_trained(tmp_path):
    """Of a table that went through CSV: the same choices and tests, and only new seeds train."""
    before = run(tuned(), tmp_path / "before").frame
    before.to_csv(tmp_path / "runs.csv", index=False)
    known, system, lines = pandas.read_csv(tmp_path / "runs.csv"), Hill(), io.StringIO()
    for _ in range(2):
        table = tuned(system).run(tmp_path / "after", known=known, console=Console(file=lines, width=200))
        assert system.trained == []
        pandas.testing.assert_frame_equal(table.frame, before, check_dtype=False)
        assert "80 of 80 known runs are of these settings" in lines.getvalue()
    more = run(tuned(system, seeds=range(5)), tmp_path / "more", known=known.sample(frac=1, random_state=0)).frame
    assert {seed for _, _, seeds in system.trained for seed in seeds} == {4, 104}
    assert more[more["seed"] % 100 != 4].reset_index(drop=True).equals(table.frame)


def test_known_runs_of_other_fields_are_trained(tmp_path):
    """Also where a field is text, none or a number near another."""
    arms: dict[str, Any] = {"a": {"height": 1.0, "kind": "x"}, "b": {"height": 1 + 1e-9}, "c": {"height": 2}}
    known = run(Experiment(Hill(), arms, seeds=range(2)), tmp_path / "before").frame
    system = Hill()
    others = arms | {"d": {"height": 1.0, "kind": "y"}, "e": {"height": 2, "kind": "x"}, "f": {"height": 1.0}}
    run(Experiment(system, others, seeds=range(2)), tmp_path / "after", known=known)
    trained = {(group, height) for group, heights, _ in system.trained for height in heights}
    assert trained == {("y", 1.0), ("x", 2), ("", 1.0)}


def test_known_runs_of_a_single_setting_need_no_column_of_fields(tmp_path):
    known = run(Experiment(Hill(), {"a": {"height": 1.0}}, seeds=range(2)), tmp_path / "before").frame
    system = Hill()
    table = run(Experiment(system, {"a": {"height": 1.0}}, seeds=range(3)), tmp_path / "after", known=known)
    assert "height" not in known and len(table.frame) == 3
    assert {seed for _, _, seeds in system.trained for seed in seeds} == {2}


@pytest.mark.parametrize("known", [{"height": [1.0], "score": [2.0]}, {"height": [1.0], "seed": [0]}])
def test_known_runs_without_seeds_or_measures_are_refused_and_damage_no_folder(tmp_path, known):
    """Without measures, a result was stored that the next call took for damaged."""
    experiment = Experiment(Hill(), {"a": {"height": 1.0}}, seeds=range(1))
    with pytest.raises(ConfigError, match="known: a table of runs has a column seed and columns of measures"):
        run(experiment, tmp_path / "e", known=pandas.DataFrame(known))
    assert run(experiment, tmp_path / "e").frame["score"].notna().all()


def test_curves_are_a_table_of_their_own(tmp_path):
    run(Experiment(Hill(), {"a": {"height": 1.0}, "b": {"height": 2.0}}, seeds=range(2)), tmp_path / "e")
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    assert curves[["arm", "seed", "epoch"]].to_numpy().tolist() == [
        [a, s, e] for a in "ab" for s in (0, 1) for e in (1, 2)
    ]
    np.testing.assert_allclose(curves["path"][1::2], 2 * curves["path"][::2])


def test_a_try_that_diverges_is_chosen_last(tmp_path):
    class Cliff(Hill):
        def train(self, group, fields, seeds):
            measures = super().train(group, fields, seeds)
            return measures | {"score": np.where([f["height"] > 2 for f in fields], np.nan, measures["score"])}

    grid = {"height": [0.0, 2.0, 3.0]}
    frame = run(tuned(Cliff(), arms={"a": {}}, cases={"": {}}, tuned=grid, draws=1), tmp_path / "e").frame
    assert set(frame[frame["role"] == "test"]["height"]) == {2.0}


def test_tasks_are_numbered_from_zero_and_seeds_are_integers(tmp_path):
    with pytest.raises(ValueError, match=r"shard: \(2, 2\) is not possible; of n tasks, i is from 0 to n - 1"):
        run(tuned(), tmp_path / "e", shard=(2, 2))
    with pytest.raises(TypeError, match="float"):
        run(Experiment(Hill(), {"a": {"height": 1.0}}, seeds=[0.5]), tmp_path / "e")  # type: ignore[list-item]


def test_another_base_and_a_shard_in_training_are_refused(tmp_path):
    run(tuned(), tmp_path / "e")
    with pytest.raises(
        ConfigError, match=r"NAME: run 'e' has another config; differing are noise \(0.1 there, 0.2 here"
    ):
        run(tuned(Hill(0.2)), tmp_path / "e")
    with run_dir.locked(tmp_path / "e" / "shards" / "0-of-1"):
        for fresh in (False, True):
            with pytest.raises(ConfigError, match="another process is training"):
                run(tuned(), tmp_path / "e", fresh=fresh)
        (tmp_path / "e" / "shards" / "1-of-2").mkdir()
        run(tuned(), tmp_path / "e", shard=(1, 2))
    run(tuned(Hill(0.2)), tmp_path / "e", fresh=True)
    assert len(list(tmp_path.glob("e.before-*/blocks/*.json"))) > 0


def test_a_damaged_result_is_refused_and_trained_again_once_it_is_deleted(tmp_path):
    run(tuned(), tmp_path / "e")
    before = content(tmp_path / "e")
    file = next((tmp_path / "e" / "blocks").iterdir())
    file.write_text(file.read_text().replace('"seeds": [1', '"seeds": [2'))
    with pytest.raises(ConfigError, match=f"{file.name}: was damaged or edited, .* delete it, and the command"):
        run(tuned(), tmp_path / "e")
    file.unlink()
    run(tuned(), tmp_path / "e")
    assert content(tmp_path / "e") == before


def test_a_base_may_be_the_name_of_a_config():
    digits = csbp_jax.configs.load("digits")
    named: Any = Experiment("digits", {"": {}}, seeds=(0,))._system
    assert named.config == digits
