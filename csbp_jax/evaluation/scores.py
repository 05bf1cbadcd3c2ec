"""Scores of predictions of N examples: confusion and calibration of classes, F1 of labels, R2 and errors of values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return ``[C, C]`` counts, with a row for each true class and a column for each predicted class.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def calibration(confidence: NDArray[Any], correct: NDArray[Any], bins: int = 15) -> tuple[float, list[dict[str, Any]]]:
    """Return the expected calibration error (Guo et al., ICML 2017) and its bins.

        ECE = sum over bins b of  n_b / N  |accuracy_b - confidence_b|

    Bin b holds the examples whose confidence is in ``(b / bins, (b + 1) / bins]``; both quantities are means over them,
    absent from an empty bin.

    Args:
      confidence: ``[N]``, probability of the predicted class.
      correct: ``[N]``, whether the prediction was the label.

    >>> calibration(np.array([0.95, 0.95, 0.6]), np.array([True, False, True]), bins=2)[0]
    0.1666...
    """
    # From the edges themselves, so that a confidence that lies on one is not moved by a rounded product.
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence)
    table, error = [], 0.0
    for b in range(bins):
        inside = bin_of == b
        row: dict[str, Any] = {"low": b / bins, "high": (b + 1) / bins, "count": int(inside.sum())}
        if inside.any():
            mean_confidence = float(confidence[inside].mean(dtype=np.float64))
            accuracy = float(correct[inside].mean())
            error += float(inside.mean()) * abs(accuracy - mean_confidence)
            row |= {"confidence": mean_confidence, "accuracy": accuracy}
        table.append(row)
    return error, table


def of_labels(predicted: NDArray[Any], actual: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return of each label its number of examples, precision, recall and F1, which are None where they are 0 / 0.

    Args:
      predicted, actual: ``[N, K]`` bool.

    >>> of_labels(np.array([[True], [True]]), np.array([[True], [False]]), ["a"])[0]["precision"]
    0.5
    """
    both, chosen, present = (array.sum(axis=0) for array in (predicted & actual, predicted, actual))

    def share(part: float, total: float) -> float | None:
        return float(part / total) if total else None

    return [
        {
            "label": name,
            "count": int(present[k]),
            "precision": share(both[k], chosen[k]),
            "recall": share(both[k], present[k]),
            "f1": share(2 * both[k], chosen[k] + present[k]),
        }
        for k, name in enumerate(names)
    ]


def of_values(output: NDArray[Any], target: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return of each value R2, mean absolute and root mean square error; R2 is None where all targets are equal.

    Args:
      output, target: ``[N, K]``.

    >>> of_values(np.array([[1.0], [3.0]]), np.array([[1.0], [5.0]]), ["a"])[0]["r2"]
    0.5
    """
    residual, spread = np.asarray(output, np.float64) - target, target - target.mean(axis=0, dtype=np.float64)
    return [
        {
            "value": name,
            "r2": float(1 - square[k] / total[k]) if total[k] else None,
            "mae": float(np.abs(residual[:, k]).mean()),
            "rmse": float((square[k] / len(target)) ** 0.5),
        }
        for square, total in [((residual**2).sum(axis=0), (spread**2).sum(axis=0))]
        for k, name in enumerate(names)
    ]
