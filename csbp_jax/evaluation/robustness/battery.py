"""The perturbations of ``csbp_jax robustness``: a table of functions, with their severities and units.

A perturbation changes what a network sees or what it is made of:

    change(key, batch, variables, severity, network) -> (batch, variables)

``batch`` is ``{"x", "y", "index"}``: float32 inputs ``[B, ...]`` (pictures: brightness in [0, 1]), labels, and the
numbers of the examples in their split, from which their random numbers follow. Faults of spikes are a collection
"faults" of the variables, which :meth:`Programs.predict` applies. ``network`` is what an attack knows
(:class:`Network`).
"""

import functools
import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError, suggestion
from csbp_jax.evaluation.robustness import events, pgd, pictures, square, weight_errors
from csbp_jax.evaluation.robustness.programs import Batch, Programs, Variables, example_keys

Kind = Literal["pictures", "events", "spikes", "weights", "attack"]


class Network(NamedTuple):
    """An attacker's view of a network, and how the attacker asks it.

    encode_key: of ``data.encode`` rate. variant: number of the surrogate, of ``pgd.SURROGATES``. queries: of the square
    attack.
    """

    programs: Programs
    encode_key: jax.Array
    variant: int
    queries: int


Change = Callable[[jax.Array, Batch, Variables, float, Network], tuple[Batch, Variables]]


class Perturbation(NamedTuple):
    """A change of inputs or variables, with its severities from the mildest to the most severe.

    unit: of a severity, for tables and axes.
    variants: repetitions at each severity: random draws that all examples share, or surrogates of an attacker.
    """

    kind: Kind
    change: Change
    severities: tuple[float, ...]
    unit: str
    variants: tuple[str, ...] = ("",)


def of_inputs(corruption: Callable[[jax.Array, jax.Array, Any], jax.Array]) -> Change:
    """Return the change of a batch by a function of ``(key, one example, severity)``."""

    @jax.jit
    def corrupted(key: jax.Array, batch: Batch, severity: float) -> jax.Array:
        keys = example_keys(key, batch["index"])
        return jax.vmap(corruption, (0, 0, None))(keys, batch["x"], severity)

    def change(
        key: jax.Array, batch: Batch, variables: Variables, severity: float, _: Network
    ) -> tuple[Batch, Variables]:
        return batch | {"x": corrupted(key, batch, severity)}, variables

    return change


def of_weights(error: Callable[[jax.Array, Any, Any], Any]) -> Change:
    """Return the change of the weights by a function of ``(key, params, severity)``."""

    def change(
        key: jax.Array, batch: Batch, variables: Variables, severity: float, _: Network
    ) -> tuple[Batch, Variables]:
        return batch, variables | {"params": error(key, variables["params"], severity)}

    return change


def of_spikes(rate: Literal["lost", "added"]) -> Change:
    """Return the change of the spikes between layers: each is lost, or added, with the probability ``severity``."""

    def change(
        key: jax.Array, batch: Batch, variables: Variables, severity: float, _: Network
    ) -> tuple[Batch, Variables]:
        return batch, variables | {"faults": {"key": key, "lost": 0.0, "added": 0.0, rate: severity}}

    return change


def by_pgd(
    key: jax.Array, batch: Batch, variables: Variables, severity: float, network: Network
) -> tuple[Batch, Variables]:
    """Attack by projected gradients of one of the attacker's surrogates, with ``eps = severity / 255``."""
    weights = np.eye(len(pgd.SURROGATES), dtype=np.float32)[network.variant]
    x = _pgd(network.programs, network.encode_key, key, batch, variables, severity / 255, weights)
    return batch | {"x": x}, variables


@functools.partial(jax.jit, static_argnums=0)
def _pgd(
    programs: Programs,
    encode_key: jax.Array,
    key: jax.Array,
    batch: Batch,
    variables: Variables,
    eps: float,
    weights: jax.Array,
) -> jax.Array:
    """weights: of the attacker's surrogates (:func:`pgd.chosen`); without an effect if these do not fit."""
    replaced = pgd.with_surrogate(programs.neuron, pgd.chosen(weights))
    options = {} if replaced is None else {"neuron": replaced}
    logits = functools.partial(programs.logits, programs.apply, variables, encode_key, batch["index"], **options)
    return pgd.attack(logits, example_keys(key, batch["index"]), batch["x"], batch["y"], eps)[0]


