"""Characters of ten alphabets as the pen draws them, in 1 to 136 steps: which of 242?

``make data DATASET=omniglot_strokes``; 14 drawings of each character to train on, 2 to validate, 4 to test, each by
another writer.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="omniglot_strokes"),
    epochs=20,
    batch_size=32,
    eval_batch_size=242,
    checkpoint_every=10,
    model=Model(
        name="recurrent",
        input_shape=(3,),
        classes=242,
        time_steps=160,
        features=(128,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(0.03,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.01),
)
