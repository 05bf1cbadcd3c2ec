"""What a trained run does: evaluate, predict, inspect, compare, report."""
