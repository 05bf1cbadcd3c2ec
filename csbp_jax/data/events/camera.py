"""Synthetic event camera: it records grey pictures that move before it along a path.

**Scene.** A picture of grey values 0 to ``white`` before a sensor of H x W pixels, ``zoom`` of them per pixel of the
picture. Grey value g has luminance g / white + DARK. Between pixel centres the logarithm of the luminance is
interpolated bilinearly. Around the picture there is one grey value, or its outermost pixels go on.

**Movement.** The picture's centre moves from corner to corner of a path, and takes equally long for each edge. Two
scenes are defined:

- ``DIGITS``: 8x8 digits on black, before 16x16 pixels. Three saccades of 100 ms each, along an isosceles triangle and
  back to the start (Orchard et al. 2015, doi:10.3389/fnins.2015.00437), each with the profile 3 u^2 - 2 u^3.
- ``LOOP``: 32x32 pictures of 256 grey values, before 32x32 pixels. A closed loop of four diagonal edges at constant
  speed, as the display moved that CIFAR10-DVS was recorded from (Li et al. 2017, doi:10.3389/fnins.2017.00309), once.

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

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.data.events.readers import Events

FloatArray = NDArray[np.float64]

STEP = 1_000  # microseconds, as the other times
DARK = 0.1
THRESHOLD = 0.25  # of the logarithm of the luminance, as MISMATCH
MISMATCH = 0.03
REFRACTORY = 1_000
NOISE = 1.0  # events per pixel and second
SEED = 20_240_130

_MARGIN = 2  # pixels on each side of a picture: one to interpolate between it and its surround, one for all beyond


@dataclasses.dataclass(frozen=True)
class Scene:
    """A sensor, and what moves before it.

    Attributes:
      sensor: height and width in pixels.
      white: the largest grey value.
      zoom: pixels of the sensor per pixel of the picture.
      corners: of the path, (down, right) of the picture's centre from the sensor's, in pixels of the sensor.
      edge: microseconds from one corner to the next, a multiple of STEP.
      eased: whether an edge is a saccade, which begins and ends slowly; otherwise the speed is constant.
      surround: grey value around the picture; None continues its outermost pixels.
    """

    sensor: tuple[int, int]
    white: int
    zoom: float
    corners: tuple[tuple[float, float], ...]
    edge: int
    eased: bool
    surround: int | None

    @property
    def duration(self) -> int:
        """Microseconds of a recording."""
        return (len(self.corners) - 1) * self.edge

    def position(self, t: float) -> FloatArray:
        """Return the picture's position at t microseconds: (down, right), as of the corners."""
        edge = min(int(t // self.edge), len(self.corners) - 2)
        start, end = (np.array(corner) for corner in self.corners[edge : edge + 2])
        u = t / self.edge - edge
        share = (3 - 2 * u) * u * u if self.eased else u
        return start + share * (end - start)

    @functools.cached_property
    def levels(self) -> FloatArray:
        """The log luminance of each grey value ``[white + 1]``."""
        # Rounded, since the last bit of a logarithm differs between machines.
        return np.array([round(math.log(grey / self.white + DARK), 9) for grey in range(self.white + 1)])


SENSOR = 16
"""Height and width of the sensor before which the digits move."""
DIGITS = Scene(
    sensor=(SENSOR, SENSOR),
    white=16,
    zoom=1.5,
    corners=((-1.0, -2.0), (2.0, 0.0), (-1.0, 2.0), (-1.0, -2.0)),
    edge=100_000,
    eased=True,
    surround=0,
)
LOOP = Scene(
    sensor=(32, 32),
    white=255,
    zoom=1.0,
    corners=((0.0, -2.0), (-2.0, 0.0), (0.0, 2.0), (2.0, 0.0), (0.0, -2.0)),
    edge=50_000,
    eased=False,
    surround=None,
)


def record(pictures: NDArray[np.integer], seeds: NDArray[np.integer], scene: Scene = DIGITS) -> list[Events]:
    """Record pictures, each of which depends on its grey values and its seed alone.

    Args:
      pictures: grey values from 0 to ``scene.white``, ``[N, height, width]`` of any size.
      seeds: of the noise of each, ``[N]``, whole numbers from 0 on.
      scene: the sensor, and the path along which the pictures move.

    Returns:
      The events of each, with times from 0 to ``scene.duration``, and p = 1 for ON.

    Raises:
      ValueError: a grey value is not possible, or pictures have another number of axes.
    """
    if pictures.ndim != 3:
        raise ValueError(f"pictures: {pictures.shape} is not possible; expected is [N, height, width]")
    if pictures.size and not 0 <= pictures.min() <= pictures.max() <= scene.white:
        found = f"{pictures.min()} to {pictures.max()}"
        raise ValueError(f"pictures: grey values are {found}, but 0 to {scene.white} exist")
    picture, *columns = _signal_events(scene.levels[pictures], scene)
    return [_add_noise([c[picture == n] for c in columns], int(seed), scene) for n, seed in enumerate(seeds)]


def _signal_events(levels: FloatArray, scene: Scene) -> list[NDArray[Any]]:
    """Simulate the pixels for log luminances ``[N, height, width]``: events without noise, as (n, t, x, y, p)."""
    thresholds = np.random.Generator(np.random.Philox(key=[SEED, 0]))
    rise, fall = thresholds.normal(THRESHOLD, MISMATCH, (2, *scene.sensor))
    around = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))
    if scene.surround is None:
        levels = np.pad(levels, around, mode="edge")
    else:
        levels = np.pad(levels, around, constant_values=scene.levels[scene.surround])
    after = reference = _project(levels, 0, scene)
    ready, steps = np.full(after.shape, -1.0), []
    for start in range(0, scene.duration, STEP):
        before, after = after, _project(levels, start + STEP, scene)
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


def _project(levels: FloatArray, t: float, scene: Scene) -> FloatArray:
    """Move padded pictures ``[N, h, w]`` to their position at time t on the sensor, ``[N, H, W]``."""
    (row, down), (column, right) = (
        _interpolation(centre, pixels, side - 2 * _MARGIN, scene.zoom)
        for centre, pixels, side in zip(scene.position(t), scene.sensor, levels.shape[1:], strict=True)
    )
    levels = levels[:, row] * (1 - down[:, None]) + levels[:, row + 1] * down[:, None]
    return levels[:, :, column] * (1 - right) + levels[:, :, column + 1] * right


def _interpolation(centre: float, pixels: int, side: int, zoom: float) -> tuple[NDArray[np.int64], FloatArray]:
    """Return, along one axis, the padded pixel before each pixel of the sensor and the distance from it."""
    of_picture = (np.arange(pixels) - (pixels - 1) / 2 - centre) / zoom + (side - 1) / 2
    position = np.clip(of_picture + _MARGIN, 0, side + _MARGIN + 0.5)
    first = position.astype(int)
    return first, position - first


def _add_noise(signal: list[NDArray[Any]], seed: int, scene: Scene) -> Events:
    height, width = scene.sensor
    random = np.random.Generator(np.random.Philox(key=[SEED, 1 + seed]))
    count = random.poisson(NOISE * height * width * scene.duration / 1e6)
    noise = (random.integers(0, top, count) for top in (scene.duration, width, height, 2))
    t, x, y, p = (np.concatenate([column.astype(np.int64), more]) for column, more in zip(signal, noise, strict=True))
    order = np.lexsort((p, x, y, t))
    return Events(x[order], y[order], t[order], p[order], scene.sensor)
