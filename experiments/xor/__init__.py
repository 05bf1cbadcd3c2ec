"""XOR by a spiking 2-2-1 net, and control conditions for the chaos term; docs/results/xor/untuned/plan.md."""
