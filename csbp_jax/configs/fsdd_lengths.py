"""The recordings of ``fsdd`` in frames of 20 ms, each as long as it lasts: 7 to 115 frames, in place of 40 frames that
last as long as the recording needs.
"""

import dataclasses

from csbp_jax.configs.fsdd import config as fsdd

config = dataclasses.replace(
    fsdd,
    data=dataclasses.replace(fsdd.data, bins="own", window=20_000),
    model=dataclasses.replace(fsdd.model, time_steps=115),
)
