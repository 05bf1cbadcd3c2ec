"""Strict settings for all tests: 8 virtual CPU devices, no implicit rank promotion, float64 only where asked for."""

import pathlib

import jax
import numpy as np
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def reference():
    """Loads a file of ``tests/data`` by name."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as arrays:
            return dict(arrays)

    return load
