"""Sequences of unequal length in buckets, and targets that are not classes: what is read, and what is refused."""

import itertools
import pickle

import chex
import numpy as np
import pandas as pd
import pytest

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, Loss
from csbp_jax.data.buckets import Buckets
from csbp_jax.data.source import ArraySource, UserSource
from csbp_jax.data.user import arrays
from tests.data.test_pipeline import joined, shares

BATCH, SEED = 8, 5
LENGTHS = np.random.default_rng(0).integers(12, 141, 103)


def numbered(lengths=LENGTHS, per_step=False):
    """Sequences whose values are the number of the record, and positive."""
    x = [np.full((n, 2), i + 1, np.float32) for i, n in enumerate(lengths)]
    y = [np.full(n, i % 3, np.int32) for i, n in enumerate(lengths)] if per_step else np.arange(len(lengths)) % 3
    return ArraySource(x, y, 3, per_step)


def numbers_of(batch):
    return batch["x"][:, 0, 0].astype(int) - 1


def stream(count, start=0, processes=1, **options):
    """Batches joined from those of all processes."""
    parts = shares(BATCH, processes)
    streams = [
        itertools.islice(data.train_batches(numbered(), BATCH, SEED, start, rows=rows, **options), count)
        for rows in parts
    ]
    return [joined(parts, step) for step in zip(*streams, strict=True)]


