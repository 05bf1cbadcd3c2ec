"""The chaos of a network's own state over time steps, on real inputs.

All other instruments here measure training, a map of the weights. This one holds the weights, and asks whether
membranes and spikes themselves are chaotic (``dynamics.driven``).
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from csbp_jax import dynamics, models
from csbp_jax.config import ConfigError
from csbp_jax.dynamics import driven
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.models.base import Network
from csbp_jax.runs.restore import RestoredRun, restore
from csbp_jax.runtime import hardware
from csbp_jax.training import build


def network_exponents(
    network: "str | pathlib.Path | RestoredRun | Network",
    inputs: ArrayLike,
    variables: Any = None,
    *,
    n: int = 1,
    deltas: ArrayLike | Sequence[float] = driven.DELTAS,
    warmup: int = 0,
    seed: int = 0,
) -> dynamics.DrivenExponents:
    """Compute the exponents of a network's state over the time steps of its inputs, in evaluation mode and float64.

    The state is what :func:`csbp_jax.models.stream` carries: of each layer the membranes, with the neuron's other
    variables; of a recurrent layer also the last spikes, of one with delays the last inputs. Every sequence begins at
    rest. A static picture is shown as long as one likes by ``jnp.repeat(x, T, axis=1)``; one record after another is
    ``x.reshape(1, -1, *x.shape[2:])``.

    Without recurrent layers, as in a convolutional network, nothing loops back to a neuron but its own membrane. Its
    tangent exponents are then those of the single neurons, means of ``log |dv[t]/dv[t-1]|``. Of a LIF neuron as the
    config has it by default (threshold 1, hard reset, triangle of width 1) that is at most the logarithm of its decay,
    whatever the weights are: such a network is not chaotic.

    Args:
      network: the folder of a run or another address of :func:`csbp_jax.load`, a run that is restored, or a network of
        ``models.build``.
      inputs: ``[K, T, ...]``, K sequences of T time steps, normalised and encoded like the run's data.
      variables: ``{"params", "batch_stats"}`` of a network; a run has its own.
      n: number of tangent exponents.
      deltas: sizes of real differences, as Euclidean norms over the whole state; a membrane is in units of the input
        current.
      warmup: first time steps, which are not counted.
      seed: random seed of the initial directions.

    Returns:
      :class:`csbp_jax.dynamics.DrivenExponents`, those of each sequence in nats per time step, as NumPy arrays.

    Raises:
      ConfigError: the run cannot be restored; the network rounds to bfloat16, is no ``models.base.Network``, or is one
        that :func:`csbp_jax.models.stream` refuses, as with parameters for each time step; or JAX computes on a TPU,
        which has no float64.
      TypeError: a network comes without variables, or a run with some.
      ValueError: see :func:`csbp_jax.dynamics.driven_exponents`.
    """
    if isinstance(network, Network) != (variables is not None):
        raise TypeError("network_exponents: variables are those of a network, and a run has its own; give just one")
    if isinstance(network, Network):
        model: Any = network
    else:
        restored = restore(network)
        model, variables = build.build_recipe(restored.config, restored.own, 1).model, restored.variables
    if not isinstance(model, Network):
        raise ConfigError(
            "network_exponents: the run's network is no models.base.Network; write its time step, and give that to "
            "dynamics.driven_exponents"
        )
    if model.dtype is not None:
        raise ConfigError(
            "model.precision: bfloat16 is not possible where small differences are measured, which it rounds; "
            "set it to float32"
        )
    with hardware.float64():
        variables, x = to_default_precision((variables, jnp.asarray(inputs, float)))
        step = time_step(model)
        states = jax.eval_shape(step, variables, {}, x[0, 0])
        zeros = jax.tree.map(lambda leaf: jnp.zeros((len(x), *leaf.shape), leaf.dtype), states)
        measured = dynamics.driven_exponents(step, zeros, x, variables, n=n, deltas=deltas, warmup=warmup, seed=seed)
        return jax.tree.map(np.asarray, measured)


@functools.lru_cache(maxsize=16)
def time_step(network: Network) -> driven.TimeStep:
    """Return ``step(variables, state, x) -> state`` of one sequence; the states of a network at rest may be ``{}``."""

    network = network.clone(read_out="mean", read_out_decay=0.0)  # nothing of the state depends on them

    def step(variables: Any, state: dict[str, Any], x: jax.Array) -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            return models.stream(network, variables, x[None, None], state or None)[1]

    return step
