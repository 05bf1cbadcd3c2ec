"""XOR as in the CBP paper: a sigmoid 2-2-1 net, the published table, and controls; docs/results/cbp/plan.md."""
