"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501, table 7), with magnitudes as torchvision's.

The published code differs from torchvision, which later recipes use: there, brightness, colour, contrast and sharpness
have factors 0.1 + 1.8 level / 10, where here they are 1 +- level / 10, and a picture of 32 pixels moves by up to 10 of
them, here by up to 150 / 331 of its side.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from csbp_jax.data.images.augment import whole

DRAWS = 5

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


def _affine(image, coefficients, fill):
    """Pixel (x, y) is that of (a x + b y + c, d x + e y + f) in the image, or ``fill`` outside."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=fill)


# Of an image, its level from 0 to 9, a sign, and the colour for what comes from outside.
_OPERATIONS = {
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
    "solarize": lambda image, level, sign, fill: ImageOps.solarize(image, 255 - 255 * level / 9),
    "autocontrast": lambda image, level, sign, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign, fill: ImageOps.equalize(image),
    "invert": lambda image, level, sign, fill: ImageOps.invert(image),
}


def autoaugment(x: np.ndarray, u: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """One of the 25 pairs for each picture; an operation happens with its probability, with a random sign.

    Args:
      x: pictures [b, H, W, 1 or 3] uint8.
      u: [b, 5] in [0, 1): the pair, then chance and sign of each operation.
      fill: [C], the colour for what comes from outside the picture.
    """
    augmented = np.empty_like(x)
    for i, picture in enumerate(x):
        grey = picture.shape[-1] == 1
        image = Image.fromarray(picture[..., 0] if grey else picture)
        colour = int(fill[0]) if grey else tuple(map(int, fill))
        pair = _POLICY[whole(u[i, 0], len(_POLICY))]
        for (name, probability, level), chance, sign in zip(pair, u[i, 1::2], u[i, 2::2], strict=True):
            if chance < probability:
                image = _OPERATIONS[name](image, level, 1 if sign < 0.5 else -1, colour)
        augmented[i] = np.asarray(image).reshape(picture.shape)
    return augmented
