"""Chaos in the released experiment, and in small nets over the strength of the term; docs/results/release/plan.md."""
