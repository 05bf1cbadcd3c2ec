"""A task whose classes differ in the times of spikes only: each unit spikes once, at a time on a smooth manifold.

For class c, unit u and a sample with coordinates p in [0, 1]^D, drawn uniformly,

    f_cu(p) = prod_d sum_{k=1}^{100} a_cudk k^-alpha sin(2 pi (k p_d + b_cudk)),   a, b uniform in [0, 1]
    t_cu(p) = (f_cu(p) - min f_cu) / (max f_cu - min f_cu)                         over the samples

is the time of the spike (Zenke and Vogels, Neural Computation 2021, doi 10.1162/neco_a_01367). As each unit has a
single spike, numbers of spikes say nothing about the class.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES, UNITS, TIME_STEPS = 10, 32, 10
DIMENSIONS, ALPHA = 2, 1.0
HARMONICS = 100


def draw(seed: int, samples: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw the manifolds of all classes, and ``samples`` of each: spikes ``x [N, T, units]`` and labels ``y [N]``.

    Classes take turns, so that any first ``CLASSES * n`` samples have n of each.
    """
    generator = np.random.default_rng(seed)
    times = np.stack([spike_times(generator, samples) for _ in range(CLASSES)], axis=1)
    steps = np.minimum((TIME_STEPS * times).astype(int), TIME_STEPS - 1).reshape(-1, 1, UNITS)
    x = (steps == np.arange(TIME_STEPS)[:, None]).astype(np.float32)
    return x, np.tile(np.arange(CLASSES, dtype=np.int32), samples)


def spike_times(generator: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Draw the manifold of a class, and times in [0, 1] of samples on it, ``[samples, units]``."""
    coordinates = generator.random((samples, DIMENSIONS, 1))
    amplitudes, phases = generator.random((2, DIMENSIONS, HARMONICS, UNITS))
    k = np.arange(1, HARMONICS + 1)
    # Phases are complex factors, so that the sum over harmonics is a product of matrices, [samples, k] @ [k, units].
    waves = np.exp(2j * np.pi * k * coordinates).swapaxes(0, 1)
    weights = amplitudes * k[:, None] ** -ALPHA * np.exp(2j * np.pi * phases)
    f: NDArray[np.float64] = (waves @ weights).imag.prod(axis=0)
    return (f - f.min(axis=0)) / np.ptp(f, axis=0)
