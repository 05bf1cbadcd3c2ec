"""Spiking Speech Commands, spikes of 700 channels, 75,466 + 9,981 + 20,382 recordings of 35 spoken words."""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="ssc", bins="time"),
    epochs=20,
    batch_size=128,
    eval_batch_size=500,
    model=Model(
        name="recurrent",
        input_shape=(700,),
        classes=35,
        time_steps=100,
        features=(256,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.001),
)
