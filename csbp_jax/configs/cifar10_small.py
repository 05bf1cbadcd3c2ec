"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. A small network of our own, for a CPU."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="cifar10", normalise="standard", augment=("crop", "flip")),
    epochs=60,
    batch_size=128,
    eval_batch_size=500,
    log_every=50,
    model=Model(name="small_conv", input_shape=(32, 32, 3), classes=10, time_steps=4, features=(64, 128, 256, 256)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002, weight_decay=0.01),
)
