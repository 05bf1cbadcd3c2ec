"""DVS-Gesture, events of 128x128 pixels, 1,077 + 264 recordings (as cut for tonic). A small network of our own."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="dvs_gesture", frames=12),
    epochs=100,
    batch_size=16,
    eval_batch_size=24,
    model=Model(
        name="small_conv",
        input_shape=(128, 128, 2),
        classes=11,
        time_steps=16,
        features=(32, 32, 64, 64, 128, 128),
    ),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="adamw", lr=0.001),
)
