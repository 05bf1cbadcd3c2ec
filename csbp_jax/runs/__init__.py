"""Runs as data: one run, a table of runs, and the differences between its arms."""

from csbp_jax.runs.contrast import Contrast
from csbp_jax.runs.run import Run
from csbp_jax.runs.table import RunTable

__all__ = ["Contrast", "Run", "RunTable"]
