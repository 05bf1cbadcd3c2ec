"""Sweeps: every member of a grid, trained many at once where that is faster, and tabulated."""

from csbp_jax.sweep.driver import Comparison, run, run_shard
from csbp_jax.sweep.retraining import best
from csbp_jax.sweep.tables import Setting

__all__ = ["Comparison", "Setting", "best", "run", "run_shard"]
