"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. CNN7 of the TEBN paper with integer neurons, for a CPU: T = 1, up to 4 spikes.

Neurons, time step and chaos term are those of ``cifar10_ilif``; batch norm in place of TEBN, which are equal but for a
factor when T = 1.
"""

import dataclasses

from csbp_jax.config import Loss, Optimizer
from csbp_jax.configs.cifar10_ilif import config as ilif

config = dataclasses.replace(
    ilif,
    epochs=36,
    model=dataclasses.replace(ilif.model, name="cnn7", features=None, norm="batch"),
    loss=Loss(smoothing=0.1),
    optimizer=Optimizer(name="adamw", lr=0.002, weight_decay=0.05, warmup_epochs=1),
)
