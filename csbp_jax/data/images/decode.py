"""Image decoding to RGB by the fastest decoder installed: simplejpeg, else OpenCV, else Pillow.

All three use libjpeg-turbo and return the same pixels, for CMYK to within 1. None applies the EXIF orientation.

A truncated file is an error, and so is one that is not an image. Wrong bytes in the middle of a JPEG are not an error:
most leave a valid stream of other pixels, which no decoder can notice, and others ("extraneous bytes before marker")
also occur in many intact images. Such damage is detected by the checksum of the archive.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from csbp_jax.config import ConfigError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import cv2

    cv2.setNumThreads(0)  # its own threads compete with those that read ahead
except ImportError:
    cv2 = None  # type: ignore[assignment, unused-ignore]  # whether it has types depends on what is installed

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]
"""From a complete file to pixels ``[H, W, 3]``; raises ValueError."""


class TooDeep(ValueError):
    """An image has more than 8 bits per channel."""


def by_simplejpeg(data: bytes) -> Pixels:
    """Decode a JPEG to pixels ``[H, W, 3]`` by simplejpeg. Raises ValueError."""
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    return pixels


def by_cv2(data: bytes) -> Pixels:
    """Decode a JPEG to pixels ``[H, W, 3]`` by OpenCV. Raises ValueError; damage in the stream only warns on stderr."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("not a JPEG, or a truncated one")
    return np.asarray(pixels, np.uint8)


def by_pillow(data: bytes) -> Pixels:
    """Decode an image to pixels ``[H, W, 3]`` by Pillow, grey repeated and transparency dropped. Raises ValueError."""
    if not data:
        raise ValueError("it is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise TooDeep("it has more than 8 bits per channel")
            # Pillow warns of palettes with transparency unless they go through RGBA.
            return np.asarray((image.convert("RGBA") if "transparency" in image.info else image).convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError("it is not in an image format that Pillow reads") from None
    # Pillow's parsers let any of these through, depending on where the bytes are wrong.
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


FASTEST: Decoder = by_simplejpeg if simplejpeg else by_cv2 if cv2 else by_pillow


def decode(data: bytes, record: str, decoder: Decoder = FASTEST) -> Pixels:
    """Decode an image file to pixels ``[H, W, 3]``.

    Args:
      data: a complete file.
      record: name for error messages.
      decoder: for JPEG; files that it rejects, and those of other formats, go to Pillow, which repairs small faults.

    Raises:
      ConfigError: truncated, empty, or not an image; names the record.
    """
    if data[:2] == b"\xff\xd8":
        try:
            return decoder(data)
        except ValueError:
            pass
    try:
        return by_pillow(data)
    except TooDeep as error:
        raise ConfigError(f"{record}: cannot be decoded ({error}); save it with 8") from None
    except ValueError as error:
        raise ConfigError(f"{record}: cannot be decoded ({error}); fetch it again") from None
