"""CIFAR-10, the convolutional network of the PLIF paper, T = 8.

    make train DATASET=cifar10_plif       # CSBP
    make train DATASET=cifar10_plif_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 93.50 % (best on test) and
92.58 % (chosen by validation), PLIF's own.
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.038 z0.

- Known: network (the article's), neuron, loss, optimizer, batch size, augmentation
  (github.com/fangwei123456/Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron).
- Inferred: all of the chaos term, from the authors' DVS-Gesture run.
- Differs from the original: the learning rate falls once along a cosine, over the 64 epochs of its half period, in
  place of up to 1,024 epochs in which it falls and rises; a tenth of the training split is used for validation.
"""

from csbp_jax.config import Chaos, Config, Data, Loss, Model, Neuron, Optimizer

config = Config(
    data=Data(name="cifar10", normalise="standard", augment=("crop", "flip")),
    epochs=64,
    batch_size=16,
    eval_batch_size=256,
    log_every=100,
    model=Model(
        name="plif_cifar10",
        input_shape=(32, 32, 3),
        classes=10,
        time_steps=8,
        neuron=Neuron(
            decay=0.5,
            learn="layer",
            surrogate="arctan",
            surrogate_param=2.0,
            detach_reset=True,
            at_threshold="fire",
        ),
    ),
    chaos=Chaos(z0=(15.0,), beta=0.95, taps=("conv1.norm",), cut=(-10.0, 9.9)),
    loss=Loss(name="mse"),
    optimizer=Optimizer(name="adam", lr=0.001),
)
