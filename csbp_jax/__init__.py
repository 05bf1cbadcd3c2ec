"""Brain-inspired chaotic spiking backpropagation in JAX, and instruments to study chaos in training.

Import modules by name: ``from csbp_jax import chaos, neurons, surrogate``. ``ARCHITECTURE.md`` is the map.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csbp_jax.config import Config
    from csbp_jax.evaluation.restore import WeightsOf
    from csbp_jax.training.plugins import Own

__version__ = "0.1.0"
__all__ = ["Own", "load", "train"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: a module of the core needs no config.
    if name != "Own":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from csbp_jax.training.plugins import Own

    return Own


def train(config: "Config", **options: Any) -> dict[str, Any]:
    """Train or resume a run and return the content of ``result.json``; see :func:`csbp_jax.training.loop.train`."""
    # Imported late, because JAX takes a second to import.
    from csbp_jax.training import loop

    return loop.train(config, **options)


def load(
    run: str | os.PathLike[str], weights_of: "WeightsOf" = "last", *, trust: bool = False, own: "Own | None" = None
) -> "tuple[Callable[..., Any], dict[str, Any], Config]":
    """Return ``(apply, variables, config)`` of a run, a network on the hub, or one that ships; see
    :func:`csbp_jax.evaluation.restore.load`."""
    from csbp_jax.evaluation import restore

    return restore.load(os.fspath(run), weights_of, trust=trust, own=own)
