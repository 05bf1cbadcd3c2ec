"""UCI optical digits, which ship with the package."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="digits"),
    epochs=30,
    batch_size=32,
    checkpoint_every=5,
    model=Model(name="small_conv", input_shape=(8, 8, 1), classes=10, time_steps=4, features=(32, 64, 64)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
