"""Base classes of the networks: the call and its auxiliary outputs; a family defines only the order of its layers."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.typing import Dtype

from csbp_jax import chaos, neurons
from csbp_jax.config import ConfigError
from csbp_jax.models import layers, norms, readouts
from csbp_jax.models.taps import Aux, Probe, Tap, merge_aux
from csbp_jax.xla import memory
from csbp_jax.xla.platform import traced_for

RunLayer = Callable[[nn.Module, jax.Array], jax.Array]
"""``run(layer, x)``: call a layer and collect its Aux."""


class Network(nn.Module):
    """Spiking network: the layers of a family (``body``), then a read-out at every time step.

    A static input (one time step) passes its first synapse once and is then repeated over ``time_steps``.

    neuron: of all layers; or a module that returns the neuron of a layer, such as :class:`csbp_jax.neurons.plif.PLIF`.
    norm: a name in the table of norms.py.
    norm_groups: number of groups of the batch that are normalised separately.
    remat: in training, store only the tensors between layers for the reverse pass, and recompute the rest.
    remat_neurons: in training, store the outputs of the synapses as well, and recompute norms and neurons; always so on
      TPUs.
    dtype: see precision.py. The read-out ignores it: Flax promotes it to the dtype of its parameters.
    read_out: of all time steps together; see readouts.py.
    read_out_decay: of a leaky integrator before it; 0 for none.
    """

    classes: int = 10
    time_steps: int = 4
    neuron: neurons.Neuron | nn.Module = neurons.LIF(decay=0.25)
    norm: str = "batch"
    norm_groups: int = 1
    remat: bool = False
    remat_neurons: bool = False
    dtype: Dtype | None = None
    read_out: readouts.ReadOut = "mean"
    read_out_decay: float = 0.0

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        """Map ``[B, T or 1, ...]`` to logits ``[B, T, classes]``, calling each spiking layer by ``run(layer, x)``."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        *,
        neuron: neurons.Neuron | nn.Module | None = None,
        tap: Tap = chaos.term,
        taps: tuple[str, ...] = (),
        inspect: tuple[str, ...] = (),
        states: Mapping[str, neurons.State] | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, Aux]:
        """Map ``x [B, T or 1, ...]`` to ``(logits [B, T, classes], Aux)``.

        Args:
          train: normalise with batch statistics, update the running statistics, and apply dropout.
          neuron: replaces the network's own neuron, e.g. by one with traced constants in a sweep.
          tap: maps each tensor of ``taps`` to a scalar of ``Aux.terms``.
          taps: names of tensors, see taps.py.
          inspect: names of layers whose spikes are returned, and membranes if their neuron has a ``trace``.
          states: states of layers before the first time step, zeros for others; returns those after the last one. None:
            all are zeros, and none is returned. For a sequence in chunks, :func:`csbp_jax.models.stream`.
          lengths: of sequences of unequal length, ``[B]`` integers from 1 to T; the rest of each is padding, which no
            term, rate or norm counts (lengths.py); ``tap`` then takes ``where``, as ``jnp.mean`` does. None: all have T
            time steps.

        Raises:
          ConfigError: a name in ``taps`` or ``inspect`` does not exist; or states are given, and the read-out is over
            time; or sequences have lengths, and a neuron or the
            norm mixes, or has parameters for, other time steps.
          ValueError: sequences have lengths, but x has one time step, which would be repeated.
        """
        if states is not None and (self.read_out != "mean" or self.read_out_decay):
            raise ConfigError(
                "model.read_out: only the mean of all time steps, without a leak, is possible for a sequence in "
                "chunks; call the network on the whole sequence"
            )
        layer_neuron = self.neuron if neuron is None else neuron
        if lengths is not None and x.shape[1] == 1:
            raise ValueError("lengths: x has one time step, which is that of a static input; pad x to two or more")
        probe = Probe(tap, taps, inspect, states, lengths)
        auxes: list[Aux] = []

        def call(layer: nn.Module, x: jax.Array) -> tuple[jax.Array, Aux]:
            return layer(x, train, layer_neuron, probe)

        policy = None if self.remat else memory.SAVED
        # What is kept is decided when a gradient is traced, not when it is lowered. Not in evaluation: what method
        # interceptors see of a call could not leave it.
        on_tpu = (traced_for.value or jax.default_backend()) == "tpu"
        recomputes = train and (self.remat or self.remat_neurons or on_tpu)
        recomputed = nn.remat(call, policy=policy) if recomputes else call

        def run(layer: nn.Module, x: jax.Array) -> jax.Array:
            x, aux = recomputed(layer, x)
            auxes.append(aux)
            return x

        outputs = readouts.leaky(self.body(x, train, run), self.read_out_decay)
        return readouts.over_time(outputs, self.read_out, lengths), merge_aux(auxes, probe)

    def make_norm(self, alpha: float = 1.0) -> norms.Norm:
        """Build this network's norm; ``alpha`` is tdBN's, whose threshold is that of the network's own neuron."""
        threshold = getattr(self.neuron, "threshold", 1.0)
        return norms.make(self.norm, self.time_steps, threshold, alpha, self.norm_groups)

    def spiking(self, layer: type[nn.Module], **options: Any) -> Callable[..., nn.Module]:
        """Return the constructor of a layer with this network's norm, time steps and dtype already set."""
        return functools.partial(layer, norm=self.make_norm(), time_steps=self.time_steps, dtype=self.dtype, **options)


class PublishedNetwork(Network):
    """Network of the literature; ``width`` multiplies its numbers of channels and units (1 is the original)."""

    width: float = 1.0

    def wide(self, features: int) -> int:
        """Return the number of channels at this width."""
        return max(1, round(self.width * features))

    def steps_of_first_norm(self, x: jax.Array) -> int:
        """Return the time steps that the first norm sees: those of the input, or all if it has parameters per step."""
        return x.shape[1] if self.norm in ("batch", "tdbn") else self.time_steps


class ResidualNetwork(PublishedNetwork):
    """Network of residual blocks.

    drop_path: rate at which the last block's branch is dropped in training (:class:`csbp_jax.models.layers.DropPath`);
        the rates of the blocks before it fall linearly to 0 at the first.
    """

    drop_path: float = 0.0

    def each_block(
        self, stages: Sequence[tuple[int, int]], first_stride: int = 1
    ) -> Iterator[tuple[str, int, int, layers.DropPath]]:
        """Yield ``(name, channels, stride, drop path)`` of every block; channels are those at this width.

        stages: channels and number of blocks of each stage, whose first block has stride 2.
        first_stride: that of the first stage in its place.
        """
        rates = iter(layers.drop_path_rates(self.drop_path, sum(blocks for _, blocks in stages)))
        for stage, (channels, blocks) in enumerate(stages, start=1):
            for block in range(1, blocks + 1):
                stride = 1 if block > 1 else first_stride if stage == 1 else 2
                yield f"stage{stage}_block{block}", self.wide(channels), stride, layers.DropPath(next(rates))
