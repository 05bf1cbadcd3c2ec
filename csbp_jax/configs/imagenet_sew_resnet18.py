"""ImageNet, SEW-ResNet-18, T = 4.

    make train DATASET=imagenet_sew_resnet18       # CSBP
    make train DATASET=imagenet_sew_resnet18_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP not found, the authors' logs are not in their repository; baseline 63.18 %, SEW's own.
Run by us: no (needs the data and accelerators). SEW trained on 8 GPUs, hours not stated. z at the end: 0.09 z0.

- Known: network, neuron, optimizer, schedule, epochs, batch size 8 x 32, norms over each GPU's 32 images
  (`sync_bn=False`), mixed precision (SEW's recipe and logs).
- Inferred: all of the chaos term, from the authors' TEBN run on ImageNet.
- Differs from the original: a tenth of the training split is used for validation; bfloat16 in place of float16.
"""

import dataclasses

from csbp_jax.configs.imagenet_tebn_resnet34 import config as tebn

model = dataclasses.replace(tebn.model, name="sew_resnet18", norm=None, precision="bfloat16")
config = dataclasses.replace(tebn, epochs=320, model=model)
