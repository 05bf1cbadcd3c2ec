"""Recordings of a smartwatch, six channels over 94 to 261 steps of 0.2 s: which of seven exercises of the shoulder?

``make data DATASET=watch``; 98 recordings of seven persons to train on, 14 of one to validate, 28 of two others to
test.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="watch"),
    epochs=60,
    batch_size=8,
    eval_batch_size=14,
    checkpoint_every=10,
    model=Model(
        name="recurrent",
        input_shape=(6,),
        classes=7,
        time_steps=261,
        features=(64,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(0.3,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.003),
)
