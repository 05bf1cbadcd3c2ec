"""Highest temperature of tomorrow in Seattle, on each of 28 days, from rain, temperatures and wind until then.

``make data DATASET=seattle_weather``; 671 days to train on, 365 to validate, 365 to test. Up to 60 days by
``--model.time-steps``. The highest temperature of today instead has an R2 of 0.84 on the days to test.
"""

from csbp_jax.config import Chaos, Config, Data, Loss, Model, Neuron, Optimizer

config = Config(
    data=Data(name="seattle_weather"),
    epochs=60,
    batch_size=32,
    eval_batch_size=365,
    checkpoint_every=10,
    model=Model(
        name="recurrent",
        input_shape=(4,),
        classes=1,
        time_steps=28,
        features=(64,),
        neuron=Neuron(decay=0.9),
    ),
    chaos=Chaos(z0=(0.3,), beta=0.9, taps=("rec1.membrane",), reduce="neuron"),
    loss=Loss(task="value", name="mse", per="step"),
    optimizer=Optimizer(name="adamw", lr=0.003),
)
