"""CIFAR-10, Spike-driven Transformer-2-512, T = 4.

    make train DATASET=cifar10_sdt_2_512       # CSBP
    make train DATASET=cifar10_sdt_2_512_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 95.6 %, published by SDT (second-hand).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.0023 z0.

- Known, from SDT's code: network, neuron, optimizer, batch size, epochs, kinds of augmentation, float32.
- Inferred: all of the chaos term, from cifar100_tebn_resnet19.
- Differs from the original: as in cifar10_spikformer_4_384, but its RandAugment has timm's 15 operations.
"""

import dataclasses

from csbp_jax.configs.cifar10_spikformer_4_384 import config as spikformer

config = dataclasses.replace(
    spikformer,
    data=dataclasses.replace(spikformer.data, augment=("flip", "randaugment", "mixup")),
    batch_size=64,
    model=dataclasses.replace(spikformer.model, name="sdt_cifar", precision="float32"),
    optimizer=dataclasses.replace(spikformer.optimizer, lr=3e-4),
)
