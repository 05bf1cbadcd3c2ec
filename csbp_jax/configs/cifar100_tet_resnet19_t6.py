"""CIFAR-100, ResNet-19 with TET, T = 6; known and inferred as in cifar100_tet_resnet19_t4.

make train DATASET=cifar100_tet_resnet19_t6       CSBP    their logs: 75.92 % (best on test), 75.64 (mean of last 10)
make train DATASET=cifar100_tet_resnet19_t6_bp    BP twin TET published 74.72 (second-hand)
Run by us: no (needs an accelerator). The authors' log has 270 s of training an epoch. z at the end: 0.35 z0."""

import dataclasses

from csbp_jax.configs.cifar100_tet_resnet19_t4 import config as t4

config = dataclasses.replace(t4, model=dataclasses.replace(t4.model, time_steps=6))
