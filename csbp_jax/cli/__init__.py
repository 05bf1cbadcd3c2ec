"""The command line, ``python -m csbp_jax COMMAND``."""
