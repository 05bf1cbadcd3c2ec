"""ImageNet, SEW-ResNet-101, T = 4.

    make train DATASET=imagenet_sew_resnet101       # CSBP
    make train DATASET=imagenet_sew_resnet101_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP not found; baseline 68.76 %, SEW's own.
Run by us: no (needs the data and accelerators). SEW trained on 8 GPUs, hours not stated. z at the end: 0.09 z0.

Known, inferred and different from the original: as in imagenet_sew_resnet18.
"""

import dataclasses

from csbp_jax.configs.imagenet_sew_resnet18 import config as resnet18

config = dataclasses.replace(resnet18, model=dataclasses.replace(resnet18.model, name="sew_resnet101"))
