"""The training loop: files of a run, determinism, resumption after a kill, divergence, refusals."""

import collections
import contextlib
import dataclasses
import gc
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import chex
import jax
import numpy as np
import pytest

from csbp_jax import chaos, configs, data
from csbp_jax.config import CheckpointError, ConfigError, Diverged, replaced, to_json
from csbp_jax.reporting import plots_training
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import hardware, multihost, profiling, sharding
from csbp_jax.training import metrics_log, run_json
from csbp_jax.training.build import resolve
from csbp_jax.training.checkpoint import layout, manifest
from csbp_jax.training.compiled import compile_run
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.training.plugins import Own
from csbp_jax.training.run_dir import open_run
from tests.support.inverted import Inverted
from tests.support.small_run import SMALL, run

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

ROOT = pathlib.Path(__file__).parents[2]


DRAW = plots_training.draw


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """``(folder, result, text)`` of a run that draws its figures."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots_training, "draw", DRAW)
        result, text = run(SMALL, root, name="one")
    return root / "one", result, text


def test_a_run_leaves_its_config_metrics_checkpoints_and_figures(finished):
    folder, result, text = finished
    assert json.loads((folder / "config.json").read_text())["config"]["chaos"]["taps"] == ["conv1.membrane"]
    assert {"jax", "flax"} <= set(json.loads((folder / "config.json").read_text())["versions"])
    assert {path.name for path in (folder / "figures").iterdir()} == {
        *("training.png", "training.pdf", "rates.png", "rates.pdf")
    }
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["2", "4"]
    assert run_json.read_result(folder) == result
    words = "epoch 2/2", "ex/s", "next  ", "control  ", "last epoch", "validation-chosen", str(folder)
    for word in words:
        assert word in text


@pytest.mark.full
def test_no_command_is_proposed_for_a_run_whose_parts_no_command_has(tmp_path):
    _, text = run(replaced(SMALL, "epochs", 1), tmp_path, name="own", own=Own(term=lambda config: chaos.term))
    assert "last epoch" in text and "next  " not in text and "control  " not in text


def test_what_is_no_config_and_the_commands_name_of_an_argument_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="config is 3, but must be a Config or the name of a preset"):
        run(3, tmp_path)
    with pytest.raises(ConfigError, match=r"^runs: .* the directory of all runs is root"):
        run(SMALL, tmp_path, runs="elsewhere")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(finished, tmp_path):
    """The folder of the finished run as if it had been stopped just before its end."""
    folder = shutil.copytree(finished[0], tmp_path / "stopped")
    (folder / "result.json").unlink()
    return folder


def test_a_run_names_its_devices_and_those_on_which_it_began_if_they_were_others(finished, stopped):
    folder, _, text = finished
    here = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    assert f"one: a new run, 4 steps in all, on {here}\n" in text and "began on" not in text
    start, *others = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    del start["sha256"]
    rows = [start | {"device": "TPU v5 lite", "devices": 4}, *others]
    (stopped / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, text = run(SMALL, stopped.parent, name="stopped")
    assert f"resumed after step 4, 4 steps in all, on {here}\n" in text and "stopped: began on 4 x TPU v5 lite;" in text


@pytest.mark.full
def test_figures_of_a_deep_network_have_room_also_without_rows_of_steps(finished, tmp_path):
    rows, names = read_rows(finished[0] / "metrics.jsonl"), [f"layer{i}.membrane" for i in range(40)]
    deep = {"rates": dict.fromkeys(names, 0.1), "z": {name: float(i // 39) for i, name in enumerate(names)}}
    rows = [row | deep if "rates" in row else row for row in rows]
    for name, seen in (("rates", rows), ("training", [row for row in rows if row["kind"] != "train"])):
        DRAW(tmp_path, seen)  # warnings, such as of a layout that does not fit, are errors
        figure = tmp_path / "figures" / f"{name}.png"
        assert figure.stat().st_size > 1000
        shutil.rmtree(figure.parent)


def test_metrics_hold_every_epoch_and_the_share_of_the_chaos_term(finished):
    folder, result, text = finished
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "epoch"] == [2, 4]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    assert rows[0]["gradient_norms"] == result["gradient_norms"]
    assert [row["z"]["conv1.membrane"] for row in rows if row["kind"] == "train"] == pytest.approx([10, 10, 9, 9])
    assert text.count("z is still 90% of z0 in the last epoch; chaos.beta 0.04 would leave 4%") == 1
    assert all(0 <= rate <= 1 for rate in rows[-1]["rates"].values())


def test_the_chosen_epoch_has_the_best_validation(finished):
    folder, result, _ = finished
    epochs = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "epoch"]
    best = max(epochs, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert result["chosen"]["epoch"] == best["epoch"]
    assert result["chosen"]["validation_accuracy"] == best["validation_accuracy"]
    assert result["last"]["epoch"] == 2 and result["last"]["test_count"] == 359


@pytest.mark.full
def test_the_chaos_term_of_the_digits_preset_is_not_negligible():
    """Its gradient has at least a tenth of the task gradient's norm at step 0."""
    config = configs.load("digits")
    run = compile_run(config, data.load(config)["train"], 39, mesh=sharding.data_parallel(1))
    norms = run.gradient_norms(run.init(jax.random.key(config.seed)), run.shard_batch(next(run.batches(config.seed))))
    assert norms["chaos"] > 0.1 * norms["task"]


