"""Tasks that only memory solves: pictures that are shown pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from csbp_jax import configs, data
from csbp_jax.config import ConfigError
from csbp_jax.data import pixels
from csbp_jax.data.images import records
from csbp_jax.data.user import prediction_inputs
from tests.support import formats
from tests.support.formats import quiet

FIRST = [49, 63, 50, 39, 45, 38, 19, 54]
"""The pixels of the digits that the first steps show, which never change: published results would."""


def all_of(source):
    """Return all records of a source as one batch."""
    return source.take(np.arange(len(source)), np.zeros((len(source), 0)))


def test_a_digit_is_shown_pixel_by_pixel_in_one_order():
    pictures = data.load(configs.load("digits"))
    sequential, permuted = (configs.load(f"digits_{order}") for order in ("sequential", "permuted"))
    assert pixels.order(sequential).tolist() == list(range(64))
    assert pixels.order(permuted).tolist()[:8] == FIRST and sorted(pixels.order(permuted)) == list(range(64))
    for config in (sequential, permuted):
        for split, source in data.load(config).items():
            shown, picture = all_of(source), all_of(pictures[split])
            flat = picture["x"].reshape(len(source), 64)
            np.testing.assert_array_equal(shown["x"][..., 0], flat[:, pixels.order(config)])
            np.testing.assert_array_equal(shown["y"], picture["y"])
            assert source.events and shown["x"].dtype == np.float32
    assert data.fingerprint(sequential) != data.fingerprint(permuted)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """MNIST, prepared under the name of its sequences: the folder, and the config of smaller pictures."""
    folder, raw = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("raw")
    formats.mnist(raw)
    config = configs.load("mnist_permuted").replace(**{"data.size": (6, 4), "model.time_steps": 24})
    data.prepare(config, raw, folder, verify=False, show=quiet)
    return folder, config


def test_pictures_of_mnist_are_prepared_once_for_all_and_may_be_smaller(mnist):
    folder, config = mnist
    assert records.find(folder, "mnist")
    pictures = configs.load("mnist").replace(**{"data.size": (6, 4), "data.augment": ()})
    expected = data.load(pictures, folder)
    for split, source in data.load(config, folder).items():
        shown, picture = all_of(source), all_of(expected[split])
        flat = picture["x"].reshape(len(source), 24) / np.float32(255)
        np.testing.assert_array_equal(shown["x"][..., 0], flat[:, pixels.order(config)])
        np.testing.assert_array_equal(shown["y"], picture["y"])
    assert data.classes(config, folder) == [str(digit) for digit in range(10)]


def test_a_picture_to_predict_becomes_the_sequence_that_was_trained_on(mnist, tmp_path):
    folder, config = mnist
    picture = data.load(configs.load("mnist").replace("data.augment", ()), folder)["test"][3]["x"][0, ..., 0]
    Image.fromarray(picture).save(tmp_path / "3.png")
    read, is_sequence, _ = prediction_inputs.reader(config, [])
    np.testing.assert_array_equal(read(tmp_path / "3.png"), data.load(config, folder)["test"][3]["x"])
    assert is_sequence


IMPOSSIBLE = [
    ("digits_permuted", {"model.time_steps": 28}, "model.time_steps: 28 .*_permuted; allowed is 64, the pixels"),
    ("mnist_permuted", {"data.size": (14, 14)}, "model.time_steps: 784 .*; allowed is 196, the pixels of a picture"),
    ("digits_sequential", {"data.augment": ("mixup",)}, "data.augment: .*; allowed is none"),
    ("digits_sequential", {"data.size": (8, 8)}, r"data.size: \(8, 8\) .*; allowed is None"),
]


@pytest.mark.parametrize(("name", "fields", "message"), IMPOSSIBLE)
def test_impossible_options_are_one_line(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        data.load(configs.load(name).replace(**fields))
