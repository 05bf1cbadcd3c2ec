"""N-MNIST, the convolutional network of the PLIF paper, T = 10.

    make train DATASET=nmnist_plif       # CSBP
    make train DATASET=nmnist_plif_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 99.61 % (best on test) and
99.57 % (chosen by validation), PLIF's own.
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

Known, inferred and different from the original: as in cifar10_plif, without augmentation.
"""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.cifar10_plif import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=Data(name="nmnist"),
    model=dataclasses.replace(cifar10.model, name="plif_mnist", input_shape=(34, 34, 2), time_steps=10),
)
