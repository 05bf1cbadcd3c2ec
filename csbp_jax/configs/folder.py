"""Your own class folders of pictures, frames or events: make train DATASET=folder DIR=my-folder."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="folder"),
    epochs=30,
    batch_size=32,
    eval_batch_size=100,
    model=Model(name="small_conv", input_shape=(), classes=0, time_steps=4, features=(32, 64, 64)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
