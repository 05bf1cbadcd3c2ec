"""A small training map of the digits for the instruments."""

import dataclasses

from csbp_jax import configs
from csbp_jax.config import Chaos, Optimizer

STEPS_PER_EPOCH = 26
DENSE = dataclasses.replace(
    configs.load("digits"),
    batch_size=48,
    chaos=Chaos(z0=(4.0,), beta=0.5, anneal="step", taps=("fc1.dense",), scale=1.0, reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
    model=dataclasses.replace(configs.load("digits").model, name="dense", features=(4,), time_steps=2),
)
CALM = {
    "tangent": {"exponents": [-0.1, -0.2], "stderr": [0.01, 0.01]},
    "finite_size": {"exponents": [-0.1, 0.0], "stderr": [0.01, 0.001]},
    "cumulated": [0.0, 0.5],
    "counted": 200,
    "size": 1.2,
}
"""Measurements of a run that contracts."""
