"""Augmentation of still pictures on the host: uint8 in, uint8 out, every choice from uniform numbers that are given.

Each function takes pictures ``x [b, H, W, C]`` and ``u [b, draws]`` in [0, 1), and returns pictures.
"""

import math

import numpy as np
from PIL import Image

_PAD = 4
_TRIES = 10
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
RESIZED_CROP_DRAWS = 2 * _TRIES + 2


def whole(u: np.ndarray, n: int | np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) to whole ones in 0 ... n - 1; in float64, where the product stays below n."""
    return (np.asarray(u, np.float64) * n).astype(np.int64)


def crop(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A window of the picture's own size, anywhere in the picture with 4 black pixels around it (He et al. 2016)."""
    batch, height, width, channels = x.shape
    padded = np.zeros((batch, height + 2 * _PAD, width + 2 * _PAD, channels), x.dtype)
    padded[:, _PAD:-_PAD, _PAD:-_PAD] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    top, left = whole(u, 2 * _PAD + 1).T
    return np.ascontiguousarray(np.moveaxis(windows[np.arange(batch), top, left], 1, -1))


def flip(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Left and right change places, every other time."""
    turned, flipped = u[:, 0] < 0.5, x.copy()
    flipped[turned] = x[turned, :, ::-1]
    return flipped


def cutout(x: np.ndarray, u: np.ndarray, side: int, fill: np.ndarray) -> np.ndarray:
    """A square of ``side`` pixels is filled; its centre is any pixel, so that part of it may lie outside.

    DeVries and Taylor 2017, arXiv:1708.04552: 16 pixels on CIFAR-10, 8 on CIFAR-100. ``fill [C]`` is the mean colour,
    which is 0 once pictures are normalised.
    """
    inside = []
    for axis, size in ((0, x.shape[1]), (1, x.shape[2])):
        distance = np.arange(size) - whole(u[:, axis], size)[:, None]
        inside.append((distance >= -(side // 2)) & (distance < side - side // 2))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return np.where(hole[..., None], fill.astype(x.dtype), x)


def random_window(height: int, width: int, u: np.ndarray) -> tuple[int, int, int, int]:
    """``(top, left, height, width)`` of the window of random-resized-crop (Szegedy et al. 2015, as torchvision has it).

    Its area is uniform in 8 to 100 % of the picture's, the logarithm of width / height in ln 3/4 to ln 4/3, its place
    among those that fit. After ten that do not fit: the largest at the centre whose ratio is allowed.

    Args:
      u: [22]; the area and the ratio of each try, then the place.
    """
    low, high = map(math.log, _RATIO)
    for area, ratio in u[: 2 * _TRIES].astype(np.float64).reshape(_TRIES, 2):
        target = height * width * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        aspect = math.exp(low + ratio * (high - low))
        h, w = round(math.sqrt(target / aspect)), round(math.sqrt(target * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(whole(u[-2], height - h + 1)), int(whole(u[-1], width - w + 1)), h, w
    h = min(height, round(width / _RATIO[0]))
    w = min(width, round(height * _RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def centre_window(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """``(top, left, height, width)`` of the centre that fills ``size`` at 7/8: resize to 256 and crop 224, in one."""
    scale = 7 / 8 * min(height / size[0], width / size[1])
    h, w = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def whole_window(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """``(top, left, height, width)`` of the whole picture, whatever its proportions."""
    del size
    return 0, 0, height, width


def resize(picture: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The window ``(top, left, height, width)`` of a picture [H, W, C] at ``size``: bilinear, antialiased."""
    top, left, h, w = window
    part = np.ascontiguousarray(picture[top : top + h, left : left + w])
    image = Image.fromarray(part[..., 0] if part.shape[-1] == 1 else part)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, -1)


def resized_crop(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """``random_window`` of each picture at the picture's own size."""
    height, width = x.shape[1:3]
    windows = [random_window(height, width, row) for row in u]
    return np.stack([resize(picture, window, (height, width)) for picture, window in zip(x, windows, strict=True)])
