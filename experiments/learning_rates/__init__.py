"""Time to accuracy and Lyapunov exponents over learning rates, with sub-steps of the task's own gradient."""
