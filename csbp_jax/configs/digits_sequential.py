"""The bundled digits, 8x8, row by row: one grey value at each of 64 time steps. Which digit was it?

By plain backpropagation; ``--chaos.z0 3`` switches the chaos term on.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="digits_sequential"),
    epochs=60,
    batch_size=32,
    checkpoint_every=10,
    model=Model(
        name="recurrent",
        input_shape=(1,),
        classes=10,
        time_steps=64,
        features=(128, 128),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(0.0,), beta=0.95, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
