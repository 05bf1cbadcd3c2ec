"""CIFAR-100, ResNet-19 with TEBN, T = 6.

    make train DATASET=cifar100_tebn_resnet19       # CSBP
    make train DATASET=cifar100_tebn_resnet19_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 78.81 % (78.54), baseline 78.42 (78.24).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.018 z0.

- Known: batch size, epochs, beta, and the sum of z0 over the taps, 12.9 to 19.2, most naturally 18.
- Inferred: network and T (TEBN's code), its optimizer, one tap, the first membrane.
- Differs from the original: a tenth of the training split is used for validation.
"""

from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    data=Data(name="cifar100", normalise="standard", augment=("crop", "flip")),
    epochs=200,
    batch_size=64,
    eval_batch_size=500,
    model=Model(name="resnet19_tebn", input_shape=(32, 32, 3), classes=100, time_steps=6),
    chaos=Chaos(z0=(18.0,), beta=0.98, taps=("stem.membrane",), cut=(-10.0, 9.9)),
    optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
)
