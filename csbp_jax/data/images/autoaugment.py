"""AutoAugment and RandAugment, with torchvision's operations and magnitudes.

AutoAugment's policy is that for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501, table 7). The published code differs
from torchvision, which later recipes use: its factors of brightness, colour, contrast and sharpness are
0.1 + 1.8 level / 10 (torchvision: 1 +- level / 10), and it translates an image of 32 pixels by up to 10 pixels
(torchvision: by up to 150 / 331 of the side).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from csbp_jax.data.images.augment import Images, Uniforms, uniform_integers

UNIFORMS = 5
OPERATION_UNIFORMS = 2
"""Of RandAugment, for each operation."""

Fill = int | tuple[int, ...]
"""A colour: grey, or a value for each channel."""

# 25 pairs of operations: name, probability, level (0 where it has none).
_POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)


def _affine(image: Image.Image, coefficients: tuple[float, ...], fill: Fill) -> Image.Image:
    """Take pixel (x, y) from (a x + b y + c, d x + e y + f), or ``fill`` if that lies outside."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=fill)


# Each takes an image, a level from 0 to 9, a sign, and the colour of pixels from outside the image.
_OPERATIONS: dict[str, Callable[[Image.Image, float, int, Fill], Image.Image]] = {
    "identity": lambda image, level, sign, fill: image,
    "shear_x": lambda image, level, sign, fill: _affine(image, (1, sign * 0.3 * level / 9, 0, 0, 1, 0), fill),
    "shear_y": lambda image, level, sign, fill: _affine(image, (1, 0, 0, sign * 0.3 * level / 9, 1, 0), fill),
    "translate_x": lambda image, level, sign, fill: _affine(
        image, (1, 0, sign * int(150 / 331 * image.width * level / 9), 0, 1, 0), fill
    ),
    "translate_y": lambda image, level, sign, fill: _affine(
        image, (1, 0, 0, 0, 1, sign * int(150 / 331 * image.height * level / 9)), fill
    ),
    "rotate": lambda image, level, sign, fill: image.rotate(sign * 30 * level / 9, fillcolor=fill),
    "brightness": lambda image, level, sign, fill: ImageEnhance.Brightness(image).enhance(1 + sign * level / 10),
    "color": lambda image, level, sign, fill: ImageEnhance.Color(image).enhance(1 + sign * level / 10),
    "contrast": lambda image, level, sign, fill: ImageEnhance.Contrast(image).enhance(1 + sign * level / 10),
    "sharpness": lambda image, level, sign, fill: ImageEnhance.Sharpness(image).enhance(1 + sign * level / 10),
    "posterize": lambda image, level, sign, fill: ImageOps.posterize(image, 8 - round(4 * level / 9)),
    "solarize": lambda image, level, sign, fill: ImageOps.solarize(
        image,
        255 - 255 * level / 9,  # type: ignore[arg-type]  # Pillow only compares it
    ),
    "autocontrast": lambda image, level, sign, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign, fill: ImageOps.equalize(image),
    "invert": lambda image, level, sign, fill: ImageOps.invert(image),
}


_RANDAUGMENT = tuple(name for name in _OPERATIONS if name != "invert")
_MOST_MAGNITUDE = 30


def autoaugment(x: Images, u: Uniforms, fill: NDArray[Any]) -> Images:
    """Apply a random pair of the policy's 25 to each image: each operation with its probability and a random sign.

    Args:
      x: images ``[b, H, W, 1 or 3]``.
      u: ``[b, 5]`` in [0, 1): the pair, then chance and sign of each operation.
      fill: ``[C]``, the colour of pixels from outside the image.
    """

    def operations(row: Uniforms) -> Iterator[tuple[str, float, float]]:
        pair = _POLICY[int(uniform_integers(row[0], len(_POLICY)))]
        for (name, probability, level), chance, sign in zip(pair, row[1::2], row[2::2], strict=True):
            if chance < probability:
                yield name, level, sign

    return _applied(x, u, operations, fill)


def randaugment(x: Images, u: Uniforms, magnitude: int, fill: NDArray[Any]) -> Images:
    """Apply random operations of one magnitude to each image (Cubuk et al. 2020, arXiv:1909.13719).

    Args:
      x: images ``[b, H, W, 1 or 3]``.
      u: ``[b, 2 n]`` in [0, 1), for n operations: which of the 14, and its sign.
      magnitude: from 0 to 30, at which the operations have AutoAugment's greatest strength.
      fill: ``[C]``, the colour of pixels from outside the image.
    """
    level = 9 * magnitude / _MOST_MAGNITUDE

    def operations(row: Uniforms) -> Iterator[tuple[str, float, float]]:
        for choice, sign in row.reshape(-1, OPERATION_UNIFORMS):
            yield _RANDAUGMENT[int(uniform_integers(choice, len(_RANDAUGMENT)))], level, sign

    return _applied(x, u, operations, fill)


def _applied(
    x: Images, u: Uniforms, operations: Callable[[Uniforms], Iterator[tuple[str, float, float]]], fill: NDArray[Any]
) -> Images:
    """Apply to each image the operations (name, level, sign) of its row of uniforms."""
    augmented = np.empty_like(x)
    for i, pixels in enumerate(x):
        grey = pixels.shape[-1] == 1
        image = Image.fromarray(pixels[..., 0] if grey else pixels)
        colour = int(fill[0]) if grey else tuple(map(int, fill))
        for name, level, sign in operations(u[i]):
            image = _OPERATIONS[name](image, level, 1 if sign < 0.5 else -1, colour)
        augmented[i] = np.asarray(image).reshape(pixels.shape)
    return augmented
