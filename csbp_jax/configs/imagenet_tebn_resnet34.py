"""ImageNet, SEW-ResNet-34 with TEBN, T = 4.

    make train DATASET=imagenet_tebn_resnet34       # CSBP
    make train DATASET=imagenet_tebn_resnet34_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best epoch; mean of the last 10): CSBP 65.25 % (65.12), baseline 63.61 (63.40).
Run by us: no (needs the data and accelerators). Hardware and hours: not stated. z at the end: 0.41 z0.

- Known: epochs, beta; z0 summed over the taps, 13.4 to 20.0, 18.65 if h is about 0. Their log does not name the
  network.
- Inferred: network and T (the one that TEBN published, 68.28 %, second-hand), neuron, optimizer, batch size and groups
  of the norms (SEW's), one tap, float32.
- Their CSBP run is ahead in training accuracy from the first epoch on, so the two runs may differ in more than z.
- Differs from the original: a tenth of the training split is used for validation; the official validation split is the
  test split.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer

config = Config(
    data=Data(
        name="imagenet",
        size=(224, 224),
        normalise="standard",
        augment=("resized_crop", "flip"),
        resizer="cykooz",
        threads=16,
    ),
    epochs=120,
    batch_size=256,
    eval_batch_size=256,
    log_every=100,
    model=Model(
        name="sew_resnet34",
        input_shape=(224, 224, 3),
        classes=1000,
        time_steps=4,
        norm="tebn",
        norm_groups=8,
        neuron=Neuron(decay=1.0, surrogate="arctan", surrogate_param=2.0, detach_reset=True, at_threshold="fire"),
    ),
    chaos=Chaos(z0=(18.65,), beta=0.9925, taps=("stem_spike.membrane",), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9),
)
