"""CIFAR-10's pictures as recorded by a synthetic event camera (data/events/camera.py), 16x16, in 10 frames.

``make data DATASET=cifar10_events FROM=~/downloads`` prepares CIFAR-10 and records 20,000 of its pictures, in some
minutes. The recipe is that of ``cifar10_dvs_tebn_cnn7``, which the authors of CSBP released, made small: a quarter of
the channels, and so a quarter of z0, which pulls a channel as hard; a crop padded by a twelfth of the frame, as there;
60 epochs in place of 200, with 0.018 z0 left at the end. One core trains it in 25 minutes. With plain backpropagation
(``cifar10_events_bp``) beside it: docs/results/events.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(
        name="cifar10_events",
        size=(16, 16),
        augment=("batch_crop_flip",),
        crop_padding=1,
    ),
    epochs=60,
    batch_size=32,
    eval_batch_size=100,
    log_every=50,
    model=Model(name="cnn7", input_shape=(16, 16, 2), classes=10, time_steps=10, width=0.25),
    chaos=Chaos(z0=(3.75, 3.75), beta=0.935, taps=("conv1.membrane", "fc1.dense"), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
)
