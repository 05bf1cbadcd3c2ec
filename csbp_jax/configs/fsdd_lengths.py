"""The recordings of ``fsdd`` in as many frames of 20 ms as each lasts, up to 115, in place of 40 equal parts."""

import dataclasses

from csbp_jax.configs.fsdd import config as fsdd

config = dataclasses.replace(
    fsdd,
    data=dataclasses.replace(fsdd.data, bins="own", window=20_000),
    model=dataclasses.replace(fsdd.model, time_steps=115),
)
