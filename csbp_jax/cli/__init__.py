"""The command line, ``csbp_jax COMMAND``."""

from csbp_jax.config import extras

extras.need("train", "the command line")
