"""Synthetic event camera that records the bundled digits in the saccades of N-MNIST.

**Scene.** A digit before a sensor of 16x16 pixels, 1.5 of them per pixel of the digit. Grey value g in 0..16 has
luminance g / 16 + DARK, the background DARK; between pixel centres the logarithm of the luminance is interpolated
bilinearly.

**Movement.** Three saccades of 100 ms each, along an isosceles triangle and back to the start (Orchard et al. 2015,
doi:10.3389/fnins.2015.00437), each with the profile 3 u^2 - 2 u^3.

**Pixel** (Lichtsteiner et al. 2008, doi:10.1109/JSSC.2007.914337). A pixel emits an ON event when the log luminance has
risen by its ON threshold since its reference, and an OFF event when it has fallen by its OFF threshold; each threshold
is drawn once for the sensor, from N(THRESHOLD, MISMATCH^2). After an event the pixel is refractory for REFRACTORY
microseconds; the level at the end of that time is its new reference. Levels are sampled every STEP microseconds and
linear in between, so the time of a crossing is exact for them, and truncated to whole microseconds. As
REFRACTORY >= STEP, a pixel emits at most one event per step.

**Noise.** Background activity: a Poisson process of NOISE events per second at each pixel, ON or OFF with equal
probability, which affects neither its reference nor its refractory time.

Levels are only added, multiplied, divided and compared, without fused operations, so a recording is identical bit for
bit wherever numpy's Philox streams are.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.data.events.readers import Events

FloatArray = NDArray[np.float64]

SENSOR = 16
STEP = 1_000  # microseconds, as the other times
SACCADE = 100_000
DURATION = 3 * SACCADE
DARK = 0.1
THRESHOLD = 0.25  # of the logarithm of the luminance, as MISMATCH
MISMATCH = 0.03
REFRACTORY = 1_000
NOISE = 1.0  # events per pixel and second
SEED = 20_240_130

_CORNERS = np.array([[-1.0, -2.0], [2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])  # (down, right) in pixels of the sensor
_PIXELS = 1.5  # of the sensor, per pixel of the digit
# Rounded, since the last bit of a logarithm differs between machines.
_LOG = np.array([round(math.log(grey / 16 + DARK), 9) for grey in range(17)])


def record(digits: NDArray[np.integer], indices: NDArray[np.integer]) -> list[Events]:
    """Record digits ``[N, 8, 8]`` of grey values 0 to 16; the noise of each is seeded by its index in ``[N]``."""
    digit, *columns = _signal_events(_LOG[digits])
    return [_add_noise([column[digit == n] for column in columns], int(index)) for n, index in enumerate(indices)]


def path(t: float) -> FloatArray:
    """Return the digit's position at t microseconds: (down, right) of its centre from the sensor's, in pixels."""
    saccade = min(int(t // SACCADE), 2)
    u = t / SACCADE - saccade
    return _CORNERS[saccade] + (3 - 2 * u) * u * u * (_CORNERS[saccade + 1] - _CORNERS[saccade])


def _signal_events(levels: FloatArray) -> list[NDArray[Any]]:
    """Simulate the pixels for log luminances ``[N, 8, 8]``: events without noise, as arrays (n, t, x, y, p)."""
    rise, fall = np.random.Generator(np.random.Philox(key=[SEED, 0])).normal(THRESHOLD, MISMATCH, (2, SENSOR, SENSOR))
    # Two rows of background on each side: one to interpolate between it and the digit, one for all that lies beyond.
    levels = np.pad(levels, ((0, 0), (2, 2), (2, 2)), constant_values=_LOG[0])
    after = reference = _project(levels, 0)
    ready, steps = np.full(after.shape, -1.0), []
    for start in range(0, DURATION, STEP):
        before, after = after, _project(levels, start + STEP)
        slope = (after - before) / STEP
        reference = np.where(ready > start, before + slope * (ready - start), reference)
        change, active = after - reference, ready <= start + STEP
        on = active & (change >= rise)
        n, y, x = np.nonzero(on | (active & (change <= -fall)))
        p = on[n, y, x]
        crossed = reference[n, y, x] + np.where(p, rise[y, x], -fall[y, x])
        t = start + (crossed - before[n, y, x]) / slope[n, y, x]
        ready[n, y, x] = t + REFRACTORY
        steps.append((n, t, x, y, p))
    return [np.concatenate(column) for column in zip(*steps, strict=True)]


def _project(levels: FloatArray, t: float) -> FloatArray:
    """Move padded digits ``[N, 12, 12]`` to their position at time t on the sensor, ``[N, 16, 16]``."""
    (row, down), (column, right) = (_interpolation(centre) for centre in path(t))
    levels = levels[:, row] * (1 - down[:, None]) + levels[:, row + 1] * down[:, None]
    return levels[:, :, column] * (1 - right) + levels[:, :, column + 1] * right


def _interpolation(centre: float) -> tuple[NDArray[np.int64], FloatArray]:
    """Return, along one axis, the padded pixel before each pixel of the sensor and the distance from it."""
    position = np.clip((np.arange(SENSOR) - (SENSOR - 1) / 2 - centre) / _PIXELS + 3.5 + 2, 0, 10.5)
    first = position.astype(int)
    return first, position - first


def _add_noise(signal: list[NDArray[Any]], index: int) -> Events:
    random = np.random.Generator(np.random.Philox(key=[SEED, 1 + index]))
    count = random.poisson(NOISE * SENSOR**2 * DURATION / 1e6)
    noise = (random.integers(0, top, count) for top in (DURATION, SENSOR, SENSOR, 2))
    t, x, y, p = (np.concatenate([column.astype(np.int64), more]) for column, more in zip(signal, noise, strict=True))
    order = np.lexsort((p, x, y, t))
    return Events(x[order], y[order], t[order], p[order], (SENSOR, SENSOR))
