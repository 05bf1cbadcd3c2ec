"""The arms with the draw of settings counted as chance, by docs/results/arms/plan.md."""
