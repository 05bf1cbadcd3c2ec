"""MNIST, row by row: one grey value at each of 784 time steps. Which digit was it?

By plain backpropagation; ``--chaos.z0 3`` switches the chaos term on. Smaller pictures make shorter sequences:
``--data.size 14 14 --model.time-steps 196``.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="mnist_sequential"),
    epochs=20,
    batch_size=64,
    eval_batch_size=500,
    log_every=100,
    model=Model(
        name="recurrent",
        input_shape=(1,),
        classes=10,
        time_steps=784,
        features=(128, 128),
        neuron=Neuron(decay=0.98),
    ),
    chaos=Chaos(z0=(0.0,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
