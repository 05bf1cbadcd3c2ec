"""XOR as in the CBP paper: a sigmoid 2-2-1 net, its table, and controls; docs/results/cbp/published/plan.md."""
