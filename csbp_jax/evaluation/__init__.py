"""Evaluation of trained runs: evaluate, predict, inspect, compare, report."""

from csbp_jax.config import extras

extras.need("train", "csbp_jax.evaluation")
