"""Spiking Heidelberg Digits, spikes of 700 channels, 8,156 + 2,264 recordings of 20 spoken digits."""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="shd", bins="time"),
    epochs=50,
    batch_size=128,
    eval_batch_size=500,
    model=Model(
        name="recurrent",
        input_shape=(700,),
        classes=20,
        time_steps=100,
        features=(256,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.001),
)
