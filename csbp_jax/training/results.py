"""The content of ``result.json``: the test of each kind of weights of a run."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from csbp_jax.data import DataSource
from csbp_jax.reporting.measures import names
from csbp_jax.training import epochs
from csbp_jax.training.compiled import CompiledRun
from csbp_jax.training.epochs import Session
from csbp_jax.training.lifts import Alone


def test_results(
    run: CompiledRun, session: Session, test: DataSource, rows: list[dict[str, Any]], check: Callable[[], None]
) -> dict[str, Any]:
    """Return the content of ``result.json``: the test of each kind of weights, never the best over the test split.

    Args:
      run: the functions of the run.
      session: after the last epoch.
      test: the test split.
      rows: of its ``metrics.jsonl``.
      check: called between batches; may raise to stop.
    """
    epoch_rows = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    result = {"seconds": rows[-1]["seconds"], "gradient_norms": rows[0]["gradient_norms"]}
    for kind, (at, prefix, numbers) in epochs.test(Alone(run), session, test, check).items():
        epoch, measured = int(at), names(numbers, "")
        result[kind] = {
            "epoch": epoch,
            **{f"validation_{name}": epoch_rows[epoch][f"{prefix}{name}"] for name in measured},
            **{f"test_{name}": numbers[name] for name in measured},
            "test_loss": numbers["loss"],
            "test_count": numbers["count"],
        }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(session.state.params):
        digest.update(np.asarray(run.replicate(leaf)).tobytes())
    return result | {"params_sha256": digest.hexdigest()}
