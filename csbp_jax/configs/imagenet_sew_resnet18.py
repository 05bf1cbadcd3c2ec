"""ImageNet, SEW-ResNet-18, T = 4.

make train DATASET=imagenet_sew_resnet18       CSBP    the authors' logs are not in their repository
make train DATASET=imagenet_sew_resnet18_bp    BP twin SEW's own: 63.18 %
Run by us: no (needs the data and accelerators). SEW trained on 8 GPUs, hours not stated. z at the end: 0.09 z0.

Known: network, neuron, optimizer, schedule, epochs, batch 8 x 32, mixed precision (SEW's recipe).
Inferred: all of the chaos term, from the authors' TEBN run on ImageNet.
Different here: a tenth of the training part is held out for validation; bfloat16 in place of float16; batch norm over
the whole batch in place of each GPU's."""

import dataclasses

from csbp_jax.configs.imagenet_tebn_resnet34 import config as tebn

model = dataclasses.replace(tebn.model, name="sew_resnet18", norm=None, precision="bfloat16")
config = dataclasses.replace(tebn, epochs=320, model=model)
