"""Which weights a run reports: last epoch, best validation epoch, or EMA."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from csbp_jax import learner
from csbp_jax.config import Config
from csbp_jax.data import DataSource
from csbp_jax.learner import State
from csbp_jax.reporting.measures import names, primary
from csbp_jax.training.compiled import CompiledRun

NO_EPOCH = {"epoch": 0, "accuracy": -1.0, "loss": math.inf}
"""The selection before the first epoch has ended; ``accuracy`` stands for the measure of the run's task."""


def is_better(accuracy: Any, loss: Any, best_accuracy: Any, best_loss: Any) -> Any:
    """Return whether a validation beats the best so far: by accuracy, or F1 or R2, then by a lower loss.

    A loss that is not finite loses to any that is. Works on numbers and on arrays, traced ones too.
    """
    finite, best_finite = abs(loss) < math.inf, abs(best_loss) < math.inf
    higher = (accuracy > best_accuracy) | ((accuracy == best_accuracy) & (loss < best_loss))
    return ((finite == best_finite) & higher) | ((finite != best_finite) & finite)


def is_over(config: Config, epochs: int, selected: int) -> bool:
    """Return whether a run has trained for enough epochs, the best of which is ``selected``."""
    return epochs >= config.epochs or (config.patience > 0 and epochs - selected >= config.patience)


def select(weights: dict[str, Any], epoch: int, validation: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a state's weights, since the step donates its own, with the epoch and its validation."""
    copies: dict[str, Any] = jax.tree.map(jnp.copy, weights)
    return summary(epoch, validation) | copies


def summary(epoch: ArrayLike, validation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the epoch and its validation, as arrays."""
    numbers = {"epoch": epoch, "accuracy": validation[primary(validation, "")], "loss": validation["loss"]}
    return {name: np.asarray(value) for name, value in numbers.items()}


def update(
    selected: dict[str, Any], weights: dict[str, Any], epoch: int, validation: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the selection after an epoch: its weights, if it validated better than the best before."""
    accuracy, loss = float(selected["accuracy"]), float(selected["loss"])
    better = is_better(validation[primary(validation, "")], validation["loss"], accuracy, loss)
    return select(weights, epoch, validation) if better else selected


def test_results(
    run: CompiledRun,
    state: State,
    chosen: dict[str, Any],
    test: DataSource,
    rows: list[dict[str, Any]],
    check: Callable[[], None],
) -> dict[str, Any]:
    """Return the content of ``result.json``: the test of each kind of weights, never the best over the test split.

    Args:
      run: the functions of the run.
      state: after the last step.
      chosen: the weights of the best validation epoch, as :func:`select` returns them.
      test: the test split.
      rows: of its ``metrics.jsonl``.
      check: called between batches; may raise to stop.
    """
    epoch_rows = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    last_epoch, selected_epoch = int(state.step) // run.steps_per_epoch, int(chosen["epoch"])
    selected_state = dataclasses.replace(state, params=chosen["params"], batch_stats=chosen["batch_stats"])
    kinds = [("last", state, last_epoch, ""), ("chosen", selected_state, selected_epoch, "")]
    if run.config.optimizer.ema:
        kinds.append(("ema", learner.with_ema_weights(state), last_epoch, "ema_"))
    result = {"seconds": rows[-1]["seconds"], "gradient_norms": rows[0]["gradient_norms"]}
    tested: dict[tuple[int, str], dict[str, float]] = {}
    for kind, weights, epoch, prefix in kinds:
        if (epoch, prefix) not in tested:  # the chosen epoch may be the last
            tested[epoch, prefix] = run.evaluate(weights, test, check)
        numbers = tested[epoch, prefix]
        measured = names(numbers, "")
        result[kind] = {
            "epoch": epoch,
            **{f"validation_{name}": epoch_rows[epoch][f"{prefix}validation_{name}"] for name in measured},
            **{f"test_{name}": numbers[name] for name in measured},
            "test_loss": numbers["loss"],
            "test_count": numbers["count"],
        }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.asarray(run.replicate(leaf)).tobytes())
    return result | {"params_sha256": digest.hexdigest()}
