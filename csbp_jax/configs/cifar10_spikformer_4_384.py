"""CIFAR-10, Spikformer-4-384, T = 4.

    make train DATASET=cifar10_spikformer_4_384       # CSBP
    make train DATASET=cifar10_spikformer_4_384_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 95.19 %, of Spikformer's article (400 epochs: 95.51).
Run by us: no (needs an accelerator). Hardware and hours: not stated. z at the end: 0.0023 z0.

- Known, from Spikformer's code: network, neuron, optimizer, batch size, epochs, kinds of augmentation, mixed precision.
- Inferred: all of the chaos term, from cifar100_tebn_resnet19.
- Differs from the original: a tenth of the training split is used for validation; cosine to 0, not to 1e-5, without the
  10 epochs at the end; weight decay of all parameters; mixup in other proportions; TET's deviations of colours;
  bfloat16 in place of float16; RandAugment with torchvision's 14 operations on every image, where the original applies
  one of five to every second image. Its strength, 9 of timm's 10, is 27 of torchvision's 30.
"""

from csbp_jax.config import Chaos, Config, Data, Loss, Model, Neuron, Optimizer

config = Config(
    data=Data(
        name="cifar10",
        normalise="standard",
        augment=("flip", "randaugment", "random_erasing", "mixup"),
        randaugment_operations=1,
        randaugment_magnitude=27,
        mix_off_epochs=100,
    ),
    epochs=300,
    batch_size=128,
    eval_batch_size=500,
    model=Model(
        name="spikformer_cifar",
        input_shape=(32, 32, 3),
        classes=10,
        time_steps=4,
        precision="bfloat16",
        neuron=Neuron(
            decay=0.5,
            surrogate="sigmoid",
            surrogate_param=4.0,
            detach_reset=True,
            scale_input=True,
            at_threshold="fire",
        ),
    ),
    chaos=Chaos(z0=(18.0,), beta=0.98, taps=("stem1.membrane",), cut=(-10.0, 9.9)),
    loss=Loss(smoothing=0.1),
    optimizer=Optimizer(name="adamw", lr=5e-4, weight_decay=0.06, warmup_epochs=20),
)
