"""CBP's own XOR: a sigmoid 2-2-1 net, its table, and controls. The plan is in docs/results/cbp/plan.md."""
