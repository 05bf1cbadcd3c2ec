"""DVS-CIFAR10, TEBN CNN7, T = 10: the one experiment whose training script the authors of CSBP released.

    make train DATASET=cifar10_dvs_tebn_cnn7       # CSBP
    make train DATASET=cifar10_dvs_tebn_cnn7_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 81.7 % (80.85), baseline 79.6 (78.91).
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.018 z0.

- Known: network, optimizer, batch size, epochs, seed, beta, cut, both taps, the sum of their z0 (30), augmentation per
  batch.
- Inferred: z0 is 15 on each tap (30 on one fits their log as well); antialiasing of the resize.
- Differs from the original: a tenth of the training split is used for validation.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="cifar10_dvs", size=(48, 48), resize="antialias", augment=("batch_crop_flip",)),
    seed=1000,
    epochs=200,
    batch_size=32,
    eval_batch_size=100,
    model=Model(name="cnn7", input_shape=(48, 48, 2), classes=10, time_steps=10),
    chaos=Chaos(z0=(15.0, 15.0), beta=0.98, taps=("conv1.membrane", "fc1.dense"), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
)
