"""As ``digits_sequential``, with the pixels in an order that is random, and the same for all pictures."""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.digits_sequential import config as digits_sequential

config = dataclasses.replace(digits_sequential, data=Data(name="digits_permuted"))
