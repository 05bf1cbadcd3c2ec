"""Spiking ResNet-19 in the versions of TET (Deng et al., ICLR 2022) and TEBN (Duan et al., NeurIPS 2022).

    block:  spikes = LIF(norm(conv(LIF(norm(conv(x))))) + shortcut(x))        3, 3, 2 blocks of 128, 256, 512 channels

Layers ``stem``; of block J in stage I ``stageI_blockJ_conv1``, ``..._conv2``, ``..._shortcut`` where it has one, and
``stageI_blockJ``, the neuron on the sum; ``fc1``, ``readout``. Decays are 0.5 (TET) and 0.25 (TEBN); both have
threshold 1, hard reset and the triangle surrogate of width 1.

The released TEBN code has an unused norm in each of its two down-sampling blocks; it is omitted.

With ``norm="tdbn"``, the norms of the two currents that are added have alpha = 1/sqrt(2) (Zheng et al., AAAI 2021).
"""

import functools

import flax.linen as nn
import jax

from csbp_jax.models import layers, norms
from csbp_jax.models.base import ResidualNetwork, RunLayer

STAGES = ((128, 3), (256, 3), (512, 2))


class TET(ResidualNetwork):
    """ResNet-19 of TET: no biases, PyTorch's initial weights, plain identity shortcuts, a spiking dense layer."""

    stem: int = 64
    use_bias: bool = False
    kernel_init: layers.Initializer = layers.TORCH

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        conv = self.spiking(layers.ConvNormLIF, use_bias=self.use_bias, kernel_init=self.kernel_init)
        x = run(conv(self.wide(self.stem), name="stem"), x)
        for name, features, stride, drop in self.each_block(STAGES):
            y = run(conv(features, stride=stride, name=f"{name}_conv1"), x)
            y, x = self.currents(x, y, stride, name, run)
            x = run(layers.Spike(dtype=self.dtype, name=name), drop(y, train) + x)
        return self.head(x, train, run)

    def currents(
        self, x: jax.Array, y: jax.Array, stride: int, name: str, run: RunLayer
    ) -> tuple[jax.Array, jax.Array]:
        """Return the currents of a block's second convolution and of its shortcut, whose sum drives its neuron."""
        current = functools.partial(
            layers.ConvNorm,
            y.shape[-1],
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            norm=self.sum_norm(),
            dtype=self.dtype,
        )
        y = run(current(name=f"{name}_conv2"), y)
        if x.shape == y.shape:
            x = self.identity(x, f"{name}_shortcut", run)
        else:
            x = run(current(kernel=1, stride=stride, name=f"{name}_shortcut"), x)
        return y, x

    def sum_norm(self) -> norms.Norm:
        """Return the norm of a current that is added to another."""
        return self.make_norm(alpha=0.5**0.5)

    def identity(self, x: jax.Array, name: str, run: RunLayer) -> jax.Array:
        """Apply the shortcut of a block that changes neither size nor channels."""
        return x

    def head(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        """Pool the features of the last stage and read them out."""
        x = run(layers.Linear(self.wide(256), self.dtype, name="fc1"), layers.space_mean(x))
        x = run(layers.Spike(dtype=self.dtype, name="fc1_spike"), x)
        return run(layers.Linear(self.classes, name="readout"), x)


class TEBN(TET):
    """ResNet-19 of TEBN: biases, He-normal over fan-out, a norm on identity shortcuts, dropout in the head."""

    stem: int = 128
    use_bias: bool = True
    kernel_init: layers.Initializer = layers.HE_FAN_OUT
    norm: str = "tebn"
    dropout: float = 0.25

    def identity(self, x: jax.Array, name: str, run: RunLayer) -> jax.Array:
        return run(layers.Norm(self.sum_norm(), name=name), x)

    def head(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = layers.flat(layers.pool(x))
        x = run(layers.Linear(self.wide(256), self.dtype, name="fc1"), drop(x))
        return run(layers.Linear(self.classes, name="readout"), drop(x))
