"""What is measured and decided after a step and after an epoch, of one run and of K runs that train together.

All is written for arrays of any shape: ``()`` for the numbers of one run, ``[K]`` for those of members. It is computed
on the host in float64, whatever the devices compute in.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict
from numpy.typing import ArrayLike, NDArray

from csbp_jax import learner
from csbp_jax.config import Config
from csbp_jax.learner import State, measures
from csbp_jax.reporting.measures import primary

BAD_STEPS_STOP = 3
"""A run has diverged after this many non-finite steps in a row."""
HIGH_STEPS_STOP, HIGH_EPOCHS_STOP = 100, 3
"""It has diverged after this many steps or epochs in a row, whichever are fewer steps, with a loss above its limit."""

NO_EPOCH = {"epoch": 0, "accuracy": -1.0, "loss": math.inf}
"""The selection before the first epoch has ended; ``accuracy`` stands for the measure of the run's task."""


class Sums:
    """Sums of the metrics of the good steps of an epoch, by the names of the metrics; other steps are skipped.

    Attributes:
      count: the number of these steps, ``()`` or ``[K]``.
    """

    def __init__(self, metrics: Mapping[str, Any], shape: tuple[int, ...] = ()):
        """Begin an epoch.

        Args:
          metrics: of a step (their names suffice); without any, they are those of the first step.
          shape: of each of them.
        """
        self.count = np.zeros(shape, int)
        self._empty: dict[tuple[str, ...], Any] = {}
        # None: some of the steps are missing, and a mean over the others would pass for that of the epoch.
        self._sums: dict[tuple[str, ...], Any] = {}
        self._name(_summed(metrics))

    def _name(self, summed: Mapping[str, Any]) -> None:
        with_empty = flatten_dict(dict(summed), keep_empty_nodes=True)
        # Such as z of a run without taps: rows have them.
        self._empty = {name: leaf for name, leaf in with_empty.items() if leaf is empty_node}
        names = [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(summed)]
        self._sums = dict.fromkeys(names, np.zeros(self.count.shape))

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, which may be of a version with other metrics.

        A metric that it lacks is summed from the next epoch on, or from this one if it has no good step yet.
        """
        self.count, stored = np.asarray(progress["count"]), flatten_dict(progress["sums"])
        for name in self._sums:
            if name in stored:
                self._sums[name] = np.asarray(stored[name])
            elif self.count.any():
                self._sums[name] = None

    def add(self, metrics: Mapping[str, Any], good: ArrayLike = True) -> None:
        """Add the metrics of a step; ``good``, in the shape of one of them, tells which of them count."""
        good = np.asarray(good)
        all_good = bool(good.all())
        self.count = self.count + good
        summed = _summed(metrics)
        if not self._sums:
            self._name(summed)
        for (name, total), values in zip(self._sums.items(), jax.tree.leaves(summed), strict=True):
            if total is not None:
                self._sums[name] = total + (values if all_good else np.where(good, values, 0.0))

    def means(self) -> dict[str, Any]:
        """Return the means over the epoch, nested as the metrics.

        Where no step of a member was good, its means are NaN; one run then has none.
        """
        if not self.count.shape and not self.count:
            return {}
        count = np.where(self.count > 0, self.count, np.nan)
        return unflatten_dict({name: total / count for name, total in self._known().items()} | self._empty)

    def begin_epoch(self) -> None:
        """Set all sums to 0."""
        self.count, self._sums = np.zeros_like(self.count), dict.fromkeys(self._sums, np.zeros(self.count.shape))

    def progress(self) -> dict[str, Any]:
        """Return ``{"count", "sums"}`` of a checkpoint."""
        return jax.tree.map(np.asarray, {"count": self.count, "sums": unflatten_dict(self._known())})

    def _known(self) -> dict[tuple[str, ...], Any]:
        return {name: total for name, total in self._sums.items() if total is not None}


def _summed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that have a mean."""
    return {name: metric for name, metric in metrics.items() if name != "bad_steps"}


