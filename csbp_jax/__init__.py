"""Brain-inspired chaotic spiking backpropagation in JAX, and instruments to study chaos in training.

``import csbp_jax`` is quick: modules and functions (``csbp_jax.chaos``, ``csbp_jax.train``) are imported at their first
use. ``ARCHITECTURE.md`` is the map.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csbp_jax.experiment import Arm as Arm
    from csbp_jax.experiment import Experiment as Experiment
    from csbp_jax.runs import RunTable as RunTable
    from csbp_jax.runs.restore import load as load
    from csbp_jax.training.loop import train as train
    from csbp_jax.training.plugins import Own as Own

__version__ = "0.1.0"
__all__ = ["Arm", "Experiment", "Own", "RunTable", "load", "train"]

_HOMES = {
    "Arm": "experiment",
    "Experiment": "experiment",
    "Own": "training.plugins",
    "RunTable": "runs",
    "load": "runs.restore",
    "train": "training.loop",
}
_MODULES = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "__main__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"csbp_jax.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"csbp_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "__version__"]
