"""Evaluation of trained runs: restore, evaluate, predict, inspect, compare, report."""
