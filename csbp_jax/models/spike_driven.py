"""Spike-driven Transformer (Yao et al., NeurIPS 2023): residuals between membranes, attention by masks and sums.

    c = stem(image),  x = c + position(LIF(c)),  then in each block  x = x + SDSA(LIF(x)),  x = x + MLP(LIF(x))
    SDSA(s) = proj(q * LIF(sum over tokens of k * v)),    q, k, v: synapse, batch norm, LIF of s;    proj: without LIF
    MLP(s)  = synapse, batch norm, LIF, synapse, batch norm

x is a current, and every synapse receives spikes, zeros and ones. The stem is Spikformer's, but its last pooling comes
before its last neuron. Logits are those of the mean over tokens of a last layer of neurons.

The authors' code (github.com/BICLab/Spike-Driven-Transformer) also registers, but never calls, a 1x1 convolution
between heads in each block. Heads change nothing else, since all products are elementwise. For DVS-CIFAR10 alone, that
code adds 3x3 max pooling to k, v, their product (over tokens and channels) and the masked q, of which the article does
not speak; it is not built here.
"""

import functools

import flax.linen as nn
import jax

from csbp_jax.models import layers
from csbp_jax.models.attention import Transformer, stem
from csbp_jax.models.base import RunLayer


class SpikeDriven(Transformer):
    """Spike-driven Transformer.

    Layers ``stem1`` to ``stem4``, ``stem4_spike``, ``position``, of block I ``blockI_spike``, ``_q``, ``_k``, ``_v``,
    ``_attention``, ``_proj``, ``_mlp_spike``, ``_mlp1``, ``_mlp2``, then ``head_spike`` and ``readout``.

    patch: pixels per token, in height and in width: a power of 2 up to 16.
    """

    patch: int = 4
    kernel_init: layers.Initializer = layers.NORMAL
    bias_init: layers.Initializer | None = nn.initializers.zeros

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        self.require_multiple_of(8)
        spike = functools.partial(layers.Spike, self.time_steps, self.dtype)
        conv = self.spiking(layers.ConvNormLIF, kernel_init=self.kernel_init)
        current = self.spiking(layers.ConvNorm, kernel_init=self.kernel_init)
        x = stem(x, self.embed, self.patch, conv, current, run)
        x = x + run(current(self.embed, name="position"), run(spike(name="stem4_spike"), x))
        for block, rate in enumerate(layers.drop_path_rates(self.drop_path, self.depth), start=1):
            name, drop = f"block{block}", layers.DropPath(rate)
            x = x + drop(self.masked_attention(run(spike(name=f"{name}_spike"), x), name, run), train)
            y = self.perceptron(run(spike(name=f"{name}_mlp_spike"), x), name, run, last=layers.DenseNorm)
            x = x + drop(y, train)
        x = run(spike(name="head_spike"), layers.space_mean(x))
        return run(layers.Linear(self.classes, name="readout"), x)

    def masked_attention(self, x: jax.Array, name: str, run: RunLayer) -> jax.Array:
        """Apply spike-driven self-attention (SDSA) to spikes, to a current."""
        synapse = self.dense(layers.Dense, use_bias=False)
        q, k, v = (run(synapse(self.embed, name=f"{name}_{part}"), x) for part in "qkv")
        mask = self.attention_spikes(layers.space_sum(k * v), name, run)
        return run(self.dense(layers.DenseNorm)(self.embed, name=f"{name}_proj"), q * mask)


CIFAR = functools.partial(SpikeDriven, embed=512, depth=2)
IMAGENET = functools.partial(SpikeDriven, embed=512, depth=8, patch=16)
DVS = functools.partial(SpikeDriven, embed=256, depth=2)