def by_squares(
    key: jax.Array, batch: Batch, variables: Variables, severity: float, network: Network
) -> tuple[Batch, Variables]:
    """Attack by random squares, with ``eps = severity / 255``."""
    side = square.sides(network.queries, *batch["x"].shape[2:4])
    x = _square(network.programs, network.encode_key, key, batch, variables, severity / 255, side)
    return batch | {"x": x}, variables


@functools.partial(jax.jit, static_argnums=0)
def _square(
    programs: Programs,
    encode_key: jax.Array,
    key: jax.Array,
    batch: Batch,
    variables: Variables,
    eps: float,
    side: jax.Array,
) -> jax.Array:
    logits = functools.partial(programs.logits, programs.apply, variables, encode_key, batch["index"])
    return square.attack(logits, example_keys(key, batch["index"]), batch["x"], batch["y"], eps, side)[0]


_DRAWS = tuple(f"draw {number}" for number in range(8))
_EPS = (2.0, 4.0, 8.0)

PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation("pictures", of_inputs(pictures.noise), (0.05, 0.1, 0.2), "brightness (std)"),
    "blur": Perturbation("pictures", of_inputs(pictures.blur), (0.5, 1.0, 1.5), "pixels (std)"),
    "shift": Perturbation("pictures", of_inputs(pictures.shift), (1, 2, 3), "pixels"),
    "contrast": Perturbation("pictures", of_inputs(pictures.contrast), (0.75, 0.5, 0.25), "remaining contrast"),
    "occlusion": Perturbation("pictures", of_inputs(pictures.occlusion), (0.25, 0.375, 0.5), "square / picture"),
    "lost_events": Perturbation("events", of_inputs(events.lost_events), (0.1, 0.3, 0.5), "share of events"),
    "added_events": Perturbation("events", of_inputs(events.added_events), (0.1, 0.3, 1.0), "share of events"),
    "lost_steps": Perturbation("events", of_inputs(events.lost_steps), (0.1, 0.2, 0.4), "share of time steps"),
    "jitter": Perturbation("events", of_inputs(events.jitter), (0.1, 0.3, 0.6), "share of events, one step"),
    "lost_spikes": Perturbation("spikes", of_spikes("lost"), (0.01, 0.05, 0.1), "share of spikes"),
    "added_spikes": Perturbation("spikes", of_spikes("added"), (0.01, 0.05, 0.1), "share of silent steps"),
    "weight_noise": Perturbation(
        "weights", of_weights(weight_errors.with_noise), (0.01, 0.02, 0.05, 0.1), "share of filter's rms", _DRAWS
    ),
    "weight_bits": Perturbation("weights", of_weights(weight_errors.rounded), (8, 6, 5, 4), "bits"),
    "pgd": Perturbation("attack", by_pgd, _EPS, "1/255", tuple(pgd.SURROGATES)),
    "square": Perturbation("attack", by_squares, _EPS, "1/255"),
}
"""All perturbations by name, in the order of tables."""


def select(names: str | None) -> tuple[str, ...]:
    """Return the perturbations of a list of names separated by commas, in the order of tables; all of them for None.

    Raises:
      ConfigError: there is no such perturbation.
    """
    words = list(PERTURBATIONS) if names is None else [word.strip() for word in names.split(",")]
    for word in words:
        if word not in PERTURBATIONS:
            raise ConfigError(f"--only: there is no perturbation {word!r}; {suggestion(word, PERTURBATIONS)}")
    return tuple(name for name in PERTURBATIONS if name in words)


def obstacle(name: str, config: Config, x: NDArray[Any], events: bool) -> str | None:
    """Return why a perturbation does not fit inputs such as the batch x, or None.

    x: ``[B, T or 1, ...]`` as the network's data source returns it. events: whether it holds frames of events.
    """
    kind = PERTURBATIONS[name].kind
    if kind in ("pictures", "attack"):
        if events or x.ndim != 5:
            return f"its inputs are {'events' if events else 'no pictures'}, and these are for still pictures"
        if np.issubdtype(x.dtype, np.floating) and (x.min() < 0 or x.max() > 1):
            return "its pictures are not brightness in [0, 1]"
    if kind == "events":
        if not events:
            return "its inputs are not events"
        if x.min() < 0 or (x != np.round(x)).any():
            return "its frames are not counts of events"
    if name == "pgd" and config.data.encode != "direct":
        return f"data.encode {config.data.encode} has no gradient"
    return None


def key(seed: int, name: str, variant: int = 0) -> jax.Array:
    """Return the key of a perturbation's random numbers, the same for all runs and severities."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(name.encode()))), variant)
