"""A sweep from its grid to its tables: data of the run alone, resumption, refusals, the best setting."""

import csv
import errno
import functools
import io
import json
import os
import re
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
from jax import monitoring

from csbp_jax import sweep
from csbp_jax.cli import main
from csbp_jax.config import ConfigError, flatten, replaced, to_json
from csbp_jax.reporting import plots_sweep
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import seals
from csbp_jax.sweep import driver, grid, tables, vectorised
from csbp_jax.training import health, run_dir
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.training.plugins import Own
from csbp_jax.training.run_dir import open_run
from tests.support import shared_programs
from tests.support.small_sweep import QUIET, SMALL, run, untrained


@pytest.fixture(scope="module", autouse=True)
def one_compilation_per_config():
    with shared_programs.patched():
        yield


@pytest.fixture
def nothing_trains(monkeypatch):
    """Results without training, where a test is not about them."""
    monkeypatch.setattr(driver, "train", untrained)


@pytest.fixture
def compilations():
    """The seconds of each compilation during a test."""
    seconds: list[float] = []

    def listen(event, duration_secs, **kwargs):
        if event.endswith("backend_compile_duration"):
            seconds.append(duration_secs)

    monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    monitoring.unregister_event_duration_listener(listen)


def read_csv(folder, name):
    with open(folder / "s" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def chunk_sizes(monkeypatch):
    """The number of members that train at once in each chunk, which are not trained."""
    sizes: list[int] = []

    def train_chunk(runs, members, show):
        sizes.append(len(members))
        return untrained(runs, members, show)

    monkeypatch.setattr(driver, "train", train_chunk)
    return sizes


def test_a_chunk_is_no_larger_than_the_largest_compile_group(tmp_path, chunk_sizes):
    devices = jax.device_count()
    small, large = range(devices + 1), range(2 * devices)
    together = [("drift", seed) for seed in small] + [("chaos", seed) for seed in large]
    run(tmp_path, {"chaos.term seed": together}, chunk=8 * devices)
    assert chunk_sizes == [2 * devices, 2 * devices]


def test_chunks_outlive_a_disk_that_is_full_for_a_while(tmp_path, monkeypatch):
    trained, failures = [], [OSError(errno.ENOSPC, "No space left on device")]
    write = seals.write_json

    def write_json(file, content):
        if failures and file.parent.name == "chunks":
            raise failures.pop()
        write(file, content)

    def train_chunk(*arguments):
        trained.append(1)
        return untrained(*arguments)

    monkeypatch.setattr(seals, "write_json", write_json)
    monkeypatch.setattr(driver, "train", train_chunk)
    run(tmp_path, {"seed": [2, 3]}, chunk=jax.device_count())
    run(tmp_path, {"seed": [2, 3]}, chunk=jax.device_count())
    assert not failures and len(trained) == -(-2 // jax.device_count())


def test_a_disk_that_stays_full_ends_the_sweep(tmp_path, monkeypatch, nothing_trains):
    write = seals.write_json

    def write_json(file, content):
        if file.parent.name == "chunks":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(seals, "write_json", write_json)
    shown = io.StringIO()
    console = Console(file=shown, width=400)
    with pytest.raises(OSError, match="No space left"):
        sweep.run(SMALL, {"seed": range(4 * jax.device_count())}, name="s", root=tmp_path, console=console)
    assert shown.getvalue().count("the disk is full; results wait in memory; make room") == 2


def test_a_member_sees_the_data_of_the_run_alone(tmp_path):
    """Its seed's order, its epochs' means, its evaluation: as ``train`` has them, to float32 over three steps."""
    config = replaced(replaced(SMALL, "epochs", 1), "seed", 3)
    alone = train(config, name="alone", root=tmp_path, console=QUIET())
    row = next(r for r in read_rows(tmp_path / "alone" / "metrics.jsonl") if r["kind"] == "epoch")
    run(tmp_path, {"seed": range(2, 10)}, config)
    member = next(m for m in read_csv(tmp_path, "epochs") if (m["seed"], m["epoch"]) == ("3", "1"))
    for name in ("task_loss", "chaos_loss", "validation_loss", "grad_norm"):
        assert float(member[name]) == pytest.approx(row[name], rel=2e-3), name
    assert float(member["z.fc1.membrane"]) == pytest.approx(row["z"]["fc1.membrane"])
    assert float(member["rates.fc1"]) == pytest.approx(row["rates"]["fc1"], rel=1e-3)
    member = read_csv(tmp_path, "members")[1]
    assert float(member["last_test_accuracy"]) == pytest.approx(alone["last"]["test_accuracy"], abs=0.01)


OTHERS = {
    "model.neuron.decay": 0.9,
    "model.neuron.threshold": 0.6,
    "model.neuron.surrogate_param": 3.0,
    "chaos.z0": (3.0,),
    "chaos.beta": 0.5,
    "chaos.target": 0.8,
    "chaos.scale": 2.0,
    "optimizer.lr": 0.2,
    "seed": 3,
}


@pytest.mark.parametrize(
    "fields", [[*OTHERS][:3], [*OTHERS][3:6], [*OTHERS][6:]], ids=["neuron", "chaos", "scale-lr-seed"]
)
def test_a_member_trains_with_its_own_values(tmp_path, monkeypatch, compilations, fields):
    """Each traced value as ``train`` has it, though no chunk of one member knows two; in one compilation."""
    in_chunks: list[int] = []

    def counted(runs, members, show):
        before = len(compilations)
        results = vectorised.train(runs, members, show)
        in_chunks.append(len(compilations) - before)
        return results

    base = replaced(SMALL, "epochs", 1)
    monkeypatch.setattr(driver, "train", counted)
    # Members that lack one of the other values, and the one that has them all.
    without = [[flatten(base)[name] if name == field else OTHERS[name] for name in fields] for field in fields]
    axes = {" ".join(fields): [*map(tuple, without), tuple(OTHERS[name] for name in fields)]}
    run(tmp_path, axes, base, chunk=1, data_parallel=8)
    assert in_chunks[1:] == [0] * len(fields)

    config = functools.reduce(lambda config, field: replaced(config, field, OTHERS[field]), fields, base)
    train(config, name="alone", root=tmp_path, console=QUIET())
    alone = next(row for row in read_rows(tmp_path / "alone" / "metrics.jsonl") if row["kind"] == "epoch")
    *others, member = read_csv(tmp_path, "epochs")
    for name in ("task_loss", "validation_loss", "grad_norm"):
        assert float(member[name]) == pytest.approx(alone[name], rel=1e-4), name
    for field in fields:
        (other,) = [m for m in others if [f for f in fields if m[f] != member[f]] == [field]]
        assert abs(float(other["grad_norm"]) / alone["grad_norm"] - 1) > 1e-3, f"{field} has no effect"


def test_a_diverging_member_leaves_the_others_bit_identical(tmp_path):
    run(tmp_path / "a", {"optimizer.lr": [0.05, 1e38], "seed": [0, 1]}, chunk=8)
    run(tmp_path / "b", {"optimizer.lr": [0.05, 0.06], "seed": [0, 1]}, chunk=8)
    diverging, calm = (read_csv(tmp_path / folder, "members") for folder in ("a", "b"))
    assert diverging[:2] == calm[:2]
    assert [row["diverged"] for row in diverging] == ["False", "False", "True", "True"]
    assert diverging[2]["last_test_accuracy"] == ""
    # Their later epochs have no finite step, and so no means; no layer is silent in them.
    measured = [row["member"] for row in read_csv(tmp_path / "a", "epochs") if row["task_loss"] and row["rates.fc1"]]
    assert [measured.count(str(member)) for member in range(4)] == [3, 3, 1, 1]


def test_a_member_whose_loss_explodes_is_marked_as_diverged(tmp_path, monkeypatch):
    axes = {"optimizer.lr": [0.05, 1e20], "seed": [0, 1]}
    for steps, diverged in ((4, "True"), (100, "False")):
        monkeypatch.setattr(health, "HIGH_STEPS_STOP", steps)
        run(tmp_path / str(steps), axes, chunk=8)
        rows = read_csv(tmp_path / str(steps), "members")
        assert [row["diverged"] for row in rows] == ["False", "False", diverged, diverged]
        assert all(float(row["bad_steps"]) == 0 for row in read_csv(tmp_path / str(steps), "epochs"))


def test_members_with_layers_that_never_fire_are_named_in_one_line(tmp_path, monkeypatch, nothing_trains):
    rates = [{"fc1": 0.1, "fc2": 0.2}, {"fc1": 0.0, "fc2": 0.2}, {"fc1": 0.2, "fc2": 1.0}, *[{"fc1": 0.0}] * 9]

    def trained(runs, configs, show):
        results = zip(untrained(runs, configs, show), configs, strict=True)
        return [{**result, "epochs": [{"rates": rates[config.seed]}]} for result, config in results]

    monkeypatch.setattr(driver, "train", trained)
    text = io.StringIO()
    sweep.run(SMALL, {"seed": range(12)}, name="s", root=tmp_path, console=Console(file=text, width=300))
    (line,) = [line for line in text.getvalue().splitlines() if "never" in line]
    assert line == (
        "11 of 12 members have a layer that never or always fires over an epoch (fc1, fc2); members 1, 2, 3, 4, 5, 6, "
        "7, 8, 9, 10 and 1 more; rates are in epochs.csv"
    )


def test_a_stopped_sweep_resumes(tmp_path, monkeypatch):
    axes, base = {"chaos.z0": [(0.0,), (5.0,)], "seed": range(8)}, replaced(SMALL, "epochs", 1)
    uninterrupted = run(tmp_path / "a", axes, base, chunk=8)
    trained: list[int] = []

    def stops(runs, members, show):
        if trained:
            raise KeyboardInterrupt
        return counts(runs, members, show)

    def counts(runs, members, show):
        trained.append(len(members))
        return vectorised.train(runs, members, show)

    monkeypatch.setattr(driver, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", axes, base, chunk=8)
    monkeypatch.setattr(driver, "train", counts)
    assert run(tmp_path / "b", axes, base, chunk=8) == uninterrupted
    assert trained == [8, 8]
    assert run(tmp_path / "b", axes, base, chunk=8) == uninterrupted and trained == [8, 8]


def test_the_tables_of_shards_are_those_of_one_process(tmp_path, monkeypatch):
    """To the byte, though a shard was killed, and another lost; each trains its own members and no other's."""
    axes, tables_of = {"chaos.z0": [(0.0,), (5.0,)], "seed": range(12)}, ("members.csv", "epochs.csv", "settings.csv")
    base = replaced(SMALL, "epochs", 1)
    run(tmp_path / "one", axes, base, chunk=8)
    trained: list[int] = []

    def counts(runs, members, show):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(members[0].seed)
        return vectorised.train(runs, members, show)

    monkeypatch.setattr(driver, "train", counts)
    shard = functools.partial(sweep.run_shard, base, axes, name="s", root=tmp_path / "many", chunk=8, console=QUIET())
    assert shard(grid.Shard(1, 2)).name == "1-of-2"
    with pytest.raises(KeyboardInterrupt):
        shard(grid.Shard(0, 2))
    assert len(trained) == 2
    trained.clear()
    shard(grid.Shard(1, 2))
    assert trained == []
    run(tmp_path / "many", axes, base, chunk=8)
    assert len(trained) == 1
    for name in tables_of:
        assert (tmp_path / "many" / "s" / name).read_bytes() == (tmp_path / "one" / "s" / name).read_bytes()


@pytest.mark.parametrize("name", ["my sweep", "../x", "a/b"])
def test_the_name_of_a_sweep_is_checked_before_its_shards_train(tmp_path, nothing_trains, name):
    run_shard = functools.partial(sweep.run_shard, SMALL, {"seed": [0, 1]}, grid.Shard(0, 2), console=QUIET())
    with pytest.raises(ConfigError, match=r"NAME: .* is not possible"):
        run_shard(name=name, root=tmp_path / "sweeps")
    assert not list(tmp_path.iterdir())


def test_a_fresh_shard_says_that_the_tables_need_no_fresh(tmp_path, nothing_trains):
    run_shard = functools.partial(sweep.run_shard, SMALL, {"seed": [0, 1]}, grid.Shard(0, 2), name="s", root=tmp_path)
    for fresh, options in {False: "--shard", True: "--shard and --fresh"}.items():
        text = io.StringIO()
        run_shard(fresh=fresh, console=QUIET(file=text))
        assert f"the same command without {options} writes the tables" in text.getvalue()


def test_a_shard_of_other_chunks_than_the_others_is_refused_before_it_trains(tmp_path, nothing_trains):
    devices = jax.device_count()
    axes = {"seed": range(4 * devices)}
    run_shard = functools.partial(sweep.run_shard, SMALL, axes, name="s", root=tmp_path, console=QUIET())
    folder = run_shard(grid.Shard(0, 2), chunk=devices)
    (folder / "chunks" / f"{2 * devices:06}.json").unlink()  # in training
    message = rf"0-of-2: {devices} of its members trained at once, which are no chunk here; .* the same --chunk"
    with pytest.raises(ConfigError, match=message):
        run_shard(grid.Shard(1, 2), chunk=2 * devices)
    assert [path.name for path in folder.parent.iterdir()] == ["0-of-2"]
    # On other devices, the same chunks.
    run_shard(grid.Shard(1, 2), chunk=devices, data_parallel=devices)


def test_shards_of_another_sweep_or_in_training_are_refused(tmp_path, nothing_trains):
    run_shard = functools.partial(sweep.run_shard, SMALL, name="s", root=tmp_path, console=QUIET())
    folder = run_shard({"seed": [0, 1]}, grid.Shard(0, 2))
    with pytest.raises(ConfigError, match=r"0-of-2: it belongs to another sweep .*grid.seed.*; move it out"):
        run(tmp_path, {"seed": [0, 2]})
    for fresh in (False, True):
        with run_dir.locked(folder), pytest.raises(ConfigError, match="0-of-2: another process is training"):
            run(tmp_path, {"seed": [0, 1]}, fresh=fresh)
    best = tmp_path / "s" / "best-seeds-2-3"
    best.mkdir()
    with run_dir.locked(best), pytest.raises(ConfigError, match="best-seeds-2-3: another process is training"):
        run(tmp_path, {"seed": [0, 1]}, fresh=True)
    assert folder.exists() and [path.name for path in tmp_path.iterdir()] == ["s"]
    run(tmp_path, {"seed": [0, 1]})
    run(tmp_path, {"seed": [0, 1]}, fresh=True)
    assert not folder.exists() and len(list(tmp_path.glob("s.before-*/shards/0-of-2/chunks/*.json"))) == 1


def test_a_shard_of_another_sweep_than_its_folder_is_not_trained(tmp_path, nothing_trains):
    run_shard = functools.partial(sweep.run_shard, SMALL, name="s", root=tmp_path, console=QUIET())
    begun = tmp_path / "s" / "shards" / "0-of-3"
    begun.mkdir(parents=True)  # by a process that has not written its config.json yet
    old = run_shard({"seed": [0, 1]}, grid.Shard(1, 2))
    with pytest.raises(ConfigError, match=r"1-of-2: it belongs to another sweep .*grid.seed.*; move it out"):
        run_shard({"seed": [0, 2]}, grid.Shard(0, 2))
    assert sorted(path.name for path in old.parent.iterdir()) == ["0-of-3", "1-of-2"]
    run_shard({"seed": [0, 2]}, grid.Shard(0, 2), fresh=True)  # the others will be
    shutil.rmtree(tmp_path / "s")
    run(tmp_path, {"seed": [0, 1]})
    for fresh in (False, True):
        with pytest.raises(ConfigError, match=r"^NAME: .*/s is another sweep; .*grid.seed.*\. Give another NAME"):
            run_shard({"seed": [0, 2]}, grid.Shard(0, 2), fresh=fresh)
    assert not old.parent.exists()


def test_shards_of_other_data_or_other_code_are_refused(tmp_path, nothing_trains):
    def own(brightness=0.0, code=b"one"):
        split = (np.full((320, 1, 8, 8, 1), brightness, np.float32), np.arange(320) % 10)
        return Own(data=lambda config, data_dir: {"train": split, "test": split}, file="own.py", code=code)

    base, axes = replaced(SMALL, "batch_size", 64), {"seed": [0, 1]}
    run_shard = functools.partial(sweep.run_shard, base, axes, name="s", root=tmp_path, console=QUIET())
    run_shard(grid.Shard(0, 2), own=own())
    others = {"data": own(brightness=1.0), "own.sha256": own(code=b"two")}
    for name, other in others.items():
        message = rf"0-of-2: it belongs to another sweep \({name} \(.*; move it out"
        with pytest.raises(ConfigError, match=message):
            run_shard(grid.Shard(1, 2), own=other)
        with pytest.raises(ConfigError, match=message):
            run(tmp_path, axes, base, own=other)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["shards"]
    run(tmp_path, axes, base, own=own())
    for name, other in others.items():
        with pytest.raises(ConfigError, match=rf"^NAME: .*/s is another sweep; differing are {name} \("):
            run_shard(grid.Shard(1, 2), own=other)


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "1/0", "a/b", "1/2/3"])
def test_an_impossible_shard_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--shard: {text!r} is not possible; write INDEX/COUNT")):
        grid.shard(text)


def stops(runs, members, show):
    """Ends after the chunk of the first seed."""
    if members[0].seed:
        raise KeyboardInterrupt
    return untrained(runs, members, show)


def test_it_does_not_resume_with_another_layout_unless_it_is_finished(tmp_path, monkeypatch):
    axes = {"seed": range(12)}
    monkeypatch.setattr(driver, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, axes, chunk=8)
    for layout, message in (
        ({"chunk": 16}, "members a device: 1 in finished members, 2 now"),
        ({"chunk": 8, "data_parallel": 2}, "members a device: 1 in finished members, 2 now"),
        ({"chunk": 4, "data_parallel": 2}, "devices a batch: 1 in finished members, 2 now"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message) + ".*--chunk, --data-parallel"):
            run(tmp_path, axes, **layout)
    monkeypatch.setattr(driver, "train", untrained)
    assert run(tmp_path, axes, chunk=8) == run(tmp_path, axes, chunk=16)


def test_it_does_not_resume_on_one_cpu_device_if_it_began_on_several(tmp_path, monkeypatch):
    """Convolutions round otherwise there; the chunks of older versions do not say how many there were."""
    axes = {"seed": range(12)}
    monkeypatch.setattr(driver, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, axes, chunk=8)
    monkeypatch.setattr(driver, "train", untrained)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="one device: False in finished members, True now"):
        run(tmp_path, axes, chunk=1)
    (file,) = (tmp_path / "s" / "chunks").glob("*.json")
    content = seals.parse(file.read_bytes())
    del content["how"]["one device"]
    file.write_text(json.dumps(content))
    assert run(tmp_path, axes, chunk=1)[0].members == 12


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"chaos.taps": [("fc1.membrane",), ("fc9.membrane",)]}, "chaos.taps: this network has no fc9.membrane"),
        ({"data.name": ["digits", "mnist"]}, "mnist"),
        ({"batch_size": [256, 4096]}, "batch_size: 4096 is not possible"),
    ],
)
def test_an_error_of_a_late_compile_group_is_raised_before_any_trains(tmp_path, axes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(tmp_path, axes, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_the_data_of_all_compile_groups_are_checked(tmp_path, nothing_trains):
    """A change of the second data set is detected, too."""
    rng = np.random.default_rng(0)

    def data(config, data_dir):
        x, y = rng.random((320, 1, 8, 8, 1), np.float32), np.arange(320) % 10
        split = (x if config.data.window == 1 else np.zeros_like(x), y)
        return {"train": split, "test": split}

    axes, config = {"data.window": [2, 1]}, replaced(SMALL, "batch_size", 64)
    run(tmp_path, axes, config, own=Own(data=data))
    with pytest.raises(ConfigError, match="its data have changed since it began"):
        run(tmp_path, axes, config, own=Own(data=data))


def test_the_data_of_one_compile_group_are_loaded_once(tmp_path, nothing_trains):
    """A function of the user's own need not return the same data twice."""
    loaded: list[str] = []

    def data(config, data_dir):
        loaded.append(config.data.name)
        split = (np.zeros((320, 1, 8, 8, 1), np.float32), np.arange(320) % 10)
        return {"train": split, "test": split}

    run(tmp_path, {"seed": [0, 1]}, replaced(SMALL, "batch_size", 64), own=Own(data=data))
    assert loaded == ["digits"]


@pytest.fixture
def survivor():
    """A signal that nothing handles must not end the tests."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_stop_keeps_finished_members_and_the_resumed_sweep_has_the_same_tables(tmp_path, capsys, survivor):
    line = ["sweep", "digits", "--grid", "chaos.z0=0,5 seed=0:12", "--name", "s", "--epochs", "8", "--batch-size", "64"]
    line += ["--model.name", "dense", "--model.features", "8", "--model.time-steps", "2"]
    line += ["--chaos.taps", "fc1.membrane", "--sweeps"]

    def command(folder, number=None, finished=0):
        def send_signal():
            while len(list((tmp_path / folder / "s" / "chunks").glob("*.json"))) < finished and not over.wait(0.005):
                pass
            os.kill(os.getpid(), number)

        over = threading.Event()
        thread = threading.Thread(target=send_signal)
        if number is not None:
            thread.start()
        code = main.main([*line, str(tmp_path / folder)])
        over.set()
        if number is not None:
            thread.join()
        return code, len(list((tmp_path / folder / "s" / "chunks").glob("*.json")))

    assert command("uninterrupted") == (0, 3)
    assert command("stopped", signal.SIGTERM, 1) == (42, 1)
    assert capsys.readouterr().err == "csbp_jax: stopped; the same command resumes\n"
    assert not (tmp_path / "stopped" / "s" / "members.csv").exists()
    assert command("stopped", signal.SIGINT, 2) == (130, 2)
    assert command("stopped") == (0, 3)
    for name in ("members.csv", "epochs.csv", "settings.csv"):
        assert (tmp_path / "stopped" / "s" / name).read_bytes() == (
            tmp_path / "uninterrupted" / "s" / name
        ).read_bytes()


def test_tables_figures_and_the_best(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(driver, "plots_sweep", plots_sweep)
        settings = run(tmp_path, {"optimizer.lr": [0.0, 0.05], "seed": [0, 1]})
    folder = tmp_path / "s"
    for name in ("accuracy.png", "accuracy.pdf"):
        assert (folder / "figures" / name).stat().st_size > 5000
    members, rows = read_csv(tmp_path, "members"), read_csv(tmp_path, "settings")
    assert [m["optimizer.lr"] for m in members] == ["0.0", "0.0", "0.05", "0.05"]
    mean = np.mean([float(m["last_test_accuracy"]) for m in members[2:]])
    assert float(rows[1]["last_test_accuracy_mean"]) == pytest.approx(mean)
    assert len(settings) == 2 and settings[1].members == 2

    better, control = sweep.best(folder, 2, console=QUIET())
    assert better.point == {"optimizer.lr": 0.05, "chaos.z0": 10.0} == control.point | {"chaos.z0": 10.0}
    assert control.point["chaos.z0"] == 0 and better.control == "optimizer.lr 0.05, chaos.z0 0.0"
    with open(folder / "best-seeds-2-3-with-control" / "members.csv") as file:
        accuracies = {(m["chaos.z0"], m["seed"]): float(m["last_test_accuracy"]) for m in csv.DictReader(file)}
    assert list(accuracies) == [("10.0", "2"), ("10.0", "3"), ("0.0", "2"), ("0.0", "3")]
    paired = better.differences["last_test_accuracy"]
    first, second, of_first, of_second = accuracies.values()
    assert paired.pairs == 2 and paired.difference.mean == pytest.approx((first + second - of_first - of_second) / 2)
    row = tables.latex(better)
    assert row.startswith(r"\texttt{optimizer.lr} = 0.05, \texttt{chaos.z0} = 10.0 & 2 & ") and row.count("[") == 2
    assert tables.latex_difference(better).startswith("difference, paired & 2 & $")
    # Another number of seeds is another folder beside it.
    monkeypatch.setattr(driver, "train", untrained)
    assert sweep.best(folder, 3, console=QUIET())[0].members == 3


def test_the_best_has_its_control_of_all_taps_and_none_without_chaos(tmp_path, nothing_trains):
    two = replaced(replaced(SMALL, "chaos.taps", ("fc1.membrane", "fc2.membrane")), "chaos.z0", (3.0,))
    run(tmp_path, {"chaos.z0.fc2.membrane": [5.0], "optimizer.lr": [0.1], "seed": [0]}, two)
    selected, control = sweep.best(tmp_path / "s", 2, console=QUIET())
    assert selected.point == {"optimizer.lr": 0.1, "chaos.z0": (3.0, 5.0)}
    assert control.point == {"optimizer.lr": 0.1, "chaos.z0": (0.0, 0.0)} and selected.control is not None

    text = io.StringIO()
    run(tmp_path / "plain", {"optimizer.lr": [0.1], "seed": [0]}, replaced(SMALL, "chaos.z0", (0.0,)))
    (plain,) = sweep.best(tmp_path / "plain" / "s", 2, console=QUIET(file=text))
    assert plain.control is None and (tmp_path / "plain" / "s" / "best-seeds-1-2").exists()
    assert "the best setting trains without a chaos term (chaos.z0 0), so it has no control" in text.getvalue()


def store_validation_accuracies(folder, accuracies):
    (file,) = (folder / "chunks").glob("*.json")
    content = seals.parse(file.read_bytes())
    for result, accuracy in zip(content["results"], accuracies, strict=True):
        result["chosen"] = {**result["chosen"], "validation_accuracy": accuracy}
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("lrs", "control", "said"),
    [
        (
            [0.1, 0.2],
            {"optimizer.lr": 0.1},
            "the best of 2 settings with the term, against the best of 2 without it\n",
        ),
        ([0.2], {"optimizer.lr": 0.2}, "the best of 1 settings with the term, against the best of 1 without it\n"),
        (None, {}, "the best of 1 settings with the term, against the best of 1 without it\n"),
    ],
)
def test_the_control_of_the_best_is_the_best_without_a_chaos_term(tmp_path, nothing_trains, lrs, control, said):
    axes = {"chaos.z0": [0.0, 3.0], "seed": [0]}
    run(tmp_path, {"optimizer.lr": lrs} | axes if lrs else axes)
    count = 2 * len(lrs or [0])
    # The first lr is the better one without the term, the last with it, which is the best of all.
    store_validation_accuracies(tmp_path / "s", [0.8, 0.6, 0.7, 0.9] if count == 4 else [0.8, 0.9])
    text = io.StringIO()
    selected, plain = sweep.best(tmp_path / "s", 2, console=QUIET(file=text))
    fields = {"optimizer.lr": lrs[-1]} if lrs else {}
    assert selected.point == fields | {"chaos.z0": 3.0} and plain.point == control | {"chaos.z0": 0.0}
    assert said in text.getvalue() and selected.differences["last_test_accuracy"].pairs == 2
    folder = tmp_path / "s" / "best-seeds-1-2-with-control"
    assert main.main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    assert sweep.best(tmp_path / "s", 2, console=QUIET())[1].point == plain.point  # resumed


def test_settings_without_a_term_that_differ_in_its_fields_alone_are_one_try(tmp_path, nothing_trains):
    run(tmp_path, {"chaos.beta": [0.9, 0.95], "chaos.z0": [0.0, 3.0], "seed": [0]})
    store_validation_accuracies(tmp_path / "s", [0.8, 0.9, 0.8, 0.9])
    text = io.StringIO()
    sweep.best(tmp_path / "s", 2, console=QUIET(file=text))
    assert (
        "the best of 2 settings with the term, against the best of 1 without it; a fair comparison gives both as many "
        "tries\n"
    ) in text.getvalue()


def test_the_best_trains_in_chunks_of_a_given_size(tmp_path, chunk_sizes):
    devices = jax.device_count()
    run(tmp_path, {"chaos.z0": [0.0, 3.0], "seed": [0]})
    chunk_sizes.clear()
    sweep.best(tmp_path / "s", 4, chunk=2, data_parallel=devices, console=QUIET())
    assert chunk_sizes == [2, 2]


def test_a_control_whose_settings_all_diverged_is_said_to_be_untuned(tmp_path, monkeypatch):
    def trained(runs, configs, show):
        results = zip(untrained(runs, configs, show), configs, strict=True)
        return [{**result, "diverged": not any(config.chaos.z0)} for result, config in results]

    monkeypatch.setattr(driver, "train", trained)
    run(tmp_path, {"chaos.z0": [0.0, 3.0], "seed": [0]})
    text = io.StringIO()
    sweep.best(tmp_path / "s", 2, console=QUIET(file=text))
    assert "no setting without a chaos term, or in each of them a member diverged" in text.getvalue()


def test_a_control_is_named_by_its_fields(tmp_path, nothing_trains):
    axes = {"chaos.term": ["chaos", "drift"], "chaos.z0": [(3.0,)], "seed": [0, 1]}
    with pytest.raises(ConfigError, match=r"--control: chaos.z0=7.0: the grid has no such setting"):
        run(tmp_path, axes, comparison=sweep.Comparison({"chaos.z0": (7.0,)}))
    assert not list(tmp_path.iterdir())
    chaos, drift = run(tmp_path, axes, comparison=sweep.Comparison({"chaos.term": "drift"}, 0.5))
    assert chaos.control == "chaos.term drift, chaos.z0 3.0" and drift.control is None
    paired = chaos.differences["last_test_accuracy"]
    assert (paired.pairs, paired.difference, paired.verdict) == (2, (0, 0, 0), "not decided")
    assert tables.latex_difference(chaos) == r"difference, paired & 2 & $+0.00$ (all equal) & $+0.00$ (all equal) \\"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "drift"], "--control: 'drift' is not possible; write FIELD=VALUE"),
        (["--control", "chaos.z0=0,3"], "--control: 'chaos.z0=0,3' is not possible; write FIELD=VALUE"),
        (["--control", "chaos.zo=0"], "--control: there is no field chaos.zo; perhaps you meant chaos.z0"),
        (["--control", "seed=0"], "--control: 'seed=0' is not possible, members are paired by their seeds"),
        (["--control", "chaos.z0=0 chaos.z0=1"], "--control: 'chaos.z0=1' is not possible, it is given twice"),
        (["--control", "chaos.z0=0"], "--control: chaos.z0=0.0: the grid has no such setting beside another"),
        (["--margin", "101"], "--margin: 101.0 is not possible"),
    ],
)
def test_impossible_controls_and_margins_are_refused_before_training(tmp_path, capsys, words, message):
    line = ["sweep", "digits", "--grid", "chaos.z0=3,10 seed=0:2", "--sweeps", str(tmp_path), *words]
    assert main.main(line) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_best_of_tuples_where_all_fresh_seeds_diverge(tmp_path, monkeypatch, capsys, nothing_trains):
    run(tmp_path, {"model.features": [(8, 4), (6,)], "seed": [0]})
    for number in (0, 1):
        file = tmp_path / "s" / "chunks" / f"{number:06}.json"
        content = seals.parse(file.read_bytes())
        content["results"][0]["chosen"]["validation_accuracy"] = float(number)
        file.write_text(json.dumps(content))
    diverged = {"diverged": True}
    monkeypatch.setattr(driver, "train", lambda *a: [{**result, **diverged} for result in untrained(*a)])
    assert main.main(["best", str(tmp_path / "s"), "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "setting & n & last epoch & chosen epoch \\\\",
        r"\texttt{model.features} = 6, \texttt{chaos.z0} = 10.0 & 0 of 3 & diverged & diverged \\",
        r"\texttt{model.features} = 6, \texttt{chaos.z0} = 0.0 & 0 of 3 & diverged & diverged \\",
    ]
    assert any(re.search(r"6 +│ 0.0 +│ +diverged │ +diverged │ +0 of 3", line) for line in lines)


def test_another_grid_under_the_same_name_is_refused(tmp_path, nothing_trains):
    run(tmp_path, {"seed": [0]})
    with pytest.raises(ConfigError, match=r"NAME: run 's' has another config; differing are grid"):
        run(tmp_path, {"seed": [1]})


def test_the_best_of_a_folder_without_a_sweep_is_refused(tmp_path):
    with open_run(tmp_path, to_json(SMALL), "r", False, QUIET()):
        pass
    with pytest.raises(ConfigError, match="no finished sweep"):
        sweep.best(tmp_path / "r")
    with pytest.raises(ConfigError, match="no: there is no sweep; name its folder, such as sweeps/NAME"):
        sweep.best(tmp_path / "no")


def test_a_number_that_does_not_divide_the_devices_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--data-parallel: 3 does not divide the 8 devices"):
        run(tmp_path, {"seed": [0]}, data_parallel=3)


def test_a_batch_is_divided_over_the_devices_that_share_it_not_over_all(tmp_path, nothing_trains):
    run(tmp_path, {"seed": [0]}, replaced(SMALL, "batch_size", 36), data_parallel=4)
    with pytest.raises(ConfigError, match="batch_size: 36 is not possible with devices of a batch 8"):
        run(tmp_path / "all", {"seed": [0]}, replaced(SMALL, "batch_size", 36), data_parallel=8)
    assert not (tmp_path / "all").exists()
