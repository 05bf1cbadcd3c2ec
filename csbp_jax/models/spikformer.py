"""Spikformer (Zhou et al., ICLR 2023): spiking self-attention between the patches of an image, without softmax.

    x = stem(image),  x = x + position(x),  then in each block  x = x + SSA(x),  x = x + MLP(x)
    SSA(x) = proj(LIF(scale q k^T v)),      q, k, v, proj and both layers of MLP: synapse, batch norm, LIF

The stem has four 3x3 convolutions of embed/8, embed/4, embed/2 and embed channels; ``position`` is a fifth. The last
ones are followed by max pooling, as many as the size of a patch needs. Logits are those of the mean over tokens.

The three variants are those of the authors' code (github.com/ZK-Zhou/spikformer), which differ in more than size:

    ``CIFAR``     Spikformer-4-384, 12 heads; q, k, v have biases; weights of blocks normal (0.02), biases 0
    ``IMAGENET``  Spikformer-8-512, 8 heads; PyTorch's initial weights
    ``DVS``       Spikformer-2-256, 16 heads, scale 1/4 in place of 1/8; PyTorch's initial weights

That code also registers, but never calls, two layer norms per block and, in ``DVS``, a layer norm and a position
embedding; they are neither here nor in the parameters that the article counts.
"""

import functools

import flax.linen as nn
import jax

from csbp_jax.models import layers
from csbp_jax.models.attention import SSATransformer, stem
from csbp_jax.models.base import RunLayer


class Spikformer(SSATransformer):
    """Spikformer.

    Layers ``stem1`` to ``stem4``, ``position``, of block I ``blockI_q``, ``_k``, ``_v``, ``_attention``, ``_proj``,
    ``_mlp1``, ``_mlp2``, and ``readout``.

    patch: pixels per token, in height and in width: a power of 2 up to 16.
    """

    patch: int = 4

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        self.require_multiple_of(8, self.heads)
        conv = self.spiking(layers.ConvNormLIF, kernel_init=layers.TORCH)
        x = stem(x, self.embed, self.patch, conv, conv, run)
        x = x + run(conv(self.embed, name="position"), x)
        for block, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth), start=1):
            drop = layers.DropPath(rate)
            x = x + drop(self.self_attention(x, f"block{block}", run), train)
            x = x + drop(self.perceptron(x, f"block{block}", run), train)
        return self.readout(x, run)


CIFAR = functools.partial(
    Spikformer, heads=12, qkv_bias=True, kernel_init=layers.NORMAL, bias_init=nn.initializers.zeros
)
IMAGENET = functools.partial(Spikformer, embed=512, depth=8, heads=8, patch=16)
DVS = functools.partial(Spikformer, embed=256, depth=2, heads=16, patch=16, scale=0.25)
