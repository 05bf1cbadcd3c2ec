"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. A network of our own with integer neurons, for a CPU: T = 1, up to 4 spikes.

A pixel's current lasts one time step, in which an I-LIF neuron fires 0 to 4 spikes; training costs as much as one time
step of LIF. The recipe is that of ``cifar10_quick``, with more channels and epochs.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="cifar10", normalise="standard", augment=("crop", "flip")),
    epochs=25,
    batch_size=64,
    eval_batch_size=500,
    log_every=50,
    model=Model(
        name="small_conv",
        input_shape=(32, 32, 3),
        classes=10,
        time_steps=1,
        features=(64, 128, 256, 512),
        neuron=Neuron(name="ilif", threshold=0.5, levels=4),
    ),
    chaos=Chaos(z0=(0.3,), beta=0.75, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.003, weight_decay=0.05),
)
