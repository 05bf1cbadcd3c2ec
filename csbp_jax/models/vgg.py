"""VGG-like networks of the TET and TEBN papers: [conv, norm, LIF] * n with pooling, then dense layers.

Convolutions are 3x3 with bias, He-normal over fan-out; the dense layers have neither neurons nor a norm. Layers
``conv1``, ``conv2``, ..., ``fc1``, ``readout``.

TEBN (Duan et al., NeurIPS 2022, and the code of CSBP) has decay 0.25, TET (Deng et al., ICLR 2022) decay 0.5; both have
threshold 1, hard reset and the triangle surrogate of width 1.
"""

import functools
import itertools
from typing import Literal

import flax.linen as nn
import jax

from csbp_jax.models import layers
from csbp_jax.models.base import PublishedNetwork, RunLayer


class VGG(PublishedNetwork):
    """Stages of convolutions, each of which halves the image at its end, and dense layers.

    stages: channels of the convolutions, per stage.
    halve: by 2x2 average pooling after the stage, or by stride 2 in its last convolution.
    hidden: units of the dense layers before the read-out.
    votes: number of outputs of the read-out that are averaged to one class.
    dropout: rate before each dense layer, drawn per example, time step and unit.
    """

    stages: tuple[tuple[int, ...], ...] = ((64,), (128,))
    halve: Literal["pool", "stride"] = "pool"
    hidden: tuple[int, ...] = ()
    votes: int = 1
    dropout: float = 0.0

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        conv = self.spiking(layers.ConvNormLIF, use_bias=True, kernel_init=layers.HE_FAN_OUT)
        numbers = itertools.count(1)
        for stage in self.stages:
            for i, features in enumerate(stage, start=1):
                stride = 2 if self.halve == "stride" and i == len(stage) else 1
                x = run(conv(self.wide(features), stride=stride, name=f"conv{next(numbers)}"), x)
            if self.halve == "pool":
                x = layers.pool(x)
        x = layers.flat(x)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for i, units in enumerate(self.hidden, start=1):
            x = run(layers.Linear(self.wide(units), self.dtype, name=f"fc{i}"), drop(x))
        x = run(layers.Linear(self.classes * self.votes, name="readout"), drop(x))
        return layers.vote(x, self.votes)


TEBN = functools.partial(VGG, norm="tebn", dropout=0.25)
CNN6 = functools.partial(TEBN, stages=((128,), (128,), (128,), (128,)), hidden=(512,))
CNN7 = functools.partial(TEBN, stages=((64,), (128, 128), (128,), (256, 256)), hidden=(1024,))
VGG9 = functools.partial(TEBN, stages=((64, 64), (128, 128), (256, 256, 256)), hidden=(1024,), votes=10)
# As in TET; the TEBN paper and CSBP use it with norm="tebn" and dropout=0.25.
VGGSNN = functools.partial(VGG, stages=((64, 128), (256, 256), (512, 512), (512, 512)))
VGGSNN_WO_AP = functools.partial(VGGSNN, halve="stride")
