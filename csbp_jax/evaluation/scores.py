"""What a classifier's answers are worth: confusion, accuracy by class, calibration. On plain arrays, N examples."""

from typing import Any

import numpy as np


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """``[C, C]`` counts, a row for each true class and a column for each predicted one.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error (Guo et al., ICML 2017), and the bins that it is made of.

        ECE = sum over bins b of  n_b / N  |accuracy_b - confidence_b|

    Bin b holds the examples whose confidence is in ``(b / bins, (b + 1) / bins]``; both quantities are means over them,
    which an empty bin has not.

    Args:
      confidence: ``[N]``, the probability given to the predicted class.
      right: ``[N]``, whether that was the label.

    >>> calibration(np.array([0.95, 0.95, 0.6]), np.array([True, False, True]), bins=2)[0]
    0.1666...
    """
    # From the edges themselves, so that a confidence that lies on one is not moved by a rounded product.
    places = np.searchsorted(np.arange(1, bins) / bins, confidence)
    table, error = [], 0.0
    for b in range(bins):
        inside = places == b
        row: dict[str, Any] = {"low": b / bins, "high": (b + 1) / bins, "count": int(inside.sum())}
        if inside.any():
            sure, share = float(confidence[inside].mean(dtype=np.float64)), float(right[inside].mean())
            error += float(inside.mean()) * abs(share - sure)
            row |= {"confidence": sure, "accuracy": share}
        table.append(row)
    return error, table
