"""ImageNet, SEW-ResNet-34, T = 4: the same config as imagenet_sew_resnet34.

    make train DATASET=imagenet          # CSBP
    make train DATASET=imagenet_bp       # baseline: plain backpropagation, z0 = 0
    make train DATASET=imagenet_small    # a small network of our own

The docstring of imagenet_sew_resnet34 says which values are known and which are inferred.
"""

from csbp_jax.configs.imagenet_sew_resnet34 import config

__all__ = ["config"]
