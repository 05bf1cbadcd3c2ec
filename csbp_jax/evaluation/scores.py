"""Scores of a classifier's predictions over N examples: confusion matrix and calibration, on NumPy arrays."""

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
