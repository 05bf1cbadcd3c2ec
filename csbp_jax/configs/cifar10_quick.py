"""CIFAR-10, 32x32 RGB, 50,000 + 10,000. A network of our own that one core of a CPU trains within an hour, T = 2.

On the pictures re-encoded as JPEG it reached 78.2 % (one seed; docs/results/presets/cifar10_quick). ``cifar10_small``
is larger.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(name="cifar10", normalise="standard", augment=("crop", "flip")),
    epochs=10,
    batch_size=64,
    eval_batch_size=500,
    log_every=50,
    model=Model(
        name="small_conv",
        input_shape=(32, 32, 3),
        classes=10,
        time_steps=2,
        features=(32, 64, 128, 256),
        neuron=Neuron(decay=0.5, threshold=0.5),
    ),
    chaos=Chaos(z0=(0.3,), beta=0.75, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.003, weight_decay=0.01),
)
