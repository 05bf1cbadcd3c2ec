"""CIFAR-100, ResNet-19 with TEBN, T = 6: the same config as cifar100_tebn_resnet19.

    make train DATASET=cifar100          # CSBP
    make train DATASET=cifar100_bp       # baseline: plain backpropagation, z0 = 0
    make train DATASET=cifar100_small    # a small network of our own

The docstring of cifar100_tebn_resnet19 says which values are known and which are inferred.
"""

from csbp_jax.configs.cifar100_tebn_resnet19 import config

__all__ = ["config"]
