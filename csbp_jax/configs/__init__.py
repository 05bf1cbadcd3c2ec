"""Presets: one file per data set and per published result, each of which defines ``config``."""

import dataclasses
import importlib
import pkgutil

from csbp_jax.config import Config, ConfigError, suggestion

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def known(name: str) -> bool:
    """Return whether ``load`` has a config of this name."""
    return name in NAMES or name.removesuffix("_bp") in NAMES


def load(name: str) -> Config:
    """Load the config of a preset; ``NAME_bp`` is its baseline by plain backpropagation, which differs in z0 = 0 only.

    Raises:
      ConfigError: unknown name; the message suggests the nearest presets.
    """
    if name.endswith("_bp") and name not in NAMES:
        csbp = load(name.removesuffix("_bp"))
        return dataclasses.replace(csbp, chaos=dataclasses.replace(csbp.chaos, z0=(0.0,)))
    if name not in NAMES:
        raise ConfigError(f"DATASET: there is no config {name!r}; {suggestion(name, NAMES)} (csbp_jax list)")
    config: Config = importlib.import_module(f"csbp_jax.configs.{name}").config
    return config
