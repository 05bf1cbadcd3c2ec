"""Chaos of a set strength: z controlled so that the local exponent follows a path; docs/results/steering/plan.md."""
