"""How many runs train at once: as many as fit the memory of a device, chosen once for an experiment."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from csbp_jax import configs, data, learner
from csbp_jax.config import ConfigError, Model, replaced
from csbp_jax.experiment import Experiment, Training, memory, system
from csbp_jax.reporting.terminal import Console
from csbp_jax.training import build
from csbp_jax.training.compiled_group import SHARDS_NO_CONVOLUTIONS, CompiledGroup, member_mesh
from tests.support.small_runs import DIGITS, SMALL

DENSE = dataclasses.replace(SMALL, epochs=1, patience=0)
CONV = dataclasses.replace(
    DENSE,
    model=dataclasses.replace(DIGITS.model, features=(2, 2), time_steps=2),
    chaos=dataclasses.replace(DENSE.chaos, taps=("conv1.membrane",)),
)


@functools.cache
def compiled(config):
    """The functions of a config's members, and the resolved config."""
    training = Training(config)
    training.prepare([{}], 0)
    (group,) = training._first
    return training._first_members(group)


@functools.cache
def needed(config, count, seeds=2):
    members, resolved = compiled(config)
    return memory.needed(members, resolved, count, seeds)


OF_NEW_JAX = pytest.mark.skipif(SHARDS_NO_CONVOLUTIONS, reason="JAX before 0.8 trains one such member a device")


