"""Bundled digits and the pipeline: splits, order, resumption, evaluation."""

import itertools
import json

import chex
import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, Data


@pytest.fixture(scope="module")
def digits():
    return data.load(Config())


def take(source, n, **options):
    return list(itertools.islice(data.train_batches(source, **options), n))


def test_digits_are_split_without_overlap_and_stratified(digits):
    assert {split: len(source) for split, source in digits.items()} == {"train": 1258, "validation": 180, "test": 359}
    images = np.concatenate([source.x.reshape(len(source), -1) for source in digits.values()])
    assert len(np.unique(images, axis=0)) == 1797
    for source, fraction in zip(digits.values(), (0.7, 0.1, 0.2), strict=True):
        counts = np.bincount(source.y, minlength=10)
        assert np.all(np.abs(counts - fraction * 179.7) < 6)


def test_a_record_is_a_still_image(digits):
    record = digits["train"][0]
    chex.assert_shape(record["x"], (1, 8, 8, 1))
    assert record["x"].dtype == np.float32 and 0 <= record["x"].min() < record["x"].max() <= 1


def test_an_epoch_has_every_record_once_except_the_remainder(digits):
    batches = take(digits["train"], 2 * 39, batch_size=32, seed=3)
    for epoch in (batches[:39], batches[39:]):
        shown = np.concatenate([batch["x"] for batch in epoch]).reshape(39 * 32, -1)
        assert len(np.unique(shown, axis=0)) == 39 * 32
    assert not np.array_equal(batches[0]["y"], batches[39]["y"])


@pytest.mark.parametrize("start", [1, 38, 39, 57])
def test_the_stream_is_a_function_of_seed_and_step(digits, start):
    batches = take(digits["train"], 60, batch_size=32, seed=5)
    resumed = take(digits["train"], 60 - start, batch_size=32, seed=5, start_step=start)
    chex.assert_trees_all_equal(batches[start:], resumed)
    assert not np.array_equal(batches[0]["y"], take(digits["train"], 1, batch_size=32, seed=6)[0]["y"])


@pytest.mark.parametrize("batch_size", [1, 2, 1258])
def test_any_batch_size_starts_anywhere(digits, batch_size):
    steps = 1258 // batch_size
    first, second = take(digits["train"], 2, batch_size=batch_size, seed=0, start_step=steps - 1)
    chex.assert_shape([first["y"], second["y"]], (batch_size,))
    chex.assert_trees_all_equal(second, take(digits["train"], 1, batch_size=batch_size, seed=0, start_step=steps)[0])


@pytest.mark.parametrize("batch_size", [7, 180, 359, 500])
def test_evaluation_has_every_record_once(digits, batch_size):
    batches = list(data.eval_batches(digits["test"], batch_size))
    assert {batch["x"].shape[0] for batch in batches} == {batch_size}
    shown = np.concatenate([batch["x"][batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(shown, digits["test"].x)


def test_the_fingerprint_of_the_digits_differs_from_that_of_their_events(tmp_path):
    assert data.fingerprint(Config(), tmp_path) == data.fingerprint(Config(seed=1), tmp_path)
    assert data.fingerprint(Config(data=Data(name="digits_events")), tmp_path) != data.fingerprint(Config(), tmp_path)


def test_the_fingerprint_of_images_changes_with_their_records(tmp_path):
    directory = tmp_path / "mnist" / "3.0.1"
    directory.mkdir(parents=True)
    seen = set()
    for lengths in (["3", "4"], ["4", "3"]):
        metadata = {
            "name": "mnist",
            "version": "3.0.1",
            "fileFormat": "array_record",
            "splits": [{"shardLengths": lengths}],
        }
        (directory / "dataset_info.json").write_text(json.dumps(metadata))
        seen.add(data.fingerprint(Config(data=Data(name="mnist")), tmp_path))
    assert len(seen) == 2


def test_unknown_data_set():
    with pytest.raises(ConfigError, match=r"data.name: there is no data set 'x'; there are digits"):
        data.load(Config(data=Data(name="x")))
