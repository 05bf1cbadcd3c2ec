"""Networks of the PLIF paper (Fang et al., ICCV 2021): [conv, norm, PLIF] * n, max pooling, spiking dense layers.

Convolutions are 3x3; there are no biases, and the weights are initially PyTorch's. The read-out fires too: a class's
output is the mean spike of ten neurons. Neurons are PLIF with initial decay 1/2, threshold 1, a detached hard reset and
the arctan surrogate with alpha 2. As SpikingJelly's, they fire at their threshold too.

The structures are those of the article's table. The released code differs in two of them: it has 2048 hidden units for
CIFAR10-DVS, and no dropout before the read-out for CIFAR-10.

Layers ``conv1``, ``conv1_spike``, ``conv2``, ..., ``fc1``, ``fc1_spike``, ``readout``, ``readout_spike``.
"""

import functools
from typing import Literal

import flax.linen as nn
import jax

from csbp_jax.models import layers
from csbp_jax.models.base import PublishedNetwork, RunLayer


class PLIFNet(PublishedNetwork):
    """Stages of convolutions, each of which ends with 2x2 pooling, and two spiking dense layers.

    A static image passes the first convolution and norm once; their current is repeated over ``time_steps``.

    stages: channels of the convolutions, per stage.
    pool: kind of pooling.
    hidden: units of the first dense layer.
    votes: number of neurons of the read-out whose spikes are averaged to one class.
    dropout: rate before the dense layers, drawn per example and unit, and the same at all time steps.
    """

    stages: tuple[tuple[int, ...], ...] = ((128,), (128,))
    pool: Literal["average", "max"] = "max"
    hidden: int = 2048
    votes: int = 10
    dropout: float = 0.5

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        conv = self.spiking(layers.ConvNormLIF, kernel_init=layers.TORCH)
        pool = {"average": layers.pool, "max": layers.max_pool}[self.pool]
        number = 0
        for stage in self.stages:
            for features in map(self.wide, stage):
                number += 1
                x = run(conv(features, name=f"conv{number}"), x) if number > 1 else self.first(x, features, run)
            x = pool(x)
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)
        x = run(layers.Linear(self.wide(self.hidden), self.dtype, use_bias=False, name="fc1"), drop(layers.flat(x)))
        x = run(layers.Spike(dtype=self.dtype, name="fc1_spike"), x)
        x = run(layers.Linear(self.classes * self.votes, use_bias=False, name="readout"), drop(x))
        return layers.vote(run(layers.Spike(name="readout_spike"), x), self.votes)

    def first(self, x: jax.Array, features: int, run: RunLayer) -> jax.Array:
        """Apply the first convolution, norm and neuron."""
        steps = self.steps_of_first_norm(x)
        current = self.spiking(layers.ConvNorm, kernel_init=layers.TORCH)
        x = run(current(features, time_steps=steps, name="conv1"), x)
        return run(layers.Spike(self.time_steps, self.dtype, name="conv1_spike"), x)


# For MNIST, Fashion-MNIST and N-MNIST.
MNIST = PLIFNet
CIFAR10 = functools.partial(PLIFNet, stages=((256,) * 3,) * 2)
CIFAR10_DVS = functools.partial(PLIFNet, stages=((128,),) * 4, hidden=512)
DVS_GESTURE = functools.partial(PLIFNet, stages=((128,),) * 5, hidden=512)
