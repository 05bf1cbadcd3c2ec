"""The content of ``result.json``: the test of each kind of weights of a run."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from csbp_jax.data import DataSource
from csbp_jax.learner import State
from csbp_jax.reporting.measures import names
from csbp_jax.training.compiled import CompiledRun
from csbp_jax.training.progress import tested_weights


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
      chosen: the weights of the best validation epoch, as :func:`csbp_jax.training.progress.select` returns them.
      test: the test split.
      rows: of its ``metrics.jsonl``.
      check: called between batches; may raise to stop.
    """
    epoch_rows = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    last_epoch = int(state.step) // run.steps_per_epoch
    result = {"seconds": rows[-1]["seconds"], "gradient_norms": rows[0]["gradient_norms"]}
    tested: dict[tuple[int, str], dict[str, float]] = {}
    for kind, (weights, at, prefix) in tested_weights(run.config, state, last_epoch, chosen).items():
        epoch = int(at)
        if (epoch, prefix) not in tested:  # the chosen epoch may be the last
            tested[epoch, prefix] = run.evaluate(weights, test, check)
        numbers = tested[epoch, prefix]
        measured = names(numbers, "")
        result[kind] = {
            "epoch": epoch,
            **{f"validation_{name}": epoch_rows[epoch][f"{prefix}{name}"] for name in measured},
            **{f"test_{name}": numbers[name] for name in measured},
            "test_loss": numbers["loss"],
            "test_count": numbers["count"],
        }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.asarray(run.replicate(leaf)).tobytes())
    return result | {"params_sha256": digest.hexdigest()}
