"""DVS-CIFAR10, SEW Wide-7B-Net with PLIF neurons, T = 16.

make train DATASET=cifar10_dvs_sew_wide_7b_t16       CSBP    no result was found
make train DATASET=cifar10_dvs_sew_wide_7b_t16_bp    BP twin SEW's log: 74.4 (best on test), 73.35 (mean of last 10)
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

Known: network, neuron, optimizer, schedule, batch, epochs, mixed precision (SEW's recipe); no augmentation, 128x128.
Inferred: z0, beta and tap, from the authors' DVS-Gesture run.
Different here: a tenth of the training part is held out for validation; bfloat16 in place of float16."""

import dataclasses

from csbp_jax.configs.cifar10_dvs_sew_wide_7b_t4 import config as t4

config = dataclasses.replace(t4, model=dataclasses.replace(t4.model, time_steps=16))
