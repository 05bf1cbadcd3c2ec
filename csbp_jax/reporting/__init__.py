"""What a user sees of a run: the terminal, plots, numbers with their intervals."""
