"""Runs as data: one run with its network, a table of runs, and the differences between its arms."""

from csbp_jax.config import extras

extras.need("train", "csbp_jax.runs")  # before what imports pandas

from csbp_jax.runs.contrast import Contrast  # noqa: E402
from csbp_jax.runs.run import Run  # noqa: E402
from csbp_jax.runs.table import RunTable  # noqa: E402

__all__ = ["Contrast", "Run", "RunTable"]
