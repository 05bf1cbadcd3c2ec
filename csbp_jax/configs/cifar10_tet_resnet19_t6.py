"""CIFAR-10, ResNet-19 with TET, T = 6: the recipe of cifar100_tet_resnet19_t6.

    make train DATASET=cifar10_tet_resnet19_t6       # CSBP
    make train DATASET=cifar10_tet_resnet19_t6_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 94.50 %, published by TET (second-hand).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.35 z0.

All of the chaos term is inferred, from CIFAR-100.
"""

import dataclasses

from csbp_jax.configs.cifar100_tet_resnet19_t6 import config as cifar100

config = dataclasses.replace(
    cifar100,
    data=dataclasses.replace(cifar100.data, name="cifar10"),
    model=dataclasses.replace(cifar100.model, classes=10),
)
