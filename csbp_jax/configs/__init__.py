"""Presets: one file per data set and per published result, each of which defines ``config``.

The preset ``NAME`` of a data set trains a small network of our own with the chaos term or, where :data:`RENAMED` has
the name, one of the literature; ``NAME_small`` then is the small one. ``NAME_bp`` is the control of any preset
``NAME``. Tasks that only memory solves have the settings of plain backpropagation, and no chaos term. ``fsdd_speaker``
tests on another split than ``fsdd``.
"""

import dataclasses
import importlib
import os
import pkgutil

from csbp_jax.config import Config, ConfigError, suggestion

__all__ = ["NAMES", "RENAMED", "is_published", "known", "load", "small_preset"]

RENAMED = {
    "cifar10": "cifar10_tebn_resnet19",
    "cifar100": "cifar100_tebn_resnet19",
    "imagenet": "imagenet_sew_resnet34",
    "cifar10_dvs": "cifar10_dvs_tebn_cnn7",
    "dvs_gesture": "dvs_gesture_sew_7b",
}
"""The preset that a data set's own name stands for, where the literature has several."""

NAMES = tuple(sorted([*RENAMED, *(module.name for module in pkgutil.iter_modules(__path__))]))

_OUR_NETWORKS = ("small_conv", "dense", "recurrent")
# Networks of the literature on data for which no result of them is published.
_OUR_EXPERIMENTS = (("digits", "spikformer_cifar"), ("cifar10", "cnn7"), ("cifar10_events", "cnn7"))


def is_published(data: str, network: str) -> bool:
    """Return whether a network on a data set is an experiment of the literature, rather than one of our own."""
    return network not in _OUR_NETWORKS and (data, network) not in _OUR_EXPERIMENTS


def known(name: str) -> bool:
    """Return whether ``load`` has a config of this name."""
    return name in NAMES or name.removesuffix("_bp") in NAMES


def small_preset(data: str, network: str) -> str | None:
    """Name the preset of a small network on the same data, if this network is one of the literature's."""
    small = next((name for name in (f"{data}_small", data) if name in NAMES), None)
    has_preset = is_published(data, network) and any(
        (preset.data.name, preset.model.name) == (data, network) for preset in map(load, NAMES)
    )
    return small if has_preset else None


def load(name: str) -> Config:
    """Load the config of a preset; ``NAME_bp`` is its control by plain backpropagation, which differs in z0 = 0 only.

    Raises:
      ConfigError: unknown name; the message suggests the nearest presets.
    """
    if name.endswith("_bp") and name not in NAMES:
        csbp = load(name.removesuffix("_bp"))
        return dataclasses.replace(csbp, chaos=dataclasses.replace(csbp.chaos, z0=(0.0,)))
    if name not in NAMES:
        if "/" in name and not os.path.exists(name):
            raise ConfigError(f"{name}: there is no such run, nor a preset of this name (csbp_jax list presets)")
        raise ConfigError(f"DATASET: there is no config {name!r}; {suggestion(name, NAMES)} (csbp_jax list)")
    return importlib.import_module(f"csbp_jax.configs.{RENAMED.get(name, name)}").config
