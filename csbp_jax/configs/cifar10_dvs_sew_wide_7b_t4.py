"""DVS-CIFAR10, SEW Wide-7B-Net with PLIF neurons, T = 4.

    make train DATASET=cifar10_dvs_sew_wide_7b_t4       # CSBP
    make train DATASET=cifar10_dvs_sew_wide_7b_t4_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 73.5 % (71.1), baseline not found.
Run by us: no (needs the data and an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

- Known: network, neuron, optimizer, schedule, batch size, epochs, mixed precision (SEW's recipe); no augmentation,
  128x128 pixels.
- Inferred: z0, beta and tap, from the authors' DVS-Gesture run.
- Differs from the original: a tenth of the training split is used for validation; bfloat16 in place of float16.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="cifar10_dvs"),
    seed=2020,
    epochs=64,
    batch_size=16,
    eval_batch_size=50,
    model=Model(
        name="sew_wide_7b",
        neuron=Neuron(
            decay=0.5,
            learn="layer",
            surrogate="arctan",
            surrogate_param=2.0,
            detach_reset=True,
            at_threshold="fire",
        ),
        input_shape=(128, 128, 2),
        classes=10,
        time_steps=4,
        precision="bfloat16",
    ),
    chaos=Chaos(z0=(15.0,), beta=0.95, taps=("conv1.norm",), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="sgd", lr=0.01, momentum=0.9),
)
