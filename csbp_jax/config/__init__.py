"""What a run is: frozen dataclasses, the rules about their values, and the run's name."""

from csbp_jax.config.fields import (
    NETWORK_OPTIONS,
    AugmentName,
    Chaos,
    CheckpointError,
    Config,
    ConfigError,
    Data,
    Diverged,
    Loss,
    Model,
    Neuron,
    Optimizer,
    flatten,
    from_json,
    replaced,
    run_name,
    to_json,
)
from csbp_jax.config.rules import check

__all__ = [
    "NETWORK_OPTIONS",
    "AugmentName",
    "Chaos",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Data",
    "Diverged",
    "Loss",
    "Model",
    "Neuron",
    "Optimizer",
    "check",
    "flatten",
    "from_json",
    "replaced",
    "run_name",
    "to_json",
]
