"""ImageNet (ILSVRC2012), 224x224 RGB, 1,281,167 + 50,000. A small network of our own."""

import dataclasses

from csbp_jax.config import Chaos, Model, Optimizer
from csbp_jax.configs.imagenet_tebn_resnet34 import config as tebn

config = dataclasses.replace(
    tebn,
    epochs=90,
    model=Model(input_shape=(224, 224, 3), classes=1000, time_steps=4, features=(32, 64, 128, 256, 512, 512)),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, warmup_epochs=5),
)
