"""Attractors of training at a fixed strength, and their exponents; docs/results/bifurcations/plan.md."""
