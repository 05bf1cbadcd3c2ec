"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. ``cifar10_ilif`` with maximum pooling, label smoothing and cutout, on a CPU."""

import dataclasses

from csbp_jax.configs import cifar10_ilif

_ilif = cifar10_ilif.config

config = dataclasses.replace(
    _ilif,
    epochs=36,
    data=dataclasses.replace(_ilif.data, augment=("crop", "flip", "cutout")),
    model=dataclasses.replace(_ilif.model, pool="max"),
    loss=dataclasses.replace(_ilif.loss, smoothing=0.1),
)
