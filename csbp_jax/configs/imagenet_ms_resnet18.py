"""ImageNet, MS-ResNet-18, T = 6.

    make train DATASET=imagenet_ms_resnet18       # CSBP
    make train DATASET=imagenet_ms_resnet18_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP not found; baseline not found.
Run by us: no (needs the data and accelerators). Hardware and hours: not stated. z at the end: 0.39 z0.

- Known: network, neuron, optimizer, schedule, epochs, batch size, norms over the batches of all GPUs, label smoothing,
  mixed precision (MS-ResNet's code, github.com/Ariande1/MS-ResNet).
- Inferred: all of the chaos term, from the authors' TEBN run on ImageNet; the tap is the first neuron.
- Differs from the original: AutoAugment's policy for CIFAR-10 in place of that for ImageNet; a tenth of the training
  split is used for validation; bfloat16 in place of float16.
"""

import dataclasses

from csbp_jax.config import Loss, Model, Neuron, Optimizer
from csbp_jax.configs.imagenet_tebn_resnet34 import config as tebn

config = dataclasses.replace(
    tebn,
    data=dataclasses.replace(tebn.data, augment=("resized_crop", "autoaugment")),
    epochs=125,
    model=Model(
        name="ms_resnet18",
        input_shape=(224, 224, 3),
        classes=1000,
        time_steps=6,
        precision="bfloat16",
        neuron=Neuron(decay=0.25, threshold=0.5, surrogate="rectangle", surrogate_param=1.0, detach_reset=True),
    ),
    chaos=dataclasses.replace(tebn.chaos, taps=("stage1_block1_spike1.membrane",)),
    loss=Loss(smoothing=0.1),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-5),
)
