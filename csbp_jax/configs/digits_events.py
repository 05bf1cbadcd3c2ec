"""The bundled digits as recorded by a synthetic event camera (data/events/camera.py), 16x16, in 10 frames of 30 ms.

``make train DATASET=digits_events``: 98.9 % on the test split (359 recordings; docs/results/presets/digits_events), in 92 s
on 2 cores.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="digits_events", bins="time"),
    epochs=30,
    batch_size=32,
    checkpoint_every=5,
    model=Model(
        name="small_conv",
        input_shape=(16, 16, 2),
        classes=10,
        time_steps=10,
        features=(32, 64, 64),
        neuron=Neuron(decay=0.5),
    ),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
