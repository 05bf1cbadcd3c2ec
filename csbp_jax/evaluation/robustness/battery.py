"""The perturbations of ``csbp_jax robustness``: their names, units and severities, and which networks they fit."""

import zlib
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError, suggestion
from csbp_jax.evaluation.robustness import events, pgd, pictures

Kind = Literal["pictures", "events", "spikes", "weights", "attack"]


class Perturbation(NamedTuple):
    """Severities of a perturbation, from the mildest to the most severe.

    unit: of a severity, for tables and axes.
    variants: repetitions at each severity: random draws that all examples share, or surrogates of an attacker.
    """

    kind: Kind
    severities: tuple[float, ...]
    unit: str
    variants: tuple[str, ...] = ("",)


_DRAWS = tuple(f"draw {number}" for number in range(8))
_EPS = (2.0, 4.0, 8.0)

PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation("pictures", (0.05, 0.1, 0.2), "brightness (std)"),
    "blur": Perturbation("pictures", (0.5, 1.0, 1.5), "pixels (std)"),
    "shift": Perturbation("pictures", (1, 2, 3), "pixels"),
    "contrast": Perturbation("pictures", (0.75, 0.5, 0.25), "remaining contrast"),
    "occlusion": Perturbation("pictures", (0.25, 0.375, 0.5), "square / picture"),
    "lost_events": Perturbation("events", (0.1, 0.3, 0.5), "share of events"),
    "added_events": Perturbation("events", (0.1, 0.3, 1.0), "share of events"),
    "lost_steps": Perturbation("events", (0.1, 0.2, 0.4), "share of time steps"),
    "jitter": Perturbation("events", (0.1, 0.3, 0.6), "share of events, one step"),
    "lost_spikes": Perturbation("spikes", (0.01, 0.05, 0.1), "share of spikes"),
    "added_spikes": Perturbation("spikes", (0.01, 0.05, 0.1), "share of silent steps"),
    "weight_noise": Perturbation("weights", (0.01, 0.02, 0.05, 0.1), "share of filter's rms", _DRAWS),
    "weight_bits": Perturbation("weights", (8, 6, 5, 4), "bits"),
    "pgd": Perturbation("attack", _EPS, "1/255", tuple(pgd.SURROGATES)),
    "square": Perturbation("attack", _EPS, "1/255"),
}
"""All perturbations by name, in the order of tables."""

CORRUPTIONS = {
    "noise": pictures.noise,
    "blur": pictures.blur,
    "shift": pictures.shift,
    "contrast": pictures.contrast,
    "occlusion": pictures.occlusion,
    "lost_events": events.lost_events,
    "added_events": events.added_events,
    "lost_steps": events.lost_steps,
    "jitter": events.jitter,
}
"""The perturbations of inputs, as functions of ``(key, one example, severity)``."""


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
