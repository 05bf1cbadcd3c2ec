"""The compiled functions of a network whose robustness is measured."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.data.device import transform
from csbp_jax.evaluation.robustness import pgd, spike_faults
from csbp_jax.runs.restore import Apply, RestoredRun

Batch = dict[str, jax.Array]
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """Compiled functions of a network, for any weights of it; compiled at their first call.

    neuron: of the network, whose surrogate the attacker replaces; None if the network takes no other.
    events: whether inputs are frames of events, else still inputs.
    levels: largest number of spikes of a neuron per time step.
    """

    config: Config
    apply: Apply
    neuron: Any
    events: bool
    levels: int = 1

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, variables: Variables, key: jax.Array, batch: Batch) -> jax.Array:
        """Return whether the predictions are the labels, ``[B]``.

        Args:
          variables: of the network; with a collection "faults" of ``key``, ``lost`` and ``added``, its spikes are
            faulty (:mod:`csbp_jax.evaluation.robustness.spike_faults`).
          key: of ``data.encode`` rate.
          batch: see :mod:`csbp_jax.evaluation.robustness.battery`.
        """
        apply, index = self.apply, batch["index"]
        if "faults" in variables:
            variables = dict(variables)
            faults = variables.pop("faults")
            keys = example_keys(faults["key"], index)
            apply, _ = spike_faults.with_faults(apply, keys, faults["lost"], faults["added"], self.levels)
        return self.logits(apply, variables, key, index, batch["x"]).argmax(axis=-1) == batch["y"]

    def logits(
        self, apply: Any, variables: Variables, key: jax.Array, index: jax.Array, x: jax.Array, **options: Any
    ) -> jax.Array:
        """Return the mean logits of the time steps ``[B, classes]`` of ``apply``, which has the ``options``."""
        logits: jax.Array = apply(variables, self._inputs(key, index, x), **options)[0]
        return logits.mean(axis=1)

    @functools.cached_property
    def surrogates(self) -> tuple[str, ...]:
        """The attacker's surrogates, or "own" alone if the network's gradient cannot be replaced."""
        replaceable = pgd.with_surrogate(self.neuron, pgd.SURROGATES["triangle 1"]) is not None
        return tuple(pgd.SURROGATES) if replaceable else ("own",)

    def takes_faults(self, variables: Variables, x: NDArray[Any]) -> bool:
        """Return whether faults reach all spiking layers (:func:`spike_faults.reachable`), for inputs such as x."""
        key, index = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros(len(x), jnp.uint32)))
        return spike_faults.reachable(self.apply, variables, jax.eval_shape(self._inputs, key, index, x))

    def _inputs(self, key: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
        _, prepare = transform.make(self.config, self.events)
        if self.config.data.encode != "rate":
            return prepare(key, {"x": x})["x"]
        one_by_one: Callable[..., jax.Array] = jax.vmap(lambda key, x: prepare(key, {"x": x[None]})["x"][0])
        return one_by_one(example_keys(key, index), x)


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Return a key for each example ``[B]``, from its number in the split."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def programs_of(run: RestoredRun, events: bool) -> Programs:
    """Return the programs of a run's network; they serve all runs with the same network and data."""
    neuron = run.config.model.neuron
    levels = 1 if run.own.neuron else neuron.most_spikes
    return Programs(run.config, run.apply, run.neuron, events, levels)
