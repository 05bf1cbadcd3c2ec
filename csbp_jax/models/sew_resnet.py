"""SEW-ResNets (Fang et al., NeurIPS 2021): blocks of spiking layers whose output and shortcut are combined as spikes.

    add  y + x        and  y x        iand  x (1 - y)        with y the block's spikes and x its shortcut's

``ResNet``, for ImageNet, has integrate-and-fire neurons (decay 1); ``BNet``, for event cameras, PLIF neurons with
initial decay 1/2. Both have threshold 1, a detached hard reset and the arctan surrogate with alpha 2. The original
neurons also fire exactly at the threshold (``at_threshold="fire"``).
"""

import functools
from typing import Literal

import jax

from csbp_jax.models import layers
from csbp_jax.models.base import ResidualNetwork, RunLayer

Connect = Literal["add", "and", "iand"]


def connect(kind: Connect, y: jax.Array, x: jax.Array) -> jax.Array:
    """Combine a block's spikes ``y`` and its shortcut ``x``."""
    if kind == "add":
        return y + x
    return y * x if kind == "and" else x * (1 - y)


class ResNet(ResidualNetwork):
    """SEW-ResNet for ImageNet.

    Layers ``stem``, ``stem_spike``, of block J in stage I ``stageI_blockJ_conv1``, ..., ``..._shortcut``, and
    ``readout``. A static image passes the stem's convolution and norm once; their current is repeated over
    ``time_steps``.

    blocks: number of blocks per stage.
    bottleneck: 1x1, 3x3, 1x1 to four times the channels, instead of 3x3, 3x3.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    connect: Connect = "add"

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        steps = self.steps_of_first_norm(x)
        stem = self.spiking(layers.ConvNorm, kernel_init=layers.HE_FAN_OUT)
        x = run(stem(self.wide(64), kernel=7, stride=2, time_steps=steps, name="stem"), x)
        x = run(layers.Spike(self.time_steps, self.dtype, name="stem_spike"), x)
        x = layers.max_pool(x, size=3, stride=2, pad=1)
        stages = [(64 * 2**stage, blocks) for stage, blocks in enumerate(self.blocks)]
        for name, features, stride, drop in self.each_block(stages):
            y, x = self.block(x, features, stride, name, run)
            x = connect(self.connect, drop(y, train), x)
        return run(layers.Linear(self.classes, name="readout"), layers.space_mean(x))

    def block(self, x: jax.Array, features: int, stride: int, name: str, run: RunLayer) -> tuple[jax.Array, jax.Array]:
        """Return the spikes of a SEW block and of its shortcut."""
        conv = self.spiking(layers.ConvNormLIF, kernel_init=layers.HE_FAN_OUT)
        if self.bottleneck:
            y = run(conv(features, 1, name=f"{name}_conv1"), x)
            y = run(conv(features, 3, stride, name=f"{name}_conv2"), y)
            y = run(conv(4 * features, 1, name=f"{name}_conv3"), y)
        else:
            y = run(conv(features, 3, stride, name=f"{name}_conv1"), x)
            y = run(conv(features, 3, name=f"{name}_conv2"), y)
        if x.shape != y.shape:
            x = run(conv(y.shape[-1], 1, stride, name=f"{name}_shortcut"), x)
        return y, x


class BNet(ResidualNetwork):
    """7B-Net: seven SEW blocks, each followed by 2x2 max pooling, with a 1x1 layer wherever the channels change.

    Layers ``convI`` where stage I has other channels than the stage before, ``blockI_conv1``, ``blockI_conv2``, and
    ``readout``. Images have 128x128 pixels.
    """

    stages: tuple[int, ...] = (32,) * 7
    connect: Connect = "add"

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        conv = self.spiking(layers.ConvNormLIF, kernel_init=layers.TORCH)
        previous, rates = None, layers.drop_path_rates(self.drop_path, len(self.stages))
        for stage, features in enumerate(map(self.wide, self.stages), start=1):
            if features != previous:
                x = run(conv(features, 1, name=f"conv{stage}"), x)
            y = run(conv(features, name=f"block{stage}_conv1"), x)
            y = run(conv(features, name=f"block{stage}_conv2"), y)
            y = layers.DropPath(rates[stage - 1])(y, train)
            x = layers.max_pool(connect(self.connect, y, x))
            previous = features
        return run(layers.Linear(self.classes, name="readout"), layers.flat(x))


RESNET18 = ResNet
RESNET34 = functools.partial(ResNet, blocks=(3, 4, 6, 3))
RESNET50 = functools.partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True)
RESNET101 = functools.partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True)
RESNET152 = functools.partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True)
SEVEN_B = BNet
WIDE_SEVEN_B = functools.partial(BNet, stages=(64, 64, 64, 64, 128, 128, 128))
