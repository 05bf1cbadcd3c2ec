"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. ``cifar10_ilif`` with maximum pooling, label smoothing and dropout, on a CPU."""

import dataclasses

from csbp_jax.configs import cifar10_ilif

_ilif = cifar10_ilif.config

config = dataclasses.replace(
    _ilif,
    epochs=26,
    model=dataclasses.replace(_ilif.model, pool="max", dropout=0.2),
    loss=dataclasses.replace(_ilif.loss, smoothing=0.1),
)
