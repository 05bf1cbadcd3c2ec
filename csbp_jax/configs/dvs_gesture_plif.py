"""DVS-Gesture, the convolutional network of the PLIF paper, T = 20.

    make train DATASET=dvs_gesture_plif       # CSBP
    make train DATASET=dvs_gesture_plif_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 97.57 % (best on test) and
96.53 % (chosen by validation), PLIF's own.
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

Known, inferred and different from the original: as in cifar10_plif, without augmentation; besides, recordings as cut
for tonic (1,077 + 264; theirs are 1,176 + 288).
"""

import dataclasses

from csbp_jax.config import Data
from csbp_jax.configs.cifar10_plif import config as cifar10

config = dataclasses.replace(
    cifar10,
    data=Data(name="dvs_gesture"),
    eval_batch_size=24,
    model=dataclasses.replace(
        cifar10.model, name="plif_dvs_gesture", input_shape=(128, 128, 2), time_steps=20, classes=11
    ),
)
