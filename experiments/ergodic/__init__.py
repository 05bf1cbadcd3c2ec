"""Whether training with the chaos term at fixed strength is ergodic and pseudo-random; docs/results/ergodic/plan.md."""
