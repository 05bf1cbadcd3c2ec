"""Configuration of a run: frozen dataclasses, validation of their values, and the run name."""

from csbp_jax.config.errors import (
    FULL,
    CheckpointError,
    ConfigError,
    Diverged,
    Lost,
    WriteError,
    escaped,
    lacks_memory,
    nearest,
    one_line,
    suggestion,
    writing,
)
from csbp_jax.config.removed import as_current
from csbp_jax.config.rules import Rule
from csbp_jax.config.schema import (
    NETWORK_OPTIONS,
    AugmentName,
    Chaos,
    Config,
    Data,
    Loss,
    Model,
    Neuron,
    Optimizer,
    from_json,
)
from csbp_jax.config.validation import check, check_rules, flatten, replaced, run_name, to_json

__all__ = [
    "FULL",
    "NETWORK_OPTIONS",
    "AugmentName",
    "Chaos",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Data",
    "Diverged",
    "Loss",
    "Lost",
    "Model",
    "Neuron",
    "Optimizer",
    "Rule",
    "WriteError",
    "as_current",
    "check",
    "check_rules",
    "escaped",
    "flatten",
    "from_json",
    "lacks_memory",
    "nearest",
    "one_line",
    "replaced",
    "run_name",
    "suggestion",
    "to_json",
    "writing",
]
