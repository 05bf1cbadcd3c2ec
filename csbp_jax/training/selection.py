"""Whose weights a run is told by: the last epoch's, those of the epoch that validation chose, the moving average."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import learner
from csbp_jax.training.compiled import Program

NONE_YET = {"accuracy": -1.0, "loss": math.inf}
"""What validation says before the first epoch has ended."""


def of(state: learner.State, epoch: int, validation: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the weights (the step donates the state's own) and why they were chosen."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    return reasons(epoch, validation) | jax.tree.map(jnp.copy, weights)


def reasons(epoch: int, validation: Mapping[str, Any]) -> dict[str, Any]:
    """Of which epoch, and what validation said of it, as arrays."""
    kept = {"epoch": epoch, "accuracy": validation["accuracy"], "loss": validation["loss"]}
    return {name: np.asarray(value) for name, value in kept.items()}


def rank(validation: Mapping[str, Any]) -> tuple[bool, float, float]:
    """The larger, the better: by accuracy, then by a low loss; a loss that is not finite comes after all that are."""
    accuracy, loss = float(validation["accuracy"]), float(validation["loss"])
    return (True, accuracy, -loss) if math.isfinite(loss) else (False, accuracy, 0.0)


def tested(
    program: Program,
    saved: dict[str, Any],
    test: Sequence[Any],
    rows: list[dict[str, Any]],
    steps_per_epoch: int,
    check: Callable[[], None],
) -> dict[str, Any]:
    """What ``result.json`` holds: the accuracy of each kind of weights on the test part; never the best over test.

    Args:
      program: what the run computes.
      saved: what its last checkpoint holds.
      test: the test part of its data.
      rows: of its ``metrics.jsonl``.
      steps_per_epoch: steps an epoch has.
      check: called between batches; may raise.
    """
    state, chosen = saved["state"], saved["chosen"]
    epochs = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    result = {"seconds": rows[-1]["seconds"], "gradient_norms": rows[0]["gradient_norms"]}
    chosen_state = dataclasses.replace(state, params=chosen["params"], batch_stats=chosen["batch_stats"])
    last_epoch = int(state.step) // steps_per_epoch
    kinds = [("last", state, last_epoch, ""), ("chosen", chosen_state, int(chosen["epoch"]), "")]
    kinds += [("ema", learner.with_ema_weights(state), last_epoch, "ema_")] if state.ema else []
    for key, weights, epoch, prefix in kinds:
        found = program.evaluate(weights, test, check)
        result[key] = {
            "epoch": epoch,
            "validation_accuracy": epochs[epoch][f"{prefix}validation_accuracy"],
            "test_accuracy": found["accuracy"],
            "test_loss": found["loss"],
            "test_count": found["count"],
        }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.asarray(program.whole(leaf)).tobytes())
    return result | {"params_sha256": digest.hexdigest()}
