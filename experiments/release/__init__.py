"""Chaos in the released experiment, and in small nets; docs/results/released_code/fixed_batch/plan.md."""
