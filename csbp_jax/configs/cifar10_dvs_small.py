"""CIFAR10-DVS, events of 128x128 pixels, 10,000 recordings. A small network of our own."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="cifar10_dvs", size=(48, 48), resize="antialias", augment=("crop", "flip")),
    epochs=100,
    batch_size=32,
    eval_batch_size=100,
    model=Model(name="small_conv", input_shape=(48, 48, 2), classes=10, time_steps=10, features=(64, 128, 128, 256)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.001, weight_decay=0.01),
)