@pytest.mark.slow
@pytest.mark.skipif(hardware.quick_options() is None, reason="the compiler's level is the same for all programs")
@pytest.mark.parametrize("name", ["digits", "digits_spikformer"])
def test_the_initial_state_has_the_bits_of_the_compilers_default(name):
    config = configs.load(name)
    splits = data.load(config)
    run = compile_run(resolve(config, splits), splits["train"], 39, mesh=sharding.data_parallel(1))
    key = jax.random.key(1)
    chex.assert_trees_all_equal(run.init(key), jax.jit(run.pure_init)(key))


def test_another_seed_gives_other_bits(finished, tmp_path):
    other, _ = run(dataclasses.replace(SMALL, seed=1), tmp_path)
    assert other["params_sha256"] != finished[1]["params_sha256"]


def test_evaluation_does_not_augment_a_source_that_draws_numbers(monkeypatch):
    splits = data.load(SMALL)
    run = compile_run(resolve(SMALL, splits), splits["train"], 2, mesh=sharding.data_parallel(1))
    sums = lambda state, key, batch: {"count": 1, "correct": 0, "loss": batch["x"].sum()}  # noqa: E731
    monkeypatch.setitem(vars(run), "_eval_step", sums)
    state: Any = None
    assert run.evaluate(state, Inverted(splits["test"])) == run.evaluate(state, splits["test"])


def test_processes_that_load_data_are_started_once_for_the_training(tmp_path, monkeypatch):
    readers: list[data.Readers] = []
    train_batches = data.train_batches

    def recorded(*arguments, **options):
        readers.append(options.pop("readers"))
        return train_batches(*arguments, **options)

    monkeypatch.setattr(data, "train_batches", recorded)
    run(replaced(SMALL, "data.workers", 2), tmp_path)
    assert readers == [data.Readers(), data.Readers(workers=2)]


@pytest.fixture
def passed_on(monkeypatch):
    """The errors that a process tells the others."""
    messages: list[str] = []

    def all_succeed(function):
        try:
            return function()
        except ConfigError as error:
            messages.append(str(error))
            raise

    monkeypatch.setattr(multihost, "all_succeed", all_succeed)
    return messages


def test_all_processes_learn_of_a_host_without_gcsfs(tmp_path, monkeypatch, passed_on):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = "gs://bucket/runs: needs the package gcsfs; pip install 'csbp_jax[gcs]'"
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        run(SMALL, tmp_path, checkpoints="gs://bucket/runs")
    assert passed_on == [line] and not list(tmp_path.iterdir())


