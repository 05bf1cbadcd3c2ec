"""N-Caltech101, events of up to 180x240 pixels, 8,709 recordings of 101 classes."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="ncaltech101", size=(48, 64), augment=("flip", "roll")),
    epochs=60,
    batch_size=32,
    eval_batch_size=100,
    model=Model(name="small_conv", input_shape=(48, 64, 2), classes=101, time_steps=10, features=(64, 128, 256, 256)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.001, weight_decay=0.01),
)
