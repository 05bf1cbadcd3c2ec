"""Evaluation of trained runs: evaluate, predict, inspect, compare, report."""
