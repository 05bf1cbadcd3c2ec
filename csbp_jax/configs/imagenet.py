"""ImageNet (ILSVRC2012), 224x224 RGB, 1,281,167 + 50,000. A small network, not one of the paper's."""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="imagenet", size=(224, 224), normalise="standard", augment=("resized_crop", "flip"), threads=16),
    epochs=90,
    batch_size=256,
    eval_batch_size=256,
    log_every=100,
    model=Model(
        name="small_conv",
        input_shape=(224, 224, 3),
        classes=1000,
        time_steps=4,
        features=(32, 64, 128, 256, 512, 512),
    ),
    chaos=Chaos(z0=(10.0,), beta=0.9, taps=("conv1.membrane",), reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, warmup_epochs=5),
)
