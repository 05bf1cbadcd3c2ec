"""The network that the learner expects: its call and its outputs."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

Variables = Mapping[str, Any]
"""Flax's variables: ``{"params": tree, "batch_stats": tree}``."""


class Auxiliary(Protocol):
    """The outputs of a forward pass beside the logits; :class:`csbp_jax.models.taps.Aux` is one."""

    @property
    def terms(self) -> Mapping[str, jax.Array]:
        """The chaos term of each tapped tensor, not yet multiplied by z: ``{tap: scalar}``."""

    @property
    def rates(self) -> Mapping[str, jax.Array]:
        """Spikes per neuron per time step: ``{layer: scalar}``."""


class SpikingNetwork(Protocol):
    """A Linen module called as ``(x [B, T or 1, ...], train, *, tap, taps[, neuron][, lengths])``.

    It returns ``(logits [B, T, C], Auxiliary)``. ``neuron`` is passed if a run has one of its own, and ``lengths [B]``
    if sequences have them; then ``tap`` takes ``where``, as ``jnp.mean`` does. :class:`csbp_jax.models.base.Network` is
    one.
    """

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return variables drawn from a key, for an example input."""

    def init_with_output(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the result of a call, with the variables drawn for it."""

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the network; with ``mutable``, return a pair of its result and the updated collections."""
