"""CIFAR-100, ResNet-19 with TET, T = 4.

    make train DATASET=cifar100_tet_resnet19_t4       # CSBP
    make train DATASET=cifar100_tet_resnet19_t4_bp    # baseline: plain backpropagation, z0 = 0

Accuracy in the authors' logs (best on test; mean of the last 10 epochs): CSBP 75.55 % (75.01), baseline not found.
Run by us: no (needs an accelerator). The authors' log has 178 s of training per epoch; their hardware is not stated.
z at the end: 0.35 z0.

- Known: batch size, epochs; from their logs beta (0.9962 to 0.9967), and the sum of z0 over the taps if they use the
  mean (0.089 to 0.132).
- Inferred: network, loss and optimizer (TET's code), one tap, the first membrane.
- Their other runs ended at 74.75 to 75.91.
- Differs from the original: a tenth of the training split is used for validation.
"""

from csbp_jax.config import Chaos, Config, Data, Loss, Model, Neuron, Optimizer

config = Config(
    data=Data(name="cifar100", normalise="standard", augment=("crop", "flip")),
    epochs=300,
    batch_size=128,
    eval_batch_size=500,
    model=Model(
        name="resnet19_tet",
        input_shape=(32, 32, 3),
        classes=100,
        time_steps=4,
        neuron=Neuron(decay=0.5),
    ),
    chaos=Chaos(z0=(0.11,), beta=0.9965, taps=("stem.membrane",), cut=(-10.0, 9.9)),
    loss=Loss(name="tet", lam=0.001),
    optimizer=Optimizer(name="adam", lr=0.001),
)
