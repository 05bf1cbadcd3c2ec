"""Is the released experiment chaotic, and how strong must the term be? docs/results/release/plan.md."""
