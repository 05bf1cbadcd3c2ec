"""DVS-CIFAR10, SEW Wide-7B-Net with PLIF neurons, T = 8.

    make train DATASET=cifar10_dvs_sew_wide_7b_t8       # CSBP
    make train DATASET=cifar10_dvs_sew_wide_7b_t8_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 74.9 % (74.0). Baseline: 70.2,
published by SEW (second-hand).
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

- Known: network, neuron, optimizer, schedule, batch size, epochs, mixed precision (SEW's recipe); no augmentation,
  128x128 pixels.
- Inferred: z0, beta and tap, from the authors' DVS-Gesture run.
- Differs from the original: a tenth of the training split is used for validation; bfloat16 in place of float16.
"""

import dataclasses

from csbp_jax.configs.cifar10_dvs_sew_wide_7b_t4 import config as t4

config = dataclasses.replace(t4, model=dataclasses.replace(t4.model, time_steps=8))
