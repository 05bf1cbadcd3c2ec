"""Augmentation of still images on the host, uint8 to uint8, from uniform random numbers of the caller.

Each function takes images ``x [b, H, W, C]`` and ``u [b, n]`` in [0, 1), with its own n, and returns images.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]
Uniforms = NDArray[np.floating]
Window = tuple[int, int, int, int]
"""``(top, left, height, width)`` within an image."""

_TRIES = 10
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
RESIZED_CROP_UNIFORMS = 2 * _TRIES + 2
_ERASED = 0.25
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)
ERASING_UNIFORMS = 1 + RESIZED_CROP_UNIFORMS


def uniform_integers(u: Uniforms | np.floating, n: int) -> NDArray[np.int64]:
    """Map uniform numbers in [0, 1) to integers 0 ... n - 1, in float64, where the product stays below n."""
    return (np.asarray(u, np.float64) * n).astype(np.int64)


def crop(x: Images, u: Uniforms, padding: int = 4) -> Images:
    """Crop a random window of the image's own size from the image padded by black pixels (He et al. 2016)."""
    batch, height, width, channels = x.shape
    padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels), x.dtype)
    padded[:, padding : padding + height, padding : padding + width] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    top, left = uniform_integers(u, 2 * padding + 1).T
    return np.ascontiguousarray(np.moveaxis(windows[np.arange(batch), top, left], 1, -1))


def flip(x: Images, u: Uniforms) -> Images:
    """Mirror left to right with probability 1/2."""
    chosen, flipped = u[:, 0] < 0.5, x.copy()
    flipped[chosen] = x[chosen, :, ::-1]
    return flipped


def cutout(x: Images, u: Uniforms, side: int, fill: NDArray[Any]) -> Images:
    """Fill a square of ``side`` pixels around a random pixel, cut off at the edges.

    DeVries and Taylor 2017, arXiv:1708.04552: 16 pixels on CIFAR-10, 8 on CIFAR-100. ``fill [C]`` is the mean colour,
    which is 0 once images are normalised.
    """
    inside = []
    for axis, size in ((0, x.shape[1]), (1, x.shape[2])):
        distance = np.arange(size) - uniform_integers(u[:, axis], size)[:, None]
        inside.append((distance >= -(side // 2)) & (distance < side - side // 2))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return np.where(hole[..., None], fill.astype(x.dtype), x)


def random_erasing(x: Images, u: Uniforms, fill: NDArray[Any]) -> Images:
    """Fill a random rectangle of a quarter of the images with one colour (Zhong et al. 2020, arXiv:1708.04896).

    Its area is uniform in 2 to 33 % of the image's, log(width / height) is uniform in ln 0.3 to ln 3.3 (timm's values),
    and its position is uniform among those within the image. After ten tries that do not fit, nothing is erased.

    Args:
      x: ``[b, H, W, C]``.
      u: ``[b, 23]``: chance, area and ratio of each try, then the position.
      fill: ``[C]``, the mean colour, which is 0 once images are normalised.
    """
    erased, (height, width) = x.copy(), x.shape[1:3]
    for image, row in zip(erased, u, strict=True):
        window = _drawn_window((height, width), row[1:], _ERASED_AREA, _ERASED_RATIO) if row[0] < _ERASED else None
        if window is not None:
            top, left, h, w = window
            image[top : top + h, left : left + w] = fill
    return erased


def random_window(height: int, width: int, u: Uniforms) -> Window:
    """Draw the window of random-resized-crop (Szegedy et al. 2015, as in torchvision).

    Its area is uniform in 8 to 100 % of the image's, log(width / height) is uniform in ln 3/4 to ln 4/3, and its
    position is uniform among those that fit. After ten tries that do not fit, it is the largest central window with a
    ratio in that range.

    Args:
      height: of the image.
      width: of the image.
      u: ``[22]``: area and ratio of each try, then the position.
    """
    window = _drawn_window((height, width), u, _AREA, _RATIO)
    if window is not None:
        return window
    h = min(height, round(width / _RATIO[0]))
    w = min(width, round(height * _RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _drawn_window(
    size: tuple[int, int], u: Uniforms, areas: tuple[float, float], ratios: tuple[float, float]
) -> Window | None:
    """Return the first of ten windows that fits into ``size``, at a random position; None if none of them does."""
    height, width = size
    low, high = map(math.log, ratios)
    for area, ratio in u[: 2 * _TRIES].astype(np.float64).reshape(_TRIES, 2):
        target = height * width * (areas[0] + area * (areas[1] - areas[0]))
        aspect = math.exp(low + ratio * (high - low))
        h, w = round(math.sqrt(target / aspect)), round(math.sqrt(target * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(uniform_integers(u[-2], height - h + 1)), int(uniform_integers(u[-1], width - w + 1)), h, w
    return None


def centre_window(height: int, width: int, size: tuple[int, int]) -> Window:
    """Return the central window that fills ``size`` at 7/8: resize to 256 and crop 224, in one step."""
    scale = 7 / 8 * min(height / size[0], width / size[1])
    h, w = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def full_window(height: int, width: int, size: tuple[int, int]) -> Window:
    """Return the window of the whole image, whatever its proportions."""
    return 0, 0, height, width


def resize(image: Images, window: Window, size: tuple[int, int]) -> Images:
    """Resize a window of an image ``[H, W, C]`` to ``size``: bilinear, antialiased."""
    top, left, h, w = window
    cut = np.ascontiguousarray(image[top : top + h, left : left + w])
    resized = Image.fromarray(cut[..., 0] if cut.shape[-1] == 1 else cut)
    return np.asarray(resized.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, -1)


def resized_crop(x: Images, u: Uniforms) -> Images:
    """Crop a ``random_window`` of each image and resize it to the image's own size."""
    height, width = x.shape[1:3]
    windows = [random_window(height, width, row) for row in u]
    return np.stack([resize(image, window, (height, width)) for image, window in zip(x, windows, strict=True)])