@pytest.mark.parametrize(
    "config", [DENSE, pytest.param(CONV, marks=[OF_NEW_JAX, pytest.mark.full])], ids=["scanned", "step by step"]
)
def test_what_members_need_is_counted_in_their_compiled_programs(config):
    eight = needed(config, 8)  # one on each of eight devices
    members, resolved = compiled(config)
    states, _ = memory.state_shapes(members, resolved, 8)
    state, weights = (memory._bytes(tree) // 8 for tree in (states, learner.weights_of(states)))
    held = memory._bytes((members.resident.x, members.resident.blocks)) if members.resident else 0
    assert eight > held + state + 2 * weights, "with its gradient, and the weights of the chosen epoch"


@pytest.mark.full
@pytest.mark.parametrize("config", [DENSE, pytest.param(CONV, marks=OF_NEW_JAX)], ids=["scanned", "step by step"])
def test_two_members_a_device_need_more_and_with_patience_their_states_twice(config):
    members, resolved = compiled(config)
    states, _ = memory.state_shapes(members, resolved, 8)
    eight, state, weights = needed(config, 8), *(memory._bytes(t) // 8 for t in (states, learner.weights_of(states)))
    assert state + weights < needed(config, 16) - eight <= eight
    assert needed(replaced(config, "patience", 1), 8) == needed(config, 8) + memory._bytes(states) // 8


@pytest.mark.full
@pytest.mark.parametrize("config", [DENSE, pytest.param(CONV, marks=pytest.mark.full)], ids=["dense", "convolutional"])
def test_members_of_a_lone_accelerator_are_counted_without_a_mesh(config):
    splits = data.load(config)
    config = build.resolve(config, splits)
    members = CompiledGroup(config, splits, member_mesh(1, jax.devices()[:1]), platform="gpu")
    assert not members.sharded and members.resident
    states, _ = memory.state_shapes(members, config, 2)
    two = memory.needed(members, config, 2, 1)
    assert two is not None and two > memory._bytes((members.resident.x, members.resident.blocks, states))


def test_sequences_are_counted_by_the_longest(tmp_path):
    for longest in (3, 12):
        for number in range(40):
            folder = tmp_path / str(longest) / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{number}.npy", np.zeros((longest if number > 20 else 2, 3)))
        model = Model(name="recurrent", input_shape=(), classes=0, features=(4,), time_steps=12)
        base = replaced(replaced(configs.load("folder"), "model", model), "data.dir", str(tmp_path / str(longest)))
        base = base.replace(**{"batch_size": 8, "eval_batch_size": 8, "chaos.taps": "rec1.membrane", "data.buckets": 2})
        members, resolved = compiled(base)
        (_, (_, _, batch), _), (_, (_, _, evaluated), _) = memory.programs(
            members, *memory.state_shapes(members, resolved, 8), seeds=2
        )
        assert batch["x"].shape[:3] == (2, 8, longest) and evaluated["x"].shape[:2] == (8, longest)


@pytest.mark.parametrize(
    ("limit", "start", "largest", "chunk", "members"),
    [
        (3200, 32, 64, 32, 32),
        (3199, 32, 64, 16, 16),
        (3199, 32, 40, 32, 20),  # two chunks of 20 fit
        (900, 32, 40, 8, 8),
        (500, 32, 5, 32, 5),
        (400, 32, 5, 4, 3),  # chunks of 32, 16 and 8 hold all five
        (99, 32, 64, 1, 1),
        (700, 4, 64, 4, 4),
    ],
)
def test_a_chunk_is_halved_until_it_fits(limit, start, largest, chunk, members):
    tried = []

    def needed(count):
        tried.append(count)
        return 100 * count

    def size(chunk):
        return -(-largest // -(-largest // chunk))

    fit = memory.fit(start, 32, 1, size, needed, limit)
    assert (fit.chunk, fit.members, fit.fits) == (chunk, members, limit >= 100)
    assert len(set(tried)) == len(tried), "nothing is compiled twice"
    assert bool(fit.line()) == (chunk < 32)


def test_a_chunk_that_does_not_compile_is_halved():
    fit = memory.fit(32, 32, 1, lambda chunk: chunk, lambda count: None if count > 2 else count, 9)
    assert fit == memory.Fit(2, 2, 32, 2, 9)


@pytest.fixture
def counted(monkeypatch):
    """Of how many members the bytes were counted."""
    counts = []

    def needed(members, config, count, seeds):
        counts.append(count)
        return EACH * count

    monkeypatch.setattr(memory, "needed", needed)
    return counts


@pytest.fixture
def run(monkeypatch):
    """Runs an experiment on devices with a limit, without training; returns its table and what it printed."""

    def train(lift, records, show, save, saves, called):
        scores = np.array([config.seed + lift.shape[0] for config in lift.configs])  # as rounding depends on how many
        return {f"{kind}_test_accuracy": scores for kind in ("last", "chosen")} | {"diverged": scores < 0}

    def experiment(folder, limit, seeds=range(24), **options):
        lines = io.StringIO()
        monkeypatch.setattr(memory, "limit", lambda: limit)
        table = Experiment(DENSE, {"": {}}, seeds=seeds).run(folder, console=Console(file=lines, width=500), **options)
        return table.frame, lines.getvalue()

    monkeypatch.setattr(system, "train", train)
    return experiment


EACH = 10**6
"""Bytes that a member is said to need, where programs are not compiled."""


def test_the_chunk_of_a_small_memory_is_chosen_once_said_and_kept(tmp_path, run, counted):
    """By shards and resumes whose devices have another memory; the runs are those of the same chunk given."""
    limit = 8 * EACH
    _, said = run(tmp_path / "e", limit, shard=(0, 2))
    assert counted == [24, 16, 8] and sorted(path.name for path in (tmp_path / "e" / "blocks").iterdir()) != []
    line = "note: at most 8 runs train at once, as 24 would not fit the memory; 8 need 0.008 GB"
    assert line in said and "--chunk (chunk=) sets another number" in said
    counted.clear()
    for memory_now in (2 * limit, 1):
        frame, again = run(tmp_path / "e", memory_now, shard=(1, 2))
        assert counted == [] and line in again
    wanted, said = run(tmp_path / "given", limit, chunk=8)
    assert "note" not in said and not (tmp_path / "given" / memory.FILE).exists()
    pandas.testing.assert_frame_equal(frame, wanted)


def test_added_seeds_are_counted_where_fewer_than_a_chunk_were(tmp_path, run, counted):
    assert "note" not in run(tmp_path / "e", 8 * EACH, seeds=range(4))[1]
    assert "note: at most 8 runs train at once" in run(tmp_path / "e", 8 * EACH, seeds=range(24))[1]
    assert counted == [8, 24, 16, 8]


def test_a_damaged_choice_is_refused(tmp_path, run, counted):
    run(tmp_path / "e", 10**12, seeds=range(1))
    file = tmp_path / "e" / memory.FILE
    file.write_text('{"a": {"chunk": 0}}')
    with pytest.raises(ConfigError, match=r"chunks.json: cannot be read; delete it, and the number of runs"):
        run(tmp_path / "e", 10**12, seeds=range(1))


def test_a_run_that_cannot_fit_is_said_before_it_is_tried(tmp_path, run):
    said = run(tmp_path / "e", 1000, seeds=range(1))[1]
    assert "note: the fewest runs that can train at once, 8, may run out of memory: they need" in said


def test_memory_that_is_used_up_is_one_line_that_names_the_chunk(tmp_path):
    """Of a system that asks the device for 64 TB."""

    class Large:
        def group(self, fields):
            return ""

        def train(self, group, fields, seeds):
            return {"score": jnp.zeros((len(seeds), 2**44)).sum(axis=1)}

    with pytest.raises(
        ConfigError, match=r"^out of memory \(.*\); train fewer .* smaller --chunk \(chunk=\)"
    ) as raised:
        Experiment(Large(), {"": {}}, seeds=(0,)).run(tmp_path / "e", console=Console(file=io.StringIO()))
    assert "\n" not in str(raised.value)
