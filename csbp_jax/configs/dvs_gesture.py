"""DVS-Gesture, SEW 7B-Net with PLIF neurons, T = 16: the same config as dvs_gesture_sew_7b.

    make train DATASET=dvs_gesture          # CSBP
    make train DATASET=dvs_gesture_bp       # baseline: plain backpropagation, z0 = 0
    make train DATASET=dvs_gesture_small    # a small network of our own

The docstring of dvs_gesture_sew_7b says which values are known and which are inferred.
"""

from csbp_jax.configs.dvs_gesture_sew_7b import config

__all__ = ["config"]
