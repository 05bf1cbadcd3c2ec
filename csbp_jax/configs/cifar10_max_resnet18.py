"""CIFAR-10, Max-ResNet-18, T = 4.

    make train DATASET=cifar10_max_resnet18       # CSBP
    make train DATASET=cifar10_max_resnet18_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 97.17 %, published by Max-ResNet.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 3.1e-4 z0.

- Known: network, neuron, optimizer, warm-up, epochs, batch size, RandAugment, random erasing, label smoothing, mixup in
  the first half of training (github.com/bic-L/MaxFormer).
- Inferred: the crop, which is not among its settings; all of the chaos term, from the authors' TEBN run on CIFAR-100;
  the tap is the first neuron.
- Differs from the original, timm's augmentation: mixup alone, with a uniform proportion for each example, in place of
  mixup or cutmix with one from Beta(0.5, 0.5) for a batch; torchvision's RandAugment on every image, where the original
  changes every second image, by 9 of timm's 10, which is 27 of torchvision's 30; TET's deviations of colours; a rate
  that ends at 0 in place of 1e-5; weight decay of all parameters; bfloat16 in place of float16; a tenth of the training
  split is used for validation.
"""

import dataclasses

from csbp_jax.config import Config, Data, Loss, Model, Neuron, Optimizer
from csbp_jax.configs.cifar100_tebn_resnet19 import config as tebn

config = Config(
    data=Data(
        name="cifar10",
        normalise="standard",
        augment=("crop", "flip", "randaugment", "random_erasing", "mixup"),
        randaugment_operations=1,
        randaugment_magnitude=27,
        mix_off_epochs=200,
    ),
    epochs=400,
    batch_size=128,
    eval_batch_size=500,
    model=Model(
        name="max_resnet18",
        input_shape=(32, 32, 3),
        classes=10,
        time_steps=4,
        precision="bfloat16",
        neuron=Neuron(
            decay=0.5,
            scale_input=True,
            surrogate="sigmoid",
            surrogate_param=4.0,
            detach_reset=True,
            at_threshold="fire",
        ),
    ),
    chaos=dataclasses.replace(tebn.chaos, taps=("stage1_block1_spike1.membrane",)),
    loss=Loss(smoothing=0.1),
    optimizer=Optimizer(name="adamw", lr=0.0015, weight_decay=0.06, warmup_epochs=20),
)