def test_all_processes_learn_of_a_first_batch_that_one_of_them_cannot_read(tmp_path, monkeypatch, passed_on):
    def fails(*_, **__):
        raise ConfigError("record 3 cannot be read")

    monkeypatch.setattr(data, "train_batches", fails)
    with pytest.raises(ConfigError, match="record 3 cannot be read"):
        run(SMALL, tmp_path)
    assert passed_on == ["record 3 cannot be read"]


def test_a_finished_run_is_not_trained_again_and_fresh_renames_it_and_gives_the_same_bits(finished, tmp_path):
    _, result, _ = finished
    folder = shutil.copytree(finished[0], tmp_path / "one")
    before = (folder / "metrics.jsonl").read_bytes()
    again, text = run(SMALL, tmp_path, name="one")
    assert again == result and "is finished" in text
    assert (folder / "metrics.jsonl").read_bytes() == before
    fresh, text = run(SMALL, tmp_path, name="one", fresh=True)
    assert fresh["params_sha256"] == result["params_sha256"] and "the old run is kept as" in text
    (old,) = tmp_path.glob("one.before-*")
    assert (old / "metrics.jsonl").read_bytes() == before


RISING = dataclasses.replace(
    SMALL,
    epochs=4,
    optimizer=dataclasses.replace(
        SMALL.optimizer, name="sgd", lr=0.01, schedule="step", step_epochs=1, step_factor=1e38
    ),
)
"""From the second epoch on its steps are too large."""


def test_a_run_that_diverges_stops_after_three_steps_and_names_them(tmp_path):
    config = replaced(SMALL, "optimizer.lr", 1e38)
    with pytest.raises(Diverged, match=r"not finite at steps \d+ to \d+; no checkpoint yet"):
        run(config, tmp_path, name="wild")
    bad = [row for row in read_rows(tmp_path / "wild" / "metrics.jsonl") if row["kind"] == "bad"]
    assert [row["bad_steps"] for row in bad[-3:]] == [1, 2, 3]


@pytest.mark.full
def test_a_run_that_diverges_later_names_its_last_checkpoint(tmp_path):
    with pytest.raises(Diverged, match=r"the last good checkpoint is of step 2\."):
        run(RISING, tmp_path, name="later")
    folder = tmp_path / "later" / "checkpoints"
    assert list(layout.complete(folder)) == [2] and manifest.verify(folder / "2") is None


def test_no_row_at_all_is_a_missing_row_in_the_first_epoch_too(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match=r"metrics.jsonl: rows up to step 1 are missing"):
        metrics_log.rewind(tmp_path / "metrics.jsonl", step=1, epochs=0, steps_per_epoch=2)