class Health:
    """Whether training has diverged: its task loss stays above a limit, or its steps stay non-finite.

    The limit is ``factor * max(first, 1)``, where ``first`` is the task loss of the first good step; that of loaded
    weights may be so small that a thousand times as much would not be divergence. A non-finite step is skipped by
    ``learner/step.py``, and neither begins nor ends a stretch of steps above the limit.

    Attributes:
      first: the task loss of the first good step; NaN before it.
      limit: the largest task loss of a healthy step.
      high_since: the first step of the present stretch of steps above the limit; 0 if the loss is below it.
      diverged: whether a stretch has lasted for :func:`steps_to_stop` steps, or non-finite ones for
        ``BAD_STEPS_STOP``.
    """

    def __init__(
        self,
        factor: ArrayLike,
        steps_per_epoch: int,
        first: ArrayLike = np.nan,
        high_since: ArrayLike = 0,
    ):
        """Begin, or go on from what has been seen; ``factor`` is ``config.loss_limit``, where 0 means no limit."""
        self._factor, self.steps_to_stop = np.asarray(factor, float), steps_to_stop(steps_per_epoch)
        self.first: Any = np.broadcast_to(np.asarray(first, float), self._factor.shape)
        self.high_since: Any = np.broadcast_to(np.asarray(high_since), self._factor.shape)
        self.limit = self._limit()
        self.diverged: NDArray[np.bool_] = np.zeros(self._factor.shape, bool)

    def update(self, step: int, loss: ArrayLike, bad_steps: ArrayLike, running: ArrayLike = True) -> None:
        """Take the task loss of a step, and the number of non-finite steps in a row that it ends.

        Of members that are not ``running`` any more, nothing changes.
        """
        good = np.equal(bad_steps, 0) & running
        is_first = good & np.isnan(self.first)
        if is_first.any():
            self.first = np.where(is_first, loss, self.first)
            self.limit = self._limit()
        is_high = np.greater(loss, self.limit)
        if is_high.any() or self.high_since.any():
            stretch = np.where(self.high_since > 0, self.high_since, step)
            self.high_since = np.where(good, np.where(is_high, stretch, 0), self.high_since)
            lasts = step - self.high_since + 1 >= self.steps_to_stop
            self.diverged = self.diverged | (good & (self.high_since > 0) & lasts)
        self.diverged = self.diverged | (np.greater_equal(bad_steps, BAD_STEPS_STOP) & running)

    def progress(self) -> dict[str, NDArray[Any]]:
        """Return what a checkpoint holds, ``{"first", "high_since", "diverged"}``."""
        return {name: np.array(getattr(self, name)) for name in ("first", "high_since", "diverged")}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Go on from what :meth:`progress` has returned."""
        self.first, self.high_since, self.diverged = (
            np.array(progress[name]) for name in ("first", "high_since", "diverged")
        )
        self.limit = self._limit()

    def _limit(self) -> NDArray[Any]:
        return np.where(self._factor > 0, self._factor * np.maximum(self.first, 1.0), np.inf)


def steps_to_stop(steps_per_epoch: int) -> int:
    """Return how many steps in a row may have a task loss above the limit: 100, or those of three epochs if fewer."""
    return min(HIGH_STEPS_STOP, HIGH_EPOCHS_STOP * steps_per_epoch)


def evaluate(
    config: Config,
    batches: Iterable[Mapping[str, np.ndarray]],
    eval_step: Callable[[int, Mapping[str, np.ndarray]], dict[str, jax.Array]],
    check: Callable[[], None],
) -> dict[str, NDArray[Any]]:
    """Evaluate batch after batch, and return what :func:`measured` does.

    Args:
      config: gives the task.
      batches: on the host.
      eval_step: maps the number of a batch and the batch to its sums.
      check: called before each batch; may raise an exception to stop the evaluation.
    """
    sums: list[dict[str, jax.Array]] = []
    for number, batch in enumerate(batches):
        check()
        sums.append(eval_step(number, batch))
        jax.block_until_ready(sums[-2:-1])  # at most two batches are in flight
    return measured(config, jax.tree.map(lambda *values: np.array(values, float), *jax.device_get(sums)))


def measured(config: Config, of_batches: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return ``{count, MEASURE, loss}`` of the sums of batches ``[batches, ...]`` (:func:`csbp_jax.learner.eval_step`).

    The measures are those of the task (:func:`csbp_jax.learner.measures.measures`).
    """
    count = of_batches["count"].sum(axis=0)
    of_task = measures.measures(config, dict(of_batches))
    return {"count": count, **of_task, "loss": of_batches["loss"].sum(axis=0) / count}


