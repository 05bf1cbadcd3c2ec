"""CIFAR-10, ResNet-19 with TEBN, T = 6: the recipe of cifar100_tebn_resnet19.

    make train DATASET=cifar10_tebn_resnet19       # CSBP
    make train DATASET=cifar10_tebn_resnet19_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 94.71 %, published by TEBN (second-hand).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.018 z0.

All of the chaos term is inferred, from CIFAR-100.
"""

import dataclasses

from csbp_jax.configs.cifar100_tebn_resnet19 import config as cifar100

config = dataclasses.replace(
    cifar100,
    data=dataclasses.replace(cifar100.data, name="cifar10"),
    model=dataclasses.replace(cifar100.model, classes=10),
)
