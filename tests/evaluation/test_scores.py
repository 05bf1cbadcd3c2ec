"""Calibration and confusion against sums written out, and the share of variance that is explained."""

import numpy as np
import pytest

from csbp_jax.evaluation import evaluate, scores


def test_calibration_is_the_sum_over_bins_written_out():
    random = np.random.default_rng(0)
    confidence, correct = random.uniform(0.1, 1, 500), random.random(500) < 0.7
    error, table = scores.calibration(confidence, correct)
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 < confidence[i] <= (b + 1) / 15]
        assert table[b]["count"] == len(inside)
        if inside:
            expected += len(inside) / 500 * float(abs(np.mean(correct[inside]) - np.mean(confidence[inside])))
    assert error == pytest.approx(expected, abs=1e-12) and 0.05 < error < 0.5
    assert sum(row["count"] for row in table) == 500


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    for b in range(1, 15):
        _, table = scores.calibration(np.array([b / 15]), np.array([True]))
        assert table[b - 1]["count"] == 1, b
    assert scores.calibration(np.ones(3), np.ones(3, bool))[1][-1]["count"] == 3


def test_confusion_counts_every_example_once():
    random = np.random.default_rng(1)
    labels, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    matrix = scores.confusion(labels, predicted, 5)
    assert all(matrix[i, j] == ((labels == i) & (predicted == j)).sum() for i in range(5) for j in range(5))


def test_the_difference_between_the_means_of_values_is_not_explained():
    """An output of each value's mean tells nothing, however different the means are."""
    y = np.random.default_rng(0).normal([20, 1013], [1, 2], (200, 2))
    of_means = {"output": np.broadcast_to(y.mean(axis=0), y.shape), "target": y, "rates": {}}
    summary = evaluate.summary_of_numbers(of_means, ["temperature", "pressure"], "value")
    assert abs(summary["r2"]) < 1e-9 and summary["mae"] == pytest.approx(np.abs(y - y.mean(axis=0)).mean())
    halved = evaluate.summary_of_numbers(of_means | {"output": (y + y.mean(axis=0)) / 2}, ["a", "b"], "value")
    assert halved["r2"] == pytest.approx(0.75)
