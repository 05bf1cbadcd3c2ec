"""CIFAR-100, Spikformer-4-384, T = 4: the recipe of cifar10_spikformer_4_384.

    make train DATASET=cifar100_spikformer_4_384       # CSBP
    make train DATASET=cifar100_spikformer_4_384_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 77.86 %, of Spikformer's article (400 epochs: 78.21).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.0023 z0.

All of the chaos term is inferred. Spikformer's code has no file of its own for CIFAR-100.
"""

import dataclasses

from csbp_jax.configs.cifar10_spikformer_4_384 import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=dataclasses.replace(cifar10.data, name="cifar100"),
    model=dataclasses.replace(cifar10.model, classes=100),
)
