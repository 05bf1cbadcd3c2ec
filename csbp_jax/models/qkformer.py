"""QKFormer (Zhou et al., NeurIPS 2024): a hierarchy of stages, with attention linear in tokens in all but the last.

    stem, [token blocks], patches, [token blocks], patches, [SSA blocks]          the last patches and blocks differ
    token block:  x = x + QK(x),  x = x + MLP(x)        QK(x) = proj(LIF(sum over a head's channels of q) * k)
    SSA block:    as in Spikformer
    patches:      x = LIF(norm(conv(LIF(norm(conv(x)))))) + LIF(norm(conv(x)))    half the size, twice the channels

q, k, v, proj and both layers of MLP are synapse, batch norm, LIF. Max pooling comes between norm and neuron.

The three variants are those of the authors' code (github.com/zhouchenlin2096/QKFormer), whose parameters all take part:

    ``CIFAR``     HST-4-384: stages of 96, 192, 384 channels; 8 heads
    ``IMAGENET``  HST-10-512: stages of 128, 256, 512 channels; 8 heads; 2 blocks in the second stage
    ``DVS``       two stages of 128 and 256 channels; 16 heads; perceptrons without more channels

Differs from that code: there, the neurons of ``proj`` in SSA blocks run over the batch as if it were more time, so that
an example's spikes depend on the examples before it. Here, as in the article, they run over time alone.
"""

import functools
from typing import Literal, NamedTuple

import jax

from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.attention import SSATransformer
from csbp_jax.models.base import RunLayer


class Stem(NamedTuple):
    """Convolutions of the stem.

    convs: ``(divisor of the channels of the first stage, whether it is pooled)`` of each. shortcut: the convolution,
    from 1, after which the shortcut branches off.
    """

    convs: tuple[tuple[int, bool], ...]
    shortcut: int


class QKFormer(SSATransformer):
    """QKFormer.

    Layers ``stemI``, ``stem_shortcut``; of stage I from 2 on ``patchI_conv1``, ``patchI_conv2``, ``patchI_shortcut``;
    of block J of stage I ``stageI_blockJ_q``, ``_k``, ``_v`` (SSA), ``_attention``, ``_proj``, ``_mlp1``, ``_mlp2``;
    ``readout``. A pooled convolution L is followed by its neuron, layer ``L_spike``.

    depth: number of all blocks.
    token_blocks: blocks of each stage but the last, which has those that remain.
    pooled: the convolution of the patches that is pooled.
    """

    stem: Stem = Stem(((2, False), (1, False)), shortcut=1)
    token_blocks: tuple[int, ...] = (1, 1)
    pooled: Literal[1, 2] = 2

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        stages = len(self.token_blocks) + 1
        if self.depth <= (least := sum(self.token_blocks)):
            raise ConfigError(f"model.depth: {self.depth} is not possible; allowed is above {least} in this network")
        self.require_multiple_of(2 ** (stages - 1) * self.heads, 2 ** (stages - 1) * max(n for n, _ in self.stem.convs))
        blocks = (*self.token_blocks, self.depth - sum(self.token_blocks))
        rates = iter(layers.drop_path_rates(self.drop_path, self.depth))
        for stage, number in enumerate(blocks, start=1):
            channels = self.embed >> (stages - stage)
            x = self.first_patches(x, channels, run) if stage == 1 else self.patches(x, channels, f"patch{stage}", run)
            attention = self.self_attention if stage == stages else self.token_attention
            for block in range(1, number + 1):
                name, drop = f"stage{stage}_block{block}", layers.DropPath(next(rates))
                x = x + drop(attention(x, name, run), train)
                x = x + drop(self.perceptron(x, name, run), train)
        return self.readout(x, run)

    def token_attention(self, x: jax.Array, name: str, run: RunLayer) -> jax.Array:
        """Apply Q-K token attention: a head's k passes at those tokens where its neuron fires on the sum of q."""
        synapse = self.dense(layers.Dense, use_bias=False)
        q, k = (run(synapse(x.shape[-1], name=f"{name}_{part}"), x) for part in "qk")
        heads = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        fired = self.attention_spikes(q.reshape(heads).sum(-1), name, run)
        y = (fired[..., None] * k.reshape(heads)).reshape(x.shape)
        return run(self.dense(layers.Dense)(x.shape[-1], name=f"{name}_proj"), y)

    def first_patches(self, x: jax.Array, channels: int, run: RunLayer) -> jax.Array:
        """Apply the stem."""
        shortcut, stride = x, 1
        for number, (divisor, pooled) in enumerate(self.stem.convs, start=1):
            x = self.conv(x, channels // divisor, pooled, f"stem{number}", run)
            stride = 1 if number == self.stem.shortcut else stride * (1 + pooled)
            shortcut = x if number == self.stem.shortcut else shortcut
        return x + self.shortcut(shortcut, channels, stride, "stem_shortcut", run)

    def patches(self, x: jax.Array, channels: int, name: str, run: RunLayer) -> jax.Array:
        """Halve height and width, and double the channels."""
        y = self.conv(x, channels, self.pooled == 1, f"{name}_conv1", run)
        y = self.conv(y, channels, self.pooled == 2, f"{name}_conv2", run)
        return y + self.shortcut(x, channels, 2, f"{name}_shortcut", run)

    def conv(self, x: jax.Array, channels: int, pooled: bool, name: str, run: RunLayer) -> jax.Array:
        """Apply convolution, norm, max pooling if ``pooled``, and neuron."""
        if not pooled:
            return run(self.spiking(layers.ConvNormLIF, kernel_init=layers.TORCH)(channels, name=name), x)
        current = run(self.spiking(layers.ConvNorm, kernel_init=layers.TORCH)(channels, name=name), x)
        spike = layers.Spike(self.time_steps, self.dtype, name=f"{name}_spike")
        return run(spike, layers.max_pool(current, size=3, stride=2, pad=1))

    def shortcut(self, x: jax.Array, channels: int, stride: int, name: str, run: RunLayer) -> jax.Array:
        """Apply a 1x1 convolution, norm and neuron."""
        conv = self.spiking(layers.ConvNormLIF, kernel_init=layers.TORCH)
        return run(conv(channels, 1, stride, name=name), x)


CIFAR = QKFormer
IMAGENET = functools.partial(
    QKFormer,
    embed=512,
    depth=10,
    stem=Stem(((2, True), (1, True), (1, False)), shortcut=1),
    token_blocks=(1, 2),
    pooled=1,
)
DVS = functools.partial(
    QKFormer,
    embed=256,
    depth=2,
    heads=16,
    mlp_ratio=1,
    stem=Stem(((8, False), (4, True), (2, True), (1, True)), shortcut=2),
    token_blocks=(1,),
)
