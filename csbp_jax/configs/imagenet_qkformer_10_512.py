"""ImageNet, QKFormer (HST-10-512), T = 4.

    make train DATASET=imagenet_qkformer_10_512       # CSBP
    make train DATASET=imagenet_qkformer_10_512_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 82.04 %, of QKFormer's repository. Its other sizes are
10-384 (78.80 %; --model.embed 384 --model.heads 6) and 10-768 (84.22 %; --model.embed 768 --model.heads 12).
Run by us: no (needs the data and accelerators). QKFormer trained on 8 GPUs, hours not stated. z at the end: 0.22 z0.

- Known, from QKFormer's code: network, neuron, optimizer, epochs, kinds of augmentation, norms over the images of each
  of 8 GPUs; learning rate 6e-4 B / 256 for batch size B.
- Inferred: the batch size, in one piece (its code can split it), and so the images that a norm sees; all of the chaos
  term, from imagenet_tebn_resnet34.
- Differs from the original: as in cifar10_qkformer_4_384, but for mixup, which neither has; erased rectangles have the
  mean colour in place of noise.
"""

import dataclasses

from csbp_jax.config import Optimizer
from csbp_jax.configs.imagenet_spikformer_8_512 import config as spikformer

config = dataclasses.replace(
    spikformer,
    data=dataclasses.replace(spikformer.data, augment=("resized_crop", "flip", "randaugment", "random_erasing")),
    epochs=200,
    batch_size=512,
    model=dataclasses.replace(spikformer.model, name="qkformer_imagenet"),
    chaos=dataclasses.replace(spikformer.chaos, taps=("stem1_spike.membrane",)),
    optimizer=Optimizer(name="adamw", lr=1.2e-3, weight_decay=0.05, warmup_epochs=5),
)
