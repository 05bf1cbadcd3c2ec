"""Spiking attention, and what the spiking transformers share: sizes, synapses and the blocks of Spikformer.

Tokens stay an image, ``[B, T, H, W, C]``, and every synapse of a block acts on its last axis.

All neurons of the originals are SpikingJelly's: decay 1/2, input scaled by 1/2, threshold 1 (1/2 for attention),
detached hard reset, a spike at exactly the threshold, the sigmoid surrogate with slope 4. The presets' ``model.neuron``
says so. Ties are common, because sums of spikes are integers.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.base import Network, RunLayer

ATTENTION_THRESHOLD = 0.5
"""Threshold of attention neurons, in thresholds of the others."""


def thresholds_of(layer: str) -> float:
    """Return the threshold of a layer's neurons, in thresholds of the network's own neuron, by the layer's name."""
    return ATTENTION_THRESHOLD if layer.endswith("_attention") else 1.0


def self_attention(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Compute ``q (k^T v)`` of each head: attention without softmax, linear in the number of tokens.

    Args:
      q, k, v: spikes, ``[B, T, H, W, C]``.
      heads: number of equal groups of channels.

    Returns:
      Sums of coincidences, ``[B, T, H W, C]``: whole numbers, float32 or wider.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (x.reshape(*x.shape[:2], -1, heads, x.shape[-1] // heads) for x in (q, k, v))
    values = jnp.einsum("btnhd,btnhe->bthde", k, v, preferred_element_type=wide)
    out = jnp.einsum("btnhd,bthde->btnhe", q.astype(wide), values)
    return out.reshape(*out.shape[:3], -1)


def stem(
    x: jax.Array,
    embed: int,
    patch: int,
    conv: Callable[..., nn.Module],
    last: Callable[..., nn.Module],
    run: RunLayer,
) -> jax.Array:
    """Apply four 3x3 convolutions, up to ``embed`` channels, the last of which are followed by max pooling of stride 2.

    patch: pixels per token, in height and in width: a power of 2 up to 16.
    conv, last: constructors of the first three layers and of the fourth.
    """
    for number, divisor in enumerate((8, 4, 2, 1), start=1):
        x = run((last if number == 4 else conv)(embed // divisor, name=f"stem{number}"), x)
        x = layers.max_pool(x, size=3, stride=2, pad=1) if patch >= 1 << (5 - number) else x
    return x


class Transformer(Network):
    """Spiking transformer.

    embed: channels of a token.
    depth: number of blocks.
    mlp_ratio: channels inside a block's perceptron, in those of its tokens.
    drop_path: rate at which both branches of the last block are dropped (:class:`csbp_jax.models.layers.DropPath`);
        linear in depth. The originals have such an option, but never call it.
    kernel_init, bias_init: initial weights of the synapses of the blocks (None: PyTorch's biases).
    """

    embed: int = 384
    depth: int = 4
    mlp_ratio: int = 4
    drop_path: float = 0.0
    kernel_init: layers.Initializer = layers.TORCH
    bias_init: layers.Initializer | None = None

    def require_multiple_of(self, *divisors: int) -> None:
        """Check the number of channels.

        Raises:
          ConfigError: it is not a multiple of all divisors.
        """
        if any(self.embed % n for n in divisors):
            raise ConfigError(
                f"model.embed: {self.embed} is not possible; allowed are multiples of "
                + " and of ".join(map(str, sorted(set(divisors))))
            )

    def dense(self, layer: type[layers.DenseNorm], use_bias: bool = True) -> Callable[..., nn.Module]:
        """Return the constructor of a block's synapse with its norm, and neuron if ``layer`` has one."""
        return self.spiking(layer, use_bias=use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init)

    def perceptron(
        self, x: jax.Array, name: str, run: RunLayer, last: type[layers.DenseNorm] = layers.Dense
    ) -> jax.Array:
        """Apply the two layers of a block, ``NAME_mlp1`` and ``NAME_mlp2``, the second of which is a ``last``."""
        channels = x.shape[-1]
        y = run(self.dense(layers.Dense)(self.mlp_ratio * channels, name=f"{name}_mlp1"), x)
        return run(self.dense(last)(channels, name=f"{name}_mlp2"), y)

    def attention_spikes(self, current: jax.Array, name: str, run: RunLayer) -> jax.Array:
        """Run the attention neurons on a current; their layer is ``NAME_attention``."""
        spike = layers.Spike(self.time_steps, self.dtype, ATTENTION_THRESHOLD, name=f"{name}_attention")
        return run(spike, current)


class SSATransformer(Transformer):
    """Transformer with blocks of spiking self-attention (SSA) and a perceptron: ``x + SSA(x)``, then ``x + MLP(x)``.

    heads: of attention.
    scale: factor of attention.
    qkv_bias: whether the synapses of q, k and v have biases.
    """

    heads: int = 8
    scale: float = 0.125
    qkv_bias: bool = False

    def self_attention(self, x: jax.Array, name: str, run: RunLayer) -> jax.Array:
        """Apply spiking self-attention; layers ``NAME_q``, ``_k``, ``_v``, ``_attention``, ``_proj``."""
        synapse = self.dense(layers.Dense, self.qkv_bias)
        q, k, v = (run(synapse(x.shape[-1], name=f"{name}_{part}"), x) for part in "qkv")
        y = self.attention_spikes(self_attention(q, k, v, self.heads) * self.scale, name, run)
        return run(self.dense(layers.Dense)(x.shape[-1], name=f"{name}_proj"), y.reshape(x.shape))

    def readout(self, x: jax.Array, run: RunLayer) -> jax.Array:
        """Average tokens ``[B, T, H, W, C]`` over space, and compute logits; the initial weights are normal."""
        layer = layers.Linear(self.classes, kernel_init=layers.NORMAL, bias_init=nn.initializers.zeros, name="readout")
        return run(layer, layers.space_mean(x))
