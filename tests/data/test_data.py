"""Bundled digits and the pipeline: splits, order, resumption, evaluation."""

import json

import chex
import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.config import Config, Data


@pytest.fixture(scope="module")
def digits():
    return data.load(Config())


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
