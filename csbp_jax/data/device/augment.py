"""Augmentation of frames of events, on the device: one example ``x [T, H, W, C]``, the same change in all its frames.

``per_example(f)`` lifts such a function to a batch, with a key for every example. Pixels that move are copied, not
interpolated, and those from outside the frame are 0: counts remain counts. Angles are in degrees.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Augmentation = Callable[..., jax.Array]
"""``(key, x) -> x``, some with options of their own."""


def per_example(augmentation: Augmentation) -> Augmentation:
    """Lift ``f(key, x [T, ...], **options)`` to a batch ``x [B, T, ...]``; an example's key depends only on its row."""

    def batch(key: jax.Array, x: jax.Array, **options: int) -> jax.Array:
        return jax.vmap(functools.partial(augmentation, **options))(jax.random.split(key, len(x)), x)

    return batch


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """Mirror left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), x[:, :, ::-1], x)


def crop(key: jax.Array, x: jax.Array, padding: int = 4) -> jax.Array:
    """Crop a random window of the frame's size from the frame padded by zeros."""
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (0, top, left, 0), x.shape)


def roll(key: jax.Array, x: jax.Array, most: int = 5) -> jax.Array:
    """Shift cyclically by -most to most pixels along each side: TET (Deng et al. 2022, arXiv:2202.11946), NDA."""
    shift = jax.random.randint(key, (2,), -most, most + 1)
    return jnp.roll(x, shift, axis=(1, 2))


def rotate(key: jax.Array, x: jax.Array, most: float = 30.0) -> jax.Array:
    """Rotate by a random angle from -most to most."""
    return rotated(x, jax.random.uniform(key, minval=-most, maxval=most))


def shear(key: jax.Array, x: jax.Array, most: float = 30.0) -> jax.Array:
    """Shear along x by a random angle from -most to most."""
    return sheared(x, jax.random.uniform(key, minval=-most, maxval=most))


def rotated(x: jax.Array, angle: jax.Array | float) -> jax.Array:
    """Rotate counterclockwise about the centre: pixel (y, x) takes the one nearest to (y c + x s, -y s + x c)."""
    c, s = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
    return warped(x, lambda down, right: (c * down + s * right, c * right - s * down))


def sheared(x: jax.Array, angle: jax.Array | float) -> jax.Array:
    """Shear along x about the centre: pixel (y, x) takes the one nearest to (y, x + y tan(angle))."""
    slope = jnp.tan(jnp.deg2rad(angle))
    return warped(x, lambda down, right: (down, right + slope * down))


