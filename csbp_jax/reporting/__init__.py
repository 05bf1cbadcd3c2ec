"""Output for users: the terminal, plots, and numbers with their intervals."""
