"""DVS-CIFAR10, the convolutional network of the PLIF paper, T = 20.

    make train DATASET=cifar10_dvs_plif       # CSBP
    make train DATASET=cifar10_dvs_plif_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 74.80 % (best on test) and
69.00 % (chosen by validation), PLIF's own.
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

Known, inferred and different from the original: as in cifar10_plif, without augmentation.
"""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.cifar10_plif import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=Data(name="cifar10_dvs"),
    eval_batch_size=50,
    model=dataclasses.replace(cifar10.model, name="plif_cifar10_dvs", input_shape=(128, 128, 2), time_steps=20),
)