@pytest.mark.parametrize("buckets", [1, 2, 4, 50])
def test_an_epoch_has_each_record_once_but_for_the_remainders_of_buckets(buckets):
    of = Buckets.of(numbered(), BATCH, buckets)
    steps = data.steps_per_epoch(numbered(), BATCH, buckets)
    counts = np.bincount(of.bucket_of)
    assert len(of.ends) <= buckets and counts.min() >= BATCH and steps == (counts // BATCH).sum()
    batches = stream(2 * steps, buckets=buckets)
    for epoch in (batches[:steps], batches[steps:]):
        seen = np.concatenate([numbers_of(batch) for batch in epoch])
        assert len(np.unique(seen)) == steps * BATCH
    for batch in batches:
        lengths, end = LENGTHS[numbers_of(batch)], batch["x"].shape[1]
        np.testing.assert_array_equal(batch["lengths"], lengths)
        assert end in of.ends and lengths.max() <= end and lengths.min() > max([0, *of.ends[of.ends < end]])
        padding = np.arange(end) >= lengths[:, None]
        assert not batch["x"][padding].any() and batch["x"][~padding].all()
    firsts = [numbers_of(epoch[0]).tolist() for epoch in (batches, batches[steps:])]
    assert firsts[0] != firsts[1]
    shapes = [batch["x"].shape[1] for batch in batches[:steps]]
    assert buckets == 1 or shapes != sorted(shapes)


@pytest.mark.parametrize(("start", "processes", "threads"), [(0, 2, 1), (7, 1, 3), (13, 4, 2)])
def test_batches_are_a_function_of_seed_and_step(start, processes, threads):
    expected = stream(20)[start:]
    chex.assert_trees_all_equal(expected, stream(20 - start, start, processes, readers=data.Readers(0, threads)))


def test_equally_long_records_are_batched_as_arrays():
    x, y = np.random.default_rng(0).normal(size=(30, 6, 2)).astype(np.float32), np.arange(30) % 3
    expected = list(itertools.islice(data.train_batches(ArraySource(x, y, 3), 8, 0), 7))
    pair = list(x), y
    source = arrays.sources({"train": pair, "validation": pair, "test": pair}, config_of(), "own")["train"]
    listed = list(itertools.islice(data.train_batches(source, 8, 0), 7))
    chex.assert_trees_all_equal(expected, listed)
    assert "lengths" not in listed[0] and not Buckets.of(source, 8, 4).describe()


@pytest.mark.parametrize("ends", [(), (20, 60, 100), (300,)])
@pytest.mark.parametrize("processes", [1, 3])
def test_evaluation_counts_each_sequence_once_and_says_which(ends, processes):
    source, size = numbered(per_step=True), 12
    streams = [
        list(data.eval_batches(source, size, rows=np.arange(process, size, processes), ends=ends))
        for process in range(processes)
    ]
    order, counted = data.eval_order(source, size, ends)
    assert {len(batches) for batches in streams} == {len(order)}
    assert sorted(order[counted]) == list(range(103))
    for process, batches in enumerate(streams):
        for step, batch in enumerate(batches):
            rows = order[step][process::processes]
            np.testing.assert_array_equal(numbers_of(batch), rows)
            np.testing.assert_array_equal(batch["mask"], counted[step][process::processes])
            assert batch["y"].shape == batch["x"].shape[:2] and batch["x"].shape[1] <= 140
            np.testing.assert_array_equal(batch["y"][:, 0], rows % 3)


def test_the_line_says_what_padding_costs_and_a_sequence_of_one_step_is_padded():
    of = Buckets.of(numbered([1, 1, 2, 4]), 1, 2)
    assert of.describe() == "lengths 1 to 4 in 2 buckets: 20% padding"
    assert Buckets.of(numbered([1, 1, 3, 3]), 1, 2).ends.tolist() == [2, 3]
    assert len(pickle.loads(pickle.dumps(of)).bucket_of) == 4


def config_of(**loss):
    return Config(loss=Loss(**loss)).replace(**{"model.classes": 0, "model.time_steps": 6, "batch_size": 4})


RAGGED = [np.ones((n, 3)) for n in (2, 6, 4, 3) * 5]
EQUAL = np.ones((20, 6, 3))
VALUE, LABELS = {"task": "value", "name": "mse"}, {"task": "labels"}
READ = {
    "one value": (RAGGED, np.arange(20.0), VALUE, (1,), 1),
    "values": (EQUAL, np.ones((20, 3), int), VALUE, (3,), 3),
    "labels": (RAGGED, np.ones((20, 4), bool), LABELS, (4,), 4),
    "classes of steps": (RAGGED, [np.arange(len(x)) for x in RAGGED], {"per": "step"}, (2,), 6),
    "values of steps": (EQUAL, np.ones((20, 6)), {**VALUE, "per": "step"}, (6, 1), 1),
    "labels of steps": (RAGGED, [np.ones((len(x), 2)) for x in RAGGED], {**LABELS, "per": "step"}, (2, 2), 2),
    "classes of steps of stills": (np.ones((20, 1, 3)), np.tile(np.arange(6) % 2, (20, 1)), {"per": "step"}, (6,), 2),
}


@pytest.mark.parametrize("kind", READ)
def test_targets_of_own_data_have_one_form(kind):
    x, y, loss, shape, classes = READ[kind]
    splits = arrays.sources({"train": (x, y), "test": (x, y)}, config_of(**loss), "own")
    train = splits["train"]
    assert (train.classes, train.per_step) == (classes, "per" in loss)
    record, batch = splits["test"][0], next(data.train_batches(train, 4, 0))
    assert record["y"].shape == shape and record["y"].dtype == ("float32" if "task" in loss else "int32")
    assert len(splits["validation"]) == 2 and ("lengths" in batch) == (x is RAGGED)
    assert batch["y"].dtype == record["y"].dtype


def test_targets_of_steps_in_a_series_of_pandas_are_read_by_position():
    y = pd.Series([np.full(6, n % 3) for n in range(20)], index=[f"recording {n}" for n in range(20)])
    for targets in (y, y.set_axis(range(19, -1, -1))):
        splits = arrays.sources({"train": (EQUAL, targets), "test": (EQUAL, targets)}, config_of(per="step"), "own")
        assert [int(splits["test"][n]["y"][0]) for n in range(20)] == [n % 3 for n in range(20)]


@pytest.mark.parametrize("length", [1, 4, 6])
def test_a_split_of_equal_lengths_beside_others_has_lengths(length):
    test = [np.ones((length, 3))] * 4, np.ones(4)
    splits = arrays.sources({"train": (RAGGED, np.ones(20)), "test": test}, config_of(**VALUE), "own")
    batch = next(data.eval_batches(splits["test"], 4))
    assert batch["lengths"].tolist() == [length] * 4 and batch["x"].shape == (4, max(length, 2), 3)


WRONG = {
    "a sequence without time steps": (
        [*RAGGED[:-1], np.ones((0, 3))],
        np.ones(20),
        VALUE,
        r"x of record 19 is \(0, 3\)",
    ),
    "other features": ([*RAGGED[:-1], np.ones((4, 2))], np.ones(20), VALUE, r"x holds records float64 \(2, 3\), "),
    "no features": ([np.ones(n) for n in (2, 3)], np.ones(2), VALUE, r"float64 \(2,\), float64 \(3,\); expected are"),
    "text of steps": ([np.full((n, 3), "a") for n in (2, 3)], np.ones(2), VALUE, r"x holds records <U1 \(2, 3\), "),
    "complex": ([np.ones((n, 3), complex) for n in (2, 3)], np.ones(2), VALUE, "x holds records complex128 .*numbers"),
    "too long": ([*RAGGED[:-1], np.ones((7, 3))], np.ones(20), VALUE, r"2 to 7 time steps; expected are 1 to model"),
    "not a number in x": ([*RAGGED[:-1], np.full((5, 3), np.nan)], np.ones(20), VALUE, "x of record 19 holds values"),
    "not a number": (EQUAL, np.where(np.arange(20) == 3, np.nan, 1.0), VALUE, r"y\[3, 0\] is nan; expected are finite"),
    "too large": (EQUAL, np.full(20, 1e39), VALUE, r"y\[0, 0\] is inf; expected are finite"),
    "text": (EQUAL, np.full(20, "a"), VALUE, r"y is <U1 \(20,\); expected are finite"),
    "fewer targets": (RAGGED, np.ones(19), VALUE, "y has 19 targets, but x has 20 records"),
    "labels of 2": (EQUAL, np.full((20, 2), 2), LABELS, r"y\[0, 0\] is 2.0; expected are 0 or 1"),
    "classes of floats": (RAGGED, np.ones(20), {}, r"y is float64 \(20,\); expected are labels from 0 on"),
    "a target a record": (RAGGED, np.ones(20, int), {"per": "step"}, r"y of record 0 is \(\), but it has 2 time steps"),
    "steps too few": (RAGGED, [np.ones(2, int)] * 20, {"per": "step"}, "record 1 is .2,., but it has 6 time steps"),
    "steps without per": (RAGGED, [np.ones(len(x)) for x in RAGGED], VALUE, "y holds .*targets of several shapes"),
    "no targets of steps": (RAGGED, None, {**VALUE, "per": "step"}, "y holds no targets"),
    "targets without numbers": (EQUAL, np.ones((20, 0)), VALUE, "y has 0 numbers for a target; expected are some"),
    "two splits": (
        EQUAL,
        np.ones((20, 2)),
        VALUE,
        "test: holds frames .3,., 2 values, but train frames .3,., 1 values",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_records_and_targets_are_one_line(kind):
    x, y, loss, message = WRONG[kind]
    train = (EQUAL, np.ones(20)) if kind == "two splits" else (x, y)
    with pytest.raises(ConfigError, match=f"^own: data: .*{message}") as error:
        arrays.sources({"train": train, "test": (x, y)}, config_of(**loss), "own")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"), [("data.augment", ("mixup",)), ("data.augment", ("event_drop",)), ("data.frames", 2)]
)
def test_what_looks_across_time_is_refused_of_several_lengths(field, value):
    config = config_of().replace(field, value)
    with pytest.raises(ConfigError, match=f"^{field}: .* is not possible for own: data: train, records of several len"):
        arrays.sources({"train": (RAGGED, [0, 1] * 10), "test": (RAGGED, [0, 1] * 10)}, config, "own")


class Sequences(list):
    """A source of one's own whose records have lengths."""

    classes = 2

    def __init__(self, records, lengths=None):
        super().__init__(records)
        self.lengths = [len(record["x"]) for record in records] if lengths is None else lengths


def test_a_source_of_ones_own_may_have_lengths_and_values():
    records = Sequences([{"x": x, "y": [1.0, 2.0]} for x in RAGGED])
    splits = arrays.sources(dict.fromkeys(("train", "validation", "test"), records), config_of(**VALUE), "own")
    batch = next(data.train_batches(splits["train"], 4, 0))
    assert batch["y"].tolist() == [[1.0, 2.0]] * 4 and batch["lengths"].max() <= batch["x"].shape[1]
    assert splits["train"].events
    with pytest.raises(ConfigError, match=r"has lengths int64 \(3,\); expected is an integer for each of 20 records"):
        few = Sequences(records, [2, 6, 4])
        arrays.sources(dict.fromkeys(("train", "validation", "test"), few), config_of(**VALUE), "own")
    wrong = UserSource(Sequences(records, [2] * 20), "own", loss=Loss(task="value", name="mse"))
    with pytest.raises(ConfigError, match=r"^own: x of record 1 is \(6, 3\), but by its length \(2, 3\)"):
        wrong[1]
    short = Sequences([{"x": x, "y": np.zeros(len(x) - 1, int)} for x in RAGGED])
    late = UserSource(short, "own", loss=Loss(per="step"))
    with pytest.raises(ConfigError, match=f"^own: y of record 0 has {len(RAGGED[0]) - 1} time steps, but x"):
        late[0]


def write(folder, table, records=RAGGED):
    """Files of records, and a table of their targets; ``{0}`` in the table is the lines of all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, record in enumerate(records):
        np.save(folder / f"{i}.npy", record)
    (folder / "labels.csv").write_text(table)
    return folder


def lines(*values):
    return "".join(f"{i}.npy,{','.join(map(str, values))}\n" for i in range(20))


def of_folder(folder, **loss):
    return config_of(**loss).replace(**{"data.name": "folder", "data.dir": str(folder)})


def load(folder, tmp_path, **loss):
    return data.load(of_folder(folder, **loss), tmp_path / "kept")


def test_a_table_names_files_and_values(tmp_path):
    folder = write(tmp_path / "x", "file, a, b\n" + "".join(f"{i}.npy, {i}, -1e-3\n" for i in range(20)))
    config, splits = of_folder(folder, **VALUE), load(folder, tmp_path, **VALUE)
    assert {split: len(source) for split, source in splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert data.classes(config.replace("model.classes", 2)) == ["a", "b"] and splits["train"].classes == 2
    rows = [splits["train"][i] for i in range(14)]
    for row in rows:
        assert len(row["x"]) == len(RAGGED[int(row["y"][0])]) and row["y"][1] == np.float32(-1e-3)
    before = data.fingerprint(config)
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("-1e-3", "-2e-3"))
    assert data.fingerprint(config) != before


def test_a_table_names_classes_and_each_split_may_have_one(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "x" / split, "file,kind\n" + lines("cat")[:-4] + "dog\n")
    splits = load(tmp_path / "x", tmp_path)
    assert {len(source) for source in splits.values()} == {18, 2, 20} and splits["test"][19]["y"] == 1


def test_a_table_in_each_of_two_folders_of_a_split_is_one_line(tmp_path):
    for split in ("train", "test", "val", "valid"):
        write(tmp_path / "x" / split, "file,a\n" + lines(1))
    with pytest.raises(ConfigError, match=r"valid: val is the validation split already; keep one"):
        load(tmp_path / "x", tmp_path, **VALUE)
    (tmp_path / "x" / "valid").rename(tmp_path / "other")
    (tmp_path / "x" / "test" / "labels.csv").unlink()
    with pytest.raises(ConfigError, match=r"test: has no labels.csv, but another split has; write it"):
        load(tmp_path / "x", tmp_path, **VALUE)


TABLES = {
    "no column file": ("name,a\n" + lines(1), VALUE, "has the columns name, a; its first line must name file"),
    "no targets": ("file\n0.npy\n", VALUE, "has the columns file; its first line must name file"),
    "empty": ("", VALUE, "has the columns none"),
    "no files": ("file,a\n", VALUE, "names no file"),
    "a file that is not there": ("file,a\ngone.npy,1\n", VALUE, ":2: there is no file .*gone.npy"),
    "a file above": ("file,a\n../above.npy,1\n", VALUE, ":2: ../above.npy is outside .*; name files below it"),
    "a file elsewhere": (f"file,a\n{__file__},1\n", VALUE, f":2: {__file__} is outside"),
    "a link to a file above": ("file,a\nlink.npy,1\n", VALUE, ":2: link.npy is outside .*; name files below it"),
    "a file twice": ("file,a\n0.npy,1\n../x/0.npy,2\n", VALUE, ":3: names .*0.npy again, after line 2"),
    "not a number": ("file,a\n0.npy,1\n1.npy,nan\n", VALUE, ":3: a is 'nan'; expected is a finite number"),
    "a word": ("file,a\n0.npy,cat\n", VALUE, ":2: a is 'cat'; expected is a finite number"),
    "a label of 2": ("file,a\n0.npy,2\n", LABELS, ":2: a is '2'; expected is 0 or 1"),
    "a missing cell": ("file,a,b\n0.npy,1\n", VALUE, ":2: is 0.npy, 1; expected is a value for each of file, a, b"),
    "classes in two columns": ("file,a,b\n0.npy,x,y\n", {}, "has the targets a, b; with loss.task class, give one"),
    "one class": ("file,a\n" + lines("x"), {}, "has one class, 'x'"),
    "two files": ("file,a\n0.npy,1\n1.npy,2\n", VALUE, "has fewer than 3 files to divide"),
    "targets of steps": ("file,a\n" + lines(1), {**VALUE, "per": "step"}, "loss.per: step is not possible with "),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_wrong_table_is_one_line(kind, tmp_path):
    table, loss, message = TABLES[kind]
    folder = write(tmp_path / "x", table)
    np.save(tmp_path / "above.npy", RAGGED[0])
    (folder / "link.npy").symlink_to(tmp_path / "above.npy")
    with pytest.raises(ConfigError, match=message) as error:
        load(folder, tmp_path, **loss)
    assert "\n" not in str(error.value) and "x" in str(error.value)
