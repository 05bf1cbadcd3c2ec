"""CIFAR-100, QKFormer (HST-4-384), T = 4: the recipe of cifar10_qkformer_4_384.

    make train DATASET=cifar100_qkformer_4_384       # CSBP
    make train DATASET=cifar100_qkformer_4_384_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 81.15 %, of QKFormer's article.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.00031 z0.

Known, inferred and different from the original: as in cifar10_qkformer_4_384.
"""

import dataclasses

from csbp_jax.configs.cifar10_qkformer_4_384 import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=dataclasses.replace(cifar10.data, name="cifar100"),
    model=dataclasses.replace(cifar10.model, classes=100),
)
