"""ImageNet, Spike-driven Transformer-8-512, T = 4.

    make train DATASET=imagenet_sdt_8_512       # CSBP
    make train DATASET=imagenet_sdt_8_512_bp    # baseline: plain backpropagation, z0 = 0

Accuracy: CSBP no result of the authors was found; baseline 74.57 %, of SDT's repository. Its other sizes are
8-384 (72.28 %), 6-512 (74.11), 10-512 (74.66) and 8-768 (77.07): --model.depth, --model.embed.
Run by us: no (needs the data and accelerators). Hardware and hours: not stated. z at the end: 0.10 z0.

- Known, from SDT's code: network, neuron, learning rate, weight decay, epochs, norms over each GPU's images, mixed
  precision.
- Inferred: the number of GPUs, 8, in the batch size of 48 each; all of the chaos term, from imagenet_tebn_resnet34.
- Differs from the original: as in imagenet_spikformer_8_512, but it crops 20 to 100 % of an image's area; mixup in all
  batches, not in 60 %; AdamW in place of LAMB; each image once in an epoch, not three times.
"""

import dataclasses

from csbp_jax.config import Optimizer
from csbp_jax.configs.imagenet_spikformer_8_512 import config as spikformer

config = dataclasses.replace(
    spikformer,
    data=dataclasses.replace(
        spikformer.data, augment=("resized_crop", "flip", "randaugment", "mixup"), randaugment_magnitude=15
    ),
    batch_size=384,
    model=dataclasses.replace(spikformer.model, name="sdt_imagenet"),
    optimizer=Optimizer(name="adamw", lr=1.5e-3, weight_decay=0.01, warmup_epochs=20),
)
