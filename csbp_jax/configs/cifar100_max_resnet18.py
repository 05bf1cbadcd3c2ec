"""CIFAR-100, Max-ResNet-18, T = 4.

    make train DATASET=cifar100_max_resnet18       # CSBP
    make train DATASET=cifar100_max_resnet18_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 83.06 %, published by Max-ResNet.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 3.1e-4 z0.

Known, inferred and different from the original: as in cifar10_max_resnet18, with Beta(0.75, 0.75) for mixup,
which is on for 250 epochs.
"""

import dataclasses

from csbp_jax.configs.cifar10_max_resnet18 import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=dataclasses.replace(cifar10.data, name="cifar100", mix_off_epochs=150),
    batch_size=64,
    model=dataclasses.replace(cifar10.model, classes=100),
)
