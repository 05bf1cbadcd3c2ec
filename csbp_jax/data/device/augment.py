"""Augmentation of frames of events, on the device: one example ``x [T, H, W, C]``, all its frames alike.

``each(f)`` lifts such a function to a batch, every example with its own key. Where pixels move, they are copied, not
interpolated, and what comes from outside is 0: counts stay counts. Angles are in degrees.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


def per_example(augmentation: Augmentation) -> Augmentation:
    """``f(key, x [T, ...])`` as ``f(key, x [B, T, ...])``; an example's key depends on its place in the batch alone."""

    def batch(key, x):
        return jax.vmap(augmentation)(jax.random.split(key, len(x)), x)

    return batch


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """Left to right, for half of the examples."""
    return jnp.where(jax.random.bernoulli(key), x[:, :, ::-1], x)


def crop(key: jax.Array, x: jax.Array, padding: int = 4) -> jax.Array:
    """A window of the old size at a random place in the frame padded by zeros."""
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    wide = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(wide, (0, top, left, 0), x.shape)


def roll(key: jax.Array, x: jax.Array, most: int = 5) -> jax.Array:
    """Round the edges, by -most to most pixels along each side: TET (Deng et al. 2022, arXiv:2202.11946), NDA."""
    shift = jax.random.randint(key, (2,), -most, most + 1)
    return jnp.roll(x, shift, axis=(1, 2))


def rotate(key: jax.Array, x: jax.Array, most: float = 30.0) -> jax.Array:
    """By a random angle from -most to most."""
    return rotated(x, jax.random.uniform(key, minval=-most, maxval=most))


def shear(key: jax.Array, x: jax.Array, most: float = 30.0) -> jax.Array:
    """Along x, by a random angle from -most to most."""
    return sheared(x, jax.random.uniform(key, minval=-most, maxval=most))


def rotated(x: jax.Array, angle: jax.Array | float) -> jax.Array:
    """Counterclockwise about the centre: pixel (y, x) takes the nearest one of (y c + x s, -y s + x c)."""
    c, s = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
    return _warp(x, lambda down, right: (c * down + s * right, c * right - s * down))


def sheared(x: jax.Array, angle: jax.Array | float) -> jax.Array:
    """Along x about the centre: pixel (y, x) takes the nearest one of (y, x + y tan(angle))."""
    slope = jnp.tan(jnp.deg2rad(angle))
    return _warp(x, lambda down, right: (down, right + slope * down))


def _warp(x, source):
    """Each pixel from ``source(down, right)``, both in pixels from the centre."""
    height, width = x.shape[1:3]
    centre = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.meshgrid(jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij")
    down, right = source(down, right)
    # Rounded half up, as a tie would else go to the even pixel, here to the left and there to the right.
    rows = jnp.floor(down + centre[0] + 0.5).astype(jnp.int32)
    columns = jnp.floor(right + centre[1] + 0.5).astype(jnp.int32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return x.at[:, rows, columns].get(mode="clip") * inside[None, :, :, None]


def nda(key: jax.Array, x: jax.Array) -> jax.Array:
    """One of roll, rotate and shear: NDA as its authors train CIFAR10-DVS (Li et al. 2022, arXiv:2203.06145)."""
    which, key = jax.random.split(key)
    return jax.lax.switch(jax.random.randint(which, (), 0, 3), (roll, rotate, shear), key, x)


def cutout(key: jax.Array, x: jax.Array) -> jax.Array:
    """Zeros in a square, a third of the frame's height wide (16 pixels of 48), cut off at the edges.

    DeVries & Taylor 2017, arXiv:1708.04552: the centre is any pixel.
    """
    height, width = x.shape[1:3]
    return x * ~box(key, (height, width), (height // 3, height // 3))[None, :, :, None]


def box(key: jax.Array, frame: tuple[int, int], sides: tuple[jax.Array | int, jax.Array | int]) -> jax.Array:
    """``[H, W]`` bool: a rectangle of these sides about a random pixel, cut off at the edges."""
    keys = jax.random.split(key)
    centres = [jax.random.randint(k, (), 0, length) for k, length in zip(keys, frame, strict=True)]
    rows, columns = (
        (jnp.arange(length) >= centre - side // 2) & (jnp.arange(length) < centre - side // 2 + side)
        for length, centre, side in zip(frame, centres, sides, strict=True)
    )
    return rows[:, None] & columns[None]


def event_drop(key: jax.Array, x: jax.Array) -> jax.Array:
    """Some of the events go: EventDrop (Gu et al. 2021, arXiv:2106.05836) on counts, so ``x`` must be whole numbers.

    One of four, equally likely: nothing; all events of a period of 0.1 to 0.9 of the recording, from a random time on;
    all of a rectangle whose sides are 0.05 to 0.25 of the frame's; or each event by itself with probability 0.1 to 0.9.
    A frame that the period covers in part is thinned by that part.
    """
    which, size, place, key = jax.random.split(key, 4)
    steps, height, width, _ = x.shape
    tenths = jax.random.randint(size, (), 1, 10)

    def nothing():
        return jnp.ones((steps, height, width))

    def period():
        start = steps * jax.random.uniform(place)
        begin = jnp.arange(steps, dtype=jnp.float32)
        covered = jnp.minimum(begin + 1, start + steps * tenths / 10) - jnp.maximum(begin, start)
        return jnp.broadcast_to(1 - jnp.clip(covered, 0, 1)[:, None, None], (steps, height, width))

    def area():
        twentieths = jax.random.randint(size, (), 1, 6)
        rectangle = box(place, (height, width), (height * twentieths // 20, width * twentieths // 20))
        return jnp.broadcast_to(1.0 - rectangle, (steps, height, width))

    def alone():
        return jnp.broadcast_to(1 - tenths / 10, (steps, height, width))

    keep = jax.lax.switch(jax.random.randint(which, (), 0, 4), (nothing, period, area, alone))
    return thinned(key, x, keep[..., None])


def thinned(key: jax.Array, x: jax.Array, keep: jax.Array) -> jax.Array:
    """Binomial(x, keep): of each pixel's x events, those that stay; ``keep`` has the dimensions of x.

    Event by event: 2 to 10 times as fast as ``jax.random.binomial`` for mean counts of 30 to 0.1, on a CPU.
    """

    def one_more(event, kept):
        stays = jax.random.uniform(jax.random.fold_in(key, event), x.shape) < keep
        return kept + (stays & (event < x))

    return jax.lax.fori_loop(0, x.max().astype(jnp.int32), one_more, jnp.zeros_like(x))


def batch_crop_flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """``[B, T, H, W, C]``: one crop and one flip for the whole batch, as the CSBP authors train DVS-CIFAR10."""
    batch, steps = x.shape[:2]
    frames = x.reshape(batch * steps, *x.shape[2:])
    for function, k in zip((crop, flip), jax.random.split(key), strict=True):
        frames = function(k, frames)
    return frames.reshape(x.shape)


def choose_frames(key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    """``[B, T, ...]`` to ``[B, count, ...]``: a random choice of frames in their order, one for the whole batch.

    SEW ResNet on DVS-Gesture trains on 12 of 16 so (Fang et al. 2021, arXiv:2102.04159).
    """
    chosen = jax.random.choice(key, x.shape[1], (count,), replace=False)
    return x[:, jnp.sort(chosen)]
