"""The recordings of ``watch``, whose exercise is to be known at each step, from what was measured until then."""

import dataclasses

from csbp_jax.config import Loss
from csbp_jax.configs.watch import config as watch

config = dataclasses.replace(watch, loss=Loss(per="step"))
