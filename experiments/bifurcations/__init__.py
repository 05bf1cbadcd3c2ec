"""What training at a fixed strength visits, and how chaotic it is there; docs/results/bifurcations/plan.md."""
