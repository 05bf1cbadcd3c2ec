"""DVS-CIFAR10, TEBN CNN7, T = 10: the same config as cifar10_dvs_tebn_cnn7.

    make train DATASET=cifar10_dvs          # CSBP
    make train DATASET=cifar10_dvs_bp       # baseline: plain backpropagation, z0 = 0
    make train DATASET=cifar10_dvs_small    # a small network of our own

The docstring of cifar10_dvs_tebn_cnn7 says which values are known and which are inferred.
"""

from csbp_jax.configs.cifar10_dvs_tebn_cnn7 import config

__all__ = ["config"]
