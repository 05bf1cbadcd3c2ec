"""Residual networks with membrane shortcuts: blocks begin with their neuron, and add currents instead of spikes.

    y = norm(conv(LIF(pool(norm(conv(LIF(x))))))) + shortcut(x)        pool: identity, or max pooling in Max-ResNet

MS-ResNet (Hu et al., IEEE TNNLS 2024, arXiv:2112.08954), for ImageNet: decay 1/4, threshold 1/2, a detached hard reset,
the rectangle surrogate of width 1. The norm's scale is initially the threshold, and 0 at the end of a block.

Max-ResNet-18 (Fang et al., NeurIPS 2025, arXiv:2505.18608), for CIFAR, halves the image in a block by 3x3 max pooling:
decay 1/2 with the input scaled by 1/2, threshold 1, a detached hard reset, the sigmoid surrogate of slope 4. As
SpikingJelly's, its neurons fire at their threshold too.

Both have PyTorch's initial weights and no biases but the read-out's.
"""

import functools

import jax

from csbp_jax.models import layers, norms
from csbp_jax.models.base import ResidualNetwork, RunLayer


class MSResNet(ResidualNetwork):
    """MS-ResNet for ImageNet; every stage halves the image.

    Layers ``stem``; of block J in stage I ``stageI_blockJ_spike1``, ``..._conv1``, ``..._spike2``, ``..._conv2``,
    ``..._shortcut`` where size or channels change; ``last_spike``, ``readout``. The currents of a static image are
    repeated over ``time_steps`` before the stem's norm.

    stages: channels and number of blocks of each stage.
    stem: kernel and stride of the first convolution.
    first_stride: stride of the first stage; that of the others is 2.
    """

    stages: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 2), (512, 2))
    stem: tuple[int, int] = (7, 2)
    first_stride: int = 2

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        kernel, stride = self.stem
        conv = self.current(self.initial_scale())
        x = run(conv(self.wide(64), kernel, stride, time_steps=self.time_steps, name="stem"), x)
        for name, channels, stride, drop in self.each_block(self.stages, self.first_stride):
            y, x = self.block(x, channels, stride, name, run)
            x = drop(y, train) + x
        x = run(layers.Spike(dtype=self.dtype, name="last_spike"), x)
        return run(layers.Linear(self.classes, name="readout"), layers.space_mean(x))

    def block(self, x: jax.Array, features: int, stride: int, name: str, run: RunLayer) -> tuple[jax.Array, jax.Array]:
        """Return the currents of a block's branch and of its shortcut."""
        conv = self.current(self.initial_scale())
        y = run(layers.Spike(dtype=self.dtype, name=f"{name}_spike1"), x)
        y = self.first_conv(y, functools.partial(conv, features, name=f"{name}_conv1"), stride, run)
        y = run(layers.Spike(dtype=self.dtype, name=f"{name}_spike2"), y)
        y = run(self.current(self.initial_scale(last=True))(features, name=f"{name}_conv2"), y)
        if x.shape != y.shape:
            x = run(conv(features, 1, stride, name=f"{name}_shortcut"), x)
        return y, x

    def first_conv(
        self, x: jax.Array, conv: functools.partial[layers.ConvNorm], stride: int, run: RunLayer
    ) -> jax.Array:
        """Apply the first convolution of a block, which may halve the image."""
        return run(conv(stride=stride), x)

    def current(self, scale: float) -> functools.partial[layers.ConvNorm]:
        """Return the constructor of a convolution whose norm has this initial scale."""
        norm: norms.Norm = functools.partial(self.make_norm(), scale=scale)
        return functools.partial(layers.ConvNorm, kernel_init=layers.TORCH, norm=norm, dtype=self.dtype)

    def initial_scale(self, last: bool = False) -> float:
        """Return the initial scale of a norm; ``last`` is that at the end of a block."""
        # The output of tdBN has the threshold as a factor already.
        threshold = 1.0 if self.norm == "tdbn" else getattr(self.neuron, "threshold", 1.0)
        return 0.0 if last else float(threshold)


class MaxResNet(MSResNet):
    """Max-ResNet for CIFAR; the first stage keeps the image's size. Layers as in MS-ResNet."""

    stages: tuple[tuple[int, int], ...] = ((128, 3), (256, 3), (512, 2))
    stem: tuple[int, int] = (3, 1)
    first_stride: int = 1

    def first_conv(
        self, x: jax.Array, conv: functools.partial[layers.ConvNorm], stride: int, run: RunLayer
    ) -> jax.Array:
        y = run(conv(), x)
        return y if stride == 1 else layers.max_pool(y, size=3, stride=stride, pad=1)

    def initial_scale(self, last: bool = False) -> float:
        return 1.0


MS_RESNET18 = MSResNet
MS_RESNET34 = functools.partial(MSResNet, stages=((64, 3), (128, 4), (256, 6), (512, 3)))
MAX_RESNET18 = MaxResNet
