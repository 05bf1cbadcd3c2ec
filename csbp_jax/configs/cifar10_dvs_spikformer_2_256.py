"""DVS-CIFAR10, Spikformer-2-256, T = 16.

    make train DATASET=cifar10_dvs_spikformer_2_256       # CSBP
    make train DATASET=cifar10_dvs_spikformer_2_256_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 80.9 %, of Spikformer's article (T = 10: 78.9).
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.14 z0.

- Known, from Spikformer's code: network, neuron, optimizer, epochs, batch size, mixed precision; attention's scale, 1/4
  (learned, in the article).
- Inferred: all of the chaos term, from cifar10_dvs_tebn_cnn7; the augmentation, nda for one of the same source.
- Differs from the original: as in cifar10_spikformer_4_384; mixup in every batch, not in every other one.
"""

import dataclasses

from csbp_jax.config import Chaos, Data, Optimizer
from csbp_jax.configs.cifar10_spikformer_4_384 import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=Data(name="cifar10_dvs", augment=("nda", "mixup")),
    epochs=96,
    batch_size=16,
    eval_batch_size=50,
    model=dataclasses.replace(cifar10.model, name="spikformer_dvs", input_shape=(128, 128, 2), time_steps=16),
    chaos=Chaos(z0=(15.0,), beta=0.98, taps=("stem1.membrane",), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=0.06, warmup_epochs=10),
)