def warped(x: jax.Array, source: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Take each pixel from ``source(down, right)``, both in pixels from the centre."""
    height, width = x.shape[1:3]
    centre = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.meshgrid(jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij")
    down, right = source(down, right)
    # Rounded half up: jnp.round takes ties to the even pixel, so to the left in one column, to the right in the next.
    rows = jnp.floor(down + centre[0] + 0.5).astype(jnp.int32)
    columns = jnp.floor(right + centre[1] + 0.5).astype(jnp.int32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return x.at[:, rows, columns].get(mode="clip") * inside[None, :, :, None]


def nda(key: jax.Array, x: jax.Array) -> jax.Array:
    """Apply one of roll, rotate and shear: NDA as its authors train CIFAR10-DVS (Li et al. 2022, arXiv:2203.06145)."""
    choice_key, key = jax.random.split(key)
    return jax.lax.switch(jax.random.randint(choice_key, (), 0, 3), (roll, rotate, shear), key, x)


def cutout(key: jax.Array, x: jax.Array) -> jax.Array:
    """Zero a square around a random pixel, of a third of the frame's height (16 pixels of 48), cut off at the edges.

    DeVries & Taylor 2017, arXiv:1708.04552.
    """
    height, width = x.shape[1:3]
    return x * ~box(key, (height, width), (height // 3, height // 3))[None, :, :, None]


def box(key: jax.Array, frame: tuple[int, int], sides: tuple[jax.Array | int, jax.Array | int]) -> jax.Array:
    """Return a mask ``[H, W]``: a rectangle of these sides around a random pixel, cut off at the edges."""
    keys = jax.random.split(key)
    centres = [jax.random.randint(k, (), 0, length) for k, length in zip(keys, frame, strict=True)]
    rows, columns = (
        (jnp.arange(length) >= centre - side // 2) & (jnp.arange(length) < centre - side // 2 + side)
        for length, centre, side in zip(frame, centres, sides, strict=True)
    )
    return rows[:, None] & columns[None]


def event_drop(key: jax.Array, x: jax.Array) -> jax.Array:
    """Drop some events: EventDrop (Gu et al. 2021, arXiv:2106.05836) on counts.

    A pixel may hold a part of an event, which is kept or dropped as a whole. A number below 0 is as many events of the
    other sign.

    One of four changes, equally likely: none; all events of a period of 0.1 to 0.9 of the recording, from a random time
    on; all events of a rectangle whose sides are 0.05 to 0.25 of the frame's; or each event by itself with probability
    0.1 to 0.9. A frame that the period covers in part is thinned in that proportion.
    """
    choice_key, size_key, position_key, thin_key = jax.random.split(key, 4)
    steps, height, width, _ = x.shape
    tenths = jax.random.randint(size_key, (), 1, 10)

    def period() -> jax.Array:
        start = steps * jax.random.uniform(position_key)
        begin = jnp.arange(steps, dtype=jnp.float32)
        covered = jnp.minimum(begin + 1, start + steps * tenths / 10) - jnp.maximum(begin, start)
        return jnp.broadcast_to(1 - jnp.clip(covered, 0, 1)[:, None, None], (steps, height, width))

    def area() -> jax.Array:
        twentieths = jax.random.randint(size_key, (), 1, 6)
        rectangle = box(position_key, (height, width), (height * twentieths // 20, width * twentieths // 20))
        return jnp.broadcast_to(1.0 - rectangle, (steps, height, width))

    changes = (
        lambda: jnp.ones((steps, height, width)),
        period,
        area,
        lambda: jnp.broadcast_to(1 - tenths / 10, (steps, height, width)),
    )
    probability = jax.lax.switch(jax.random.randint(choice_key, (), 0, 4), changes)
    return jnp.sign(x) * thinned(thin_key, jnp.abs(x), probability[..., None])


def thinned(key: jax.Array, x: jax.Array, probability: jax.Array) -> jax.Array:
    """Draw Binomial(x, probability): keep each of a pixel's x events, the last of which may be a part of one.

    A loop over events, 2 to 10 times as fast as ``jax.random.binomial`` for mean counts of 30 to 0.1, on a CPU.

    Args:
      key: random key.
      x: counts, at least 0.
      probability: of the same number of dimensions as ``x``.
    """

    def add(event: jax.Array, counts: jax.Array) -> jax.Array:
        stays = jax.random.uniform(jax.random.fold_in(key, event), x.shape) < probability
        return counts + stays * jnp.clip(x - event, 0, 1)

    return jax.lax.fori_loop(0, jnp.ceil(x.max()).astype(jnp.int32), add, jnp.zeros_like(x))


def batch_crop_flip(key: jax.Array, x: jax.Array, padding: int = 4) -> jax.Array:
    """Crop and flip a whole batch ``[B, T, H, W, C]`` in the same way, as the CSBP authors train DVS-CIFAR10."""
    batch, steps = x.shape[:2]
    frames = x.reshape(batch * steps, *x.shape[2:])
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, crop(crop_key, frames, padding)).reshape(x.shape)


def choose_frames(key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    """Choose ``count`` random frames of ``[B, T, ...]`` in their order, the same for the whole batch.

    SEW ResNet on DVS-Gesture trains on 12 of 16 in this way (Fang et al. 2021, arXiv:2102.04159).
    """
    chosen = jax.random.choice(key, x.shape[1], (count,), replace=False)
    return x[:, jnp.sort(chosen)]
