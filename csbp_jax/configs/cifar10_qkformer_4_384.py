"""CIFAR-10, QKFormer (HST-4-384), T = 4.

    make train DATASET=cifar10_qkformer_4_384       # CSBP
    make train DATASET=cifar10_qkformer_4_384_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 96.18 %, of QKFormer's article.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.00031 z0.

- Known, from QKFormer's code: network, neuron, optimizer, batch size, epochs, kinds of augmentation, mixed precision.
- Inferred: all of the chaos term, from cifar100_tebn_resnet19.
- Differs from the original: as in cifar10_spikformer_4_384, but its RandAugment has timm's 15 operations; and in the
  neurons of qkformer.py's docstring.
"""

import dataclasses

from csbp_jax.configs.cifar10_spikformer_4_384 import config as spikformer

config = dataclasses.replace(
    spikformer,
    data=dataclasses.replace(spikformer.data, mix_off_epochs=200),
    epochs=400,
    batch_size=64,
    model=dataclasses.replace(spikformer.model, name="qkformer_cifar"),
    optimizer=dataclasses.replace(spikformer.optimizer, lr=1e-3),
)
