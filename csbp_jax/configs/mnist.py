"""MNIST, 28x28 grey, 60,000 + 10,000."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="mnist", augment=("crop",)),
    epochs=10,
    batch_size=64,
    eval_batch_size=500,
    log_every=100,
    model=Model(name="small_conv", input_shape=(28, 28, 1), classes=10, time_steps=4, features=(16, 32, 64)),
    chaos=Chaos(z0=(10.0,), beta=0.6, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
