"""As ``mnist_sequential``, with the pixels in an order that is random, and the same for all pictures."""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.mnist_sequential import config as mnist_sequential

config = dataclasses.replace(mnist_sequential, data=Data(name="mnist_permuted"))
