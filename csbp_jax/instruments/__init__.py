"""The laboratory: the instruments of dynamics on the training of a config, and on a network that runs."""

from csbp_jax.instruments.network import network_exponents

__all__ = ["network_exponents"]
