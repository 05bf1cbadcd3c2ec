"""ImageNet, MS-ResNet-34, T = 6.

    make train DATASET=imagenet_ms_resnet34       # CSBP
    make train DATASET=imagenet_ms_resnet34_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP not found; baseline 69.42 %, MS-ResNet's own (second-hand).
Run by us: no (needs the data and accelerators). Hardware and hours: not stated. z at the end: 0.39 z0.

Known, inferred and different from the original: as in imagenet_ms_resnet18.
"""

import dataclasses

from csbp_jax.configs.imagenet_ms_resnet18 import config as resnet18

config = dataclasses.replace(resnet18, model=dataclasses.replace(resnet18.model, name="ms_resnet34"))
