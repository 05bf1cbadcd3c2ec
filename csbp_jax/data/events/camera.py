"""What an event camera would see of the bundled digits, moved before it as those of N-MNIST were.

**Scene.** A digit before a sensor of 16x16 pixels, 1.5 of them to each of its own. Grey value g in 0..16 has luminance
g / 16 + DARK, the background DARK; between pixel centres the logarithm of the luminance is interpolated bilinearly.

**Movement.** Three saccades of 100 ms each, along an isosceles triangle and back to the start (Orchard et al. 2015,
doi:10.3389/fnins.2015.00437), each with the profile 3 u^2 - 2 u^3.

**Pixel** (Lichtsteiner et al. 2008, doi:10.1109/JSSC.2007.914337). An ON event when the log luminance has risen by the
pixel's ON threshold since its reference, an OFF event when it has fallen by its OFF threshold; each threshold is drawn
once for the sensor, from N(THRESHOLD, MISMATCH^2). After an event the pixel is blind for REFRACTORY microseconds; the
level of that moment is its new reference. Levels are taken each STEP microseconds and linear in between, so the time of
a crossing is exact for them, and cut to whole microseconds. As REFRACTORY >= STEP, a pixel fires at most once a step.

**Noise.** Background activity: a Poisson process of NOISE events a second at each pixel, ON or OFF with equal chance,
which touches neither its reference nor its sight.

Levels are only added, multiplied, divided and compared, and nothing is fused, so a recording has the same bits wherever
numpy's Philox streams are the same.
"""

import math

import numpy as np

from csbp_jax.data.events.readers import Events

SENSOR = 16
STEP = 1_000
SACCADE = 100_000
DURATION = 3 * SACCADE
DARK = 0.1
THRESHOLD = 0.25
MISMATCH = 0.03
REFRACTORY = 1_000
NOISE = 1.0
SEED = 20_240_130

_CORNERS = np.array([[-1.0, -2.0], [2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])  # (down, right) in pixels of the sensor
_PIXELS = 1.5  # of the sensor, to one of the digit
# Rounded, so that the last bit of one machine's logarithm is not another's.
_LOG = np.array([round(math.log(grey / 16 + DARK), 9) for grey in range(17)])


def record(digits: np.ndarray, indices: np.ndarray) -> list[Events]:
    """Recordings of ``digits [N, 8, 8]``, grey values 0 to 16; ``indices [N]`` seed the noise of each."""
    which, *seen = _seen(_LOG[digits])
    return [_with_noise([part[which == n] for part in seen], int(index)) for n, index in enumerate(indices)]


def path(t: float) -> np.ndarray:
    """Where the digit's centre is at t microseconds, (down, right) from the sensor's, in pixels."""
    saccade = min(int(t // SACCADE), 2)
    u = t / SACCADE - saccade
    return _CORNERS[saccade] + (3 - 2 * u) * u * u * (_CORNERS[saccade + 1] - _CORNERS[saccade])


def _seen(levels):
    """Events of log luminances ``[N, 8, 8]`` as arrays (n, t, x, y, p)."""
    rise, fall = np.random.Generator(np.random.Philox(key=[SEED, 0])).normal(THRESHOLD, MISMATCH, (2, SENSOR, SENSOR))
    # Two more of background on each side, one for the interpolation between it and the digit, one for what is beyond.
    levels = np.pad(levels, ((0, 0), (2, 2), (2, 2)), constant_values=_LOG[0])
    after = reference = _shown(levels, 0)
    ready, parts = np.full(after.shape, -1.0), []
    for start in range(0, DURATION, STEP):
        before, after = after, _shown(levels, start + STEP)
        slope = (after - before) / STEP
        reference = np.where(ready > start, before + slope * (ready - start), reference)
        change, sees = after - reference, ready <= start + STEP
        on = sees & (change >= rise)
        n, y, x = np.nonzero(on | (sees & (change <= -fall)))
        p = on[n, y, x]
        crossed = reference[n, y, x] + np.where(p, rise[y, x], -fall[y, x])
        t = start + (crossed - before[n, y, x]) / slope[n, y, x]
        ready[n, y, x] = t + REFRACTORY
        parts.append((n, t, x, y, p))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _shown(levels, t):
    """The digits ``[N, 12, 12]``, moved, on the sensor: ``[N, 16, 16]``."""
    rows, columns = (_taps(centre) for centre in path(t))
    levels = levels[:, rows[0]] * (1 - rows[1][:, None]) + levels[:, rows[0] + 1] * rows[1][:, None]
    return levels[:, :, columns[0]] * (1 - columns[1]) + levels[:, :, columns[0] + 1] * columns[1]


def _taps(centre):
    """Which padded pixel each of the sensor's falls behind, and how far."""
    place = np.clip((np.arange(SENSOR) - (SENSOR - 1) / 2 - centre) / _PIXELS + 3.5 + 2, 0, 10.5)
    first = place.astype(int)
    return first, place - first


def _with_noise(seen, index):
    random = np.random.Generator(np.random.Philox(key=[SEED, 1 + index]))
    count = random.poisson(NOISE * SENSOR**2 * DURATION / 1e6)
    noise = (random.integers(0, top, count) for top in (DURATION, SENSOR, SENSOR, 2))
    t, x, y, p = (np.concatenate([part.astype(np.int64), more]) for part, more in zip(seen, noise, strict=True))
    order = np.lexsort((p, x, y, t))
    return Events(x[order], y[order], t[order], p[order], (SENSOR, SENSOR))
