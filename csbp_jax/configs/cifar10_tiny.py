"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. Half the channels of ``cifar10_ilif``, for ten minutes of one core."""

import dataclasses

from csbp_jax.config import Data, Optimizer
from csbp_jax.configs.cifar10_ilif import config as ilif

config = dataclasses.replace(
    ilif,
    epochs=8,
    data=Data(name="cifar10", normalise="standard", augment=("flip",)),
    model=dataclasses.replace(ilif.model, features=(32, 64, 128, 256)),
    optimizer=Optimizer(name="adamw", lr=0.004, weight_decay=0.01, warmup_epochs=1),
)
