"""How many runs train at once: as many as fit the memory of a device, chosen once for an experiment."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from csbp_jax import configs, data, learner
from csbp_jax.config import ConfigError, Model, replaced
from csbp_jax.experiment import Experiment, Training, memory
from csbp_jax.experiment.members import SHARDS_NO_CONVOLUTIONS, Members, member_mesh
from csbp_jax.reporting.terminal import Console
from csbp_jax.training import build
from tests.support.small_runs import DIGITS, SMALL

DENSE = dataclasses.replace(SMALL, epochs=1, patience=0)
CONV = dataclasses.replace(
    DENSE,
    model=dataclasses.replace(DIGITS.model, features=(2, 2), time_steps=2),
    chaos=dataclasses.replace(DENSE.chaos, taps=("conv1.membrane",)),
)


def compiled(config):
    """The system of a config, and the functions of its members."""
    system = Training(config)
    system.prepare([{}], 0)
    (group,) = system._first
    return system._first_members(group)


def needed(config, count, seeds=2):
    members, resolved = compiled(config)
    return memory.needed(members, resolved, count, seeds)


OF_NEW_JAX = pytest.mark.skipif(SHARDS_NO_CONVOLUTIONS, reason="JAX before 0.8 trains one such member a device")


@pytest.mark.parametrize("config", [DENSE, pytest.param(CONV, marks=OF_NEW_JAX)], ids=["scanned", "step by step"])
def test_what_members_need_is_counted_in_their_compiled_programs(config):
    eight, sixteen = (needed(config, count) for count in (8, 16))  # one on each of eight devices, and two
    members, resolved = compiled(config)
    states, _ = memory.state_shapes(members, resolved, 8)
    state, weights = (memory._bytes(tree) // 8 for tree in (states, learner.weights_of(states)))
    held = memory._bytes((members.resident.x, members.resident.blocks)) if members.resident else 0
    assert eight > held + state + 2 * weights, "with its gradient, and the weights of the chosen epoch"
    assert state + weights < sixteen - eight <= eight
    assert needed(replaced(config, "patience", 1), 8) == eight + state


@pytest.mark.parametrize("config", [DENSE, CONV], ids=["dense", "convolutional"])
def test_members_of_a_lone_accelerator_are_counted_without_a_mesh(config):
    splits = data.load(config)
    config = build.resolve(config, splits)
    members = Members(config, splits, member_mesh(1, jax.devices()[:1]), platform="gpu")
    assert not members.sharded and members.resident
    two, four = (memory.needed(members, config, count, 1) for count in (2, 4))
    assert two is not None and four is not None and two < four < 2 * two


def test_sequences_are_counted_by_the_longest(tmp_path):
    needs = []
    for longest in (3, 12):
        for number in range(40):
            folder = tmp_path / str(longest) / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{number}.npy", np.zeros((longest if number > 20 else 2, 3)))
        model = Model(name="recurrent", input_shape=(), classes=0, features=(4,), time_steps=12)
        base = replaced(replaced(configs.load("folder"), "model", model), "data.dir", str(tmp_path / str(longest)))
        base = base.replace(**{"batch_size": 8, "eval_batch_size": 8, "chaos.taps": "rec1.membrane", "data.buckets": 2})
        needs.append(needed(base, 8))
    assert needs[0] < needs[1]


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
    counts, count_bytes = [], memory.needed

    def needed(members, config, count, seeds):
        counts.append(count)
        return count_bytes(members, config, count, seeds)

    monkeypatch.setattr(memory, "needed", needed)
    return counts


def run(folder, monkeypatch, limit, seeds=range(24), **options):
    """Run an experiment on devices with a limit; return its table and what it printed."""
    lines = io.StringIO()
    monkeypatch.setattr(memory, "limit", lambda: limit)
    table = Experiment(DENSE, {"": {}}, seeds=seeds).run(folder, console=Console(file=lines, width=500), **options)
    return table.frame, lines.getvalue()


def test_the_chunk_of_a_small_memory_is_chosen_once_said_and_kept(tmp_path, monkeypatch, counted):
    """By shards and resumes whose devices have another memory; the runs are those of the same chunk given."""
    limit = needed(DENSE, 8) + 100
    assert needed(DENSE, 16) > limit
    counted.clear()
    _, said = run(tmp_path / "e", monkeypatch, limit, shard=(0, 2))
    assert counted == [24, 16, 8] and sorted(path.name for path in (tmp_path / "e" / "blocks").iterdir()) != []
    line = f"note: at most 8 runs train at once, as 24 would not fit the memory; 8 need {needed(DENSE, 8) / 1e9:.3g} GB"
    assert line in said and "--chunk (chunk=) sets another number" in said
    counted.clear()
    for memory_now in (2 * limit, 1):
        frame, again = run(tmp_path / "e", monkeypatch, memory_now, shard=(1, 2))
        assert counted == [] and line in again
    wanted, said = run(tmp_path / "given", monkeypatch, limit, chunk=8)
    assert "note" not in said and not (tmp_path / "given" / memory.FILE).exists()
    pandas.testing.assert_frame_equal(frame, wanted)


def test_added_seeds_are_counted_where_fewer_than_a_chunk_were(tmp_path, monkeypatch, counted):
    limit = needed(DENSE, 8) + 100
    counted.clear()
    assert "note" not in run(tmp_path / "e", monkeypatch, limit, seeds=range(4))[1]
    assert "note: at most 8 runs train at once" in run(tmp_path / "e", monkeypatch, limit, seeds=range(24))[1]
    assert counted == [8, 24, 16, 8]


def test_a_damaged_choice_is_refused(tmp_path, monkeypatch):
    run(tmp_path / "e", monkeypatch, 10**12, seeds=range(1))
    file = tmp_path / "e" / memory.FILE
    file.write_text('{"a": {"chunk": 0}}')
    with pytest.raises(ConfigError, match=r"chunks.json: cannot be read; delete it, and the number of runs"):
        run(tmp_path / "e", monkeypatch, 10**12, seeds=range(1))


def test_a_run_that_cannot_fit_is_said_before_it_is_tried(tmp_path, monkeypatch):
    said = run(tmp_path / "e", monkeypatch, 1000, seeds=range(1))[1]
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
