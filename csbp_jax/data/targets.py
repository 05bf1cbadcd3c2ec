"""Targets of a user's records, checked: classes are integers, labels and values become float32 ``[..., K]``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, Loss

Array = NDArray[Any]

_NUMBERS = {"labels": "0 or 1 for each of K labels", "value": "finite numbers"}


def numbers(y: Any, axes: int, loss: Loss, count: int, name: str) -> Array:
    """Return labels or values as float32, with an axis of K, which a single value may lack.

    Args:
      y: ``[..., K]`` with ``axes`` axes before the last.
      loss: whether they are labels or values.
      count: K; 0 if it is not known.
      name: what messages begin with.

    Raises:
      ConfigError: another shape or type, labels that are not 0 or 1, or values that are not finite in float32.
    """
    words = f"{_NUMBERS[loss.task]} (loss.task {loss.task}, loss.per {loss.per})"
    array: Array = np.asarray(y)
    if array.dtype.kind not in "buif" or array.ndim not in (axes, axes + 1):
        raise ConfigError(f"{name}: y is {array.dtype} {array.shape}; expected are {words}")
    with np.errstate(over="ignore"):
        array = (array if array.ndim > axes else array[..., None]).astype(np.float32)
    if array.shape[-1] != (count or array.shape[-1] or 1):
        raise ConfigError(
            f"{name}: y has {array.shape[-1]} numbers for a target; expected are {count or 'some'} (model.classes)"
        )
    wrong = np.argwhere(~np.isin(array, (0, 1)) if loss.task == "labels" else ~np.isfinite(array))
    if len(wrong):
        raise ConfigError(f"{name}: y{wrong[0].tolist()} is {array[tuple(wrong[0])]}; expected are {words}")
    return array


def classes(y: Array, most: int, name: str) -> Array:
    """Return the numbers of classes ``[N]`` as int32.

    Raises:
      ConfigError: another shape or type, or a class from ``most`` on.
    """
    if y.ndim != 1 or y.dtype.kind not in "ui" or y.min() < 0:
        raise ConfigError(f"{name}: y is {y.dtype} {y.shape}; expected are labels from 0 on, integers [N]")
    if y.max() >= most:  # before it is cast to int32, where it could become another label
        raise ConfigError(f"{name}: y has a label {y.max()}; allowed are 0 to {most - 1} (model.classes)")
    return y.astype(np.int32)


def of_records(y: Any, steps: Sequence[int], loss: Loss, count: int, most: int, name: str) -> Array | list[Array]:
    """Return the targets of all records, ``[N, ...]``, or of every time step, ``[N, T, ...]``, of several T a list.

    Args:
      y: a target for each record or, with ``loss.per`` step, ``[T_i]`` or ``[T_i, K]`` for each.
      steps: T_i of the records.
      loss: what targets are.
      count: K, or 0.
      most: number of classes that there may be.
      name: what messages begin with.

    Raises:
      ConfigError: as :func:`numbers` and :func:`classes`, or they are not as many as records or time steps.
    """
    try:
        if len(y) != len(steps):
            raise ConfigError(f"{name}: y has {len(y)} targets, but x has {len(steps)} records; give one for each")
        if loss.per == "step":
            y = list(y)  # a pandas Series would be read by its index
            for i, (shape, length) in enumerate(zip(map(np.shape, y), steps, strict=True)):
                if shape[:1] != (length,):
                    raise ConfigError(
                        f"{name}: y of record {i} is {shape}, but it has {length} time steps; loss.per step needs a "
                        "target each"
                    )
            y = np.concatenate(y)
        y = np.asarray(y)
    except ConfigError:
        raise
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name}: y holds no targets, or targets of several shapes; expected is one for each record, or for each "
            "time step with loss.per step"
        ) from None
    flat = classes(y, most, name) if loss.task == "class" else numbers(y, 1, loss, count, name)
    if loss.per == "example":
        return flat
    if len({*steps}) == 1:
        return flat.reshape(len(steps), steps[0], *flat.shape[1:])
    return np.split(flat, np.cumsum(steps)[:-1])
