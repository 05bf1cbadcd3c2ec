"""The command line, ``csbp_jax COMMAND``."""
