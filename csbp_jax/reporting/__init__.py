"""Output for users: the terminal, plots, and numbers with their intervals."""

from csbp_jax.config import extras

extras.need("train", "csbp_jax.reporting")
