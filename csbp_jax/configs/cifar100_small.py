"""CIFAR-100, 32x32 RGB, 50,000 + 10,000. A small network of our own; the recipe of cifar10_small."""

import dataclasses

from csbp_jax.configs.cifar10_small import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=dataclasses.replace(cifar10.data, name="cifar100"),
    model=dataclasses.replace(cifar10.model, classes=100),
)
