"""CIFAR-10, ResNet-19 with TEBN, T = 6: the same config as cifar10_tebn_resnet19.

    make train DATASET=cifar10          # CSBP
    make train DATASET=cifar10_bp       # baseline: plain backpropagation, z0 = 0
    make train DATASET=cifar10_small    # a small network of our own

The docstring of cifar10_tebn_resnet19 says which values are known and which are inferred.
"""

from csbp_jax.configs.cifar10_tebn_resnet19 import config

__all__ = ["config"]
