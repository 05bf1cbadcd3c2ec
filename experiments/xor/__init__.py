"""Can a spiking 2-2-1 net learn XOR, and what helps? The plan is in docs/results/xor/plan.md."""
