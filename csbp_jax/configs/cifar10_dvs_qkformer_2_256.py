"""DVS-CIFAR10, QKFormer (HST-2-256), T = 16.

    make train DATASET=cifar10_dvs_qkformer_2_256       # CSBP
    make train DATASET=cifar10_dvs_qkformer_2_256_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 84.0 %, of QKFormer's article.
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.14 z0.

Known, inferred and different from the original: as in cifar10_dvs_spikformer_2_256, but from QKFormer's code, and with
the neurons of qkformer.py's docstring.
"""

import dataclasses

from csbp_jax.configs.cifar10_dvs_spikformer_2_256 import config as spikformer

config = dataclasses.replace(
    spikformer,
    model=dataclasses.replace(spikformer.model, name="qkformer_dvs"),
    optimizer=dataclasses.replace(spikformer.optimizer, lr=5e-3),
)
