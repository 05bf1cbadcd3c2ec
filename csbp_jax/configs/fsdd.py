"""Free Spoken Digit Dataset, spikes of 64 channels of a cochlear model, 3,000 recordings by 6 speakers in 40 frames.

``make train DATASET=fsdd`` tests on the authors' split, whose speakers have all been heard in training: 98.4 % of 300
recordings. ``make train DATASET=fsdd_speaker`` tests on a speaker who has not: 67 %, on average over the six speakers
(docs/results/presets/fsdd_speakers).
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="fsdd", bins="time"),
    epochs=30,
    batch_size=64,
    eval_batch_size=300,
    checkpoint_every=5,
    model=Model(
        name="recurrent",
        input_shape=(64,),
        classes=10,
        time_steps=40,
        features=(128,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(0.3,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.002),
)
