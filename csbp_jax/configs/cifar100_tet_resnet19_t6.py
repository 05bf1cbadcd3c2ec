"""CIFAR-100, ResNet-19 with TET, T = 6; known and inferred as in cifar100_tet_resnet19_t4.

    make train DATASET=cifar100_tet_resnet19_t6       # CSBP
    make train DATASET=cifar100_tet_resnet19_t6_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 75.92 % (75.64). Baseline: 74.72,
published by TET (second-hand).
Run by us: no (needs an accelerator). The authors' log has 270 s of training per epoch. z at the end: 0.35 z0.
"""

import dataclasses

from csbp_jax.configs.cifar100_tet_resnet19_t4 import config as t4

config = dataclasses.replace(t4, model=dataclasses.replace(t4.model, time_steps=6))