def is_better(accuracy: Any, loss: Any, best_accuracy: Any, best_loss: Any) -> Any:
    """Return whether a validation beats the best so far: by accuracy, or F1 or R2, then by a lower loss.

    A loss that is not finite loses to any that is.
    """
    finite, best_finite = np.isfinite(loss), np.isfinite(best_loss)
    higher = (accuracy > best_accuracy) | ((accuracy == best_accuracy) & (loss < best_loss))
    return ((finite == best_finite) & higher) | ((finite != best_finite) & finite)


def is_over(config: Config, epochs: Any, selected: Any) -> Any:
    """Return whether a run has trained for enough epochs, the best of which is ``selected``."""
    out_of_patience = (config.patience > 0) & (epochs - selected >= config.patience)
    return (epochs >= config.epochs) | out_of_patience


def no_selection(weights: dict[str, Any], shape: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the selection before the first epoch has ended, with ``weights`` in the place of the selected ones."""
    return {name: np.full(shape, value) for name, value in NO_EPOCH.items()} | weights


def select(
    chosen: dict[str, Any],
    weights: dict[str, Any],
    epoch: int,
    validation: Mapping[str, Any],
    replace: Callable[[NDArray[np.bool_], dict[str, Any], dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Return the selection after an epoch: its weights and its validation, where this is better than the best before.

    Args:
      chosen: the selection before, ``{epoch, accuracy, loss}`` and the weights.
      weights: after the epoch.
      epoch: its number, from 1 on.
      validation: its measures by their names.
      replace: maps ``(better, new weights, old weights)`` to those that are selected, as copies, since the next step
        reuses the memory of the new ones; called if any is better.
    """
    numbers = {"epoch": epoch, "accuracy": validation[primary(validation, "")], "loss": validation["loss"]}
    before = {name: np.asarray(chosen[name]) for name in numbers}
    better = is_better(numbers["accuracy"], numbers["loss"], before["accuracy"], before["loss"])
    after = {name: np.where(better, numbers[name], before[name]) for name in numbers}
    old = selected_weights(chosen)
    return after | (replace(better, weights, old) if np.any(better) else old)


def selected_weights(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a selection."""
    return {name: value for name, value in chosen.items() if name not in NO_EPOCH}


Tested = tuple[State, Any, str]
"""A state with the weights that are tested, their epoch, and the prefix of their validation in its row."""


def tested_weights(config: Config, state: State, epoch: Any, chosen: dict[str, Any]) -> dict[str, Tested]:
    """Return the kinds of weights that are tested: of the last epoch, of the chosen one, and their moving averages.

    Args:
      config: tells whether there are moving averages.
      state: after the last step.
      epoch: the number of the last epoch.
      chosen: the selection.
    """
    of_chosen = dataclasses.replace(state, **selected_weights(chosen))
    kinds = {"last": (state, epoch, "validation_"), "chosen": (of_chosen, chosen["epoch"], "validation_")}
    if config.optimizer.ema:
        kinds["ema"] = (learner.with_ema_weights(state), epoch, "ema_validation_")
    return kinds