def test_a_damaged_run_goes_on_from_what_is_intact(finished, stopped):
    log = (stopped / "metrics.jsonl").read_bytes()
    lines = [line for line in log.splitlines(keepends=True) if b'"step": 2,' not in line]
    (stopped / "metrics.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(ConfigError, match=r"metrics.jsonl: rows up to step 4 are missing"):
        run(SMALL, stopped.parent, name="stopped")
    (stopped / "metrics.jsonl").write_bytes(log)
    (stopped / "checkpoints" / "4" / "_METADATA").unlink()
    result, text = run(SMALL, stopped.parent, name="stopped")
    assert "checkpoints/4: _METADATA is missing; renamed to 4.damaged-" in text and "resumed after step 2" in text
    assert result["params_sha256"] == finished[1]["params_sha256"]
    (stopped / "result.json").unlink()
    for step in ("2", "4"):
        (stopped / "checkpoints" / step / "_METADATA").unlink()
    for _ in range(2):  # the second try fails with the same message, and does not start from scratch
        with pytest.raises(CheckpointError, match=r"no checkpoint is intact \(4: _METADATA is missing; 2: _METADATA"):
            run(SMALL, stopped.parent, name="stopped")


def test_two_processes_do_not_train_the_same_run(tmp_path):
    with open_run(tmp_path, to_json(SMALL), "shared", False, Console(file=io.StringIO())):
        for fresh in (False, True):
            with pytest.raises(ConfigError, match=r"shared: another process is training this run"):
                run(SMALL, tmp_path, name="shared", fresh=fresh)


@pytest.mark.parametrize("scheme", ["gs", "GS"])
def test_an_address_in_place_of_a_directory_is_refused(tmp_path, monkeypatch, scheme):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{scheme}:/bucket/runs: not a directory"):
        run(SMALL, f"{scheme}://bucket/runs")
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_within_an_epoch_resumes_to_the_same_bits_without_doubled_rows(finished, stopped):
    """The files as a kill in step 4 leaves them: rows after the checkpoint of step 2, the last one cut short."""
    log = stopped / "metrics.jsonl"
    rows, lines = read_rows(log), log.read_bytes().splitlines(keepends=True)
    shutil.rmtree(stopped / "checkpoints" / "4")
    cut = next(n for n, row in enumerate(rows) if row["step"] == 4)
    log.write_bytes(b"".join(lines[:cut]) + lines[cut][:20])
    result, text = run(SMALL, stopped.parent, name="stopped")
    assert "resumed after step 2" in text and rows[cut - 1]["step"] == 3
    assert {**result, "seconds": 0} == {**finished[1], "seconds": 0}
    assert_same_rows(read_rows(log), rows)


def test_a_resumed_run_holds_its_state_once(stopped, monkeypatch):
    """The state that it began with is freed when that of the checkpoint is there."""
    counts: list[tuple[int, int, int]] = []

    def shapes(leaves):
        return collections.Counter(leaf.shape for leaf in leaves)

    @contextlib.contextmanager
    def counted(train_step, *_):
        def step_once(state, batch):
            if not counts:
                gc.collect()
                largest = max(jax.tree.leaves(state.params), key=lambda leaf: leaf.size)
                held, alive = (shapes(leaves)[largest.shape] for leaves in (jax.tree.leaves(state), jax.live_arrays()))
                counts.append((int(state.step) + 1, held, alive - before[largest.shape]))
            return train_step(state, batch)

        yield step_once

    monkeypatch.setattr(profiling, "profiled", counted)
    shutil.rmtree(stopped / "checkpoints" / "4")
    # Leaves what other tests have made out of the collection in the run, which would take seconds to walk it all.
    gc.freeze()
    before = shapes(jax.live_arrays())
    run(SMALL, stopped.parent, name="stopped")
    ((step, held, alive),) = counts
    assert (step, alive) == (3, held + 1)  # and the weights of the chosen epoch


def assert_same_rows(rows, expected):
    assert [(row["kind"], row["step"]) for row in rows] == [(row["kind"], row["step"]) for row in expected]
    np.testing.assert_array_equal([r.get("task_loss") for r in rows], [r.get("task_loss") for r in expected])


def command(runs):
    return [
        *(sys.executable, "-m", "csbp_jax", "train", "digits", "--runs", str(runs), "--name", "r", "--epochs", "6"),
        *("--batch-size", "64", "--checkpoint-every", "1", "--model.features", "4", "4", "--model.time-steps", "2"),
    ]


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits_without_doubled_rows(tmp_path):
    def results(runs):
        subprocess.run(command(runs), cwd=ROOT, check=True, capture_output=True, timeout=300)
        rows = read_rows(runs / "r" / "metrics.jsonl")
        return json.loads((runs / "r" / "result.json").read_text()), rows

    expected, expected_rows = results(tmp_path / "uninterrupted")
    process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "r" / "checkpoints" / "38").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "r" / "result.json").exists()
    resumed, rows = results(tmp_path / "killed")
    assert resumed["params_sha256"] == expected["params_sha256"]
    assert resumed["chosen"] == expected["chosen"] and resumed["last"] == expected["last"]
    assert_same_rows(rows, expected_rows)
