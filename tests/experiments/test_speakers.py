"""The study of known and unknown speakers: every speaker is left out once, and the means are those of its seeds."""

import pytest

from csbp_jax import configs
from experiments import speakers


def run(accuracy):
    return {"last": {"test_accuracy": accuracy, "validation_accuracy": 0.9, "test_count": 500}, "seconds": 2.0}


@pytest.fixture
def content():
    splits = {
        split: {"csbp": [run(0.1 * i), run(0.1 * i)], "bp": [run(0.05 * i), run(0.05 * i + 0.02)]}
        for i, split in enumerate((speakers.KNOWN, *speakers.SPEAKERS))
    }
    return speakers.summary(splits) | {"seeds": 2, "command": "COMMAND"}


def test_the_mean_over_speakers_is_of_each_seed_and_without_the_known_ones(content):
    unknown = content["accuracy"][speakers.UNKNOWN]
    assert unknown["csbp"] == pytest.approx([0.35, 0.35]) and unknown["bp"] == pytest.approx([0.175, 0.195])


def test_differences_are_csbp_minus_plain_backpropagation(content):
    rows = dict(line.strip("| ").split(" | ", 1) for line in speakers.table(content).splitlines()[2:])
    assert list(rows) == [speakers.KNOWN, *speakers.SPEAKERS, speakers.UNKNOWN]
    assert rows["george"].startswith("500 | 10.00 (all equal) | 6.00 [")
    assert rows["george"].rpartition(" | ")[2].startswith("4.00 [")
    assert "`COMMAND`" in speakers.page(content) and "has 90.0 to 90.0 %" in speakers.page(content)


def test_only_the_test_speaker_differs():
    config = configs.load("fsdd")
    assert speakers.left_out(config, "") == config and speakers.left_out(config, "george") == configs.load(
        "fsdd_speaker"
    )
