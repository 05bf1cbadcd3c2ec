"""Fashion-MNIST, the convolutional network of the PLIF paper, T = 8.

    make train DATASET=fashion_mnist_plif       # CSBP
    make train DATASET=fashion_mnist_plif_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 94.38 % (best on test) and
93.85 % (chosen by validation), PLIF's own.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

Known, inferred and different from the original: as in cifar10_plif.
"""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.cifar10_plif import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=Data(name="fashion_mnist", normalise="standard"),
    model=dataclasses.replace(cifar10.model, name="plif_mnist", input_shape=(28, 28, 1), time_steps=8),
)
