"""JPEG, PNG, ... to RGB, by the fastest decoder that is installed: simplejpeg, else OpenCV, else Pillow.

All three hold libjpeg-turbo and give the same pixels, CMYK to within 1. None turns a picture by its EXIF orientation.

A file that is cut short, or none, is an error. Bytes that are wrong in the middle of a JPEG are not: most leave a valid
stream of other pixels, which no decoder can notice, and of the others ("extraneous bytes before marker") many pictures
that are otherwise whole have some. What finds such damage is the checksum of the archive.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from csbp_jax.config import ConfigError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None  # type: ignore[assignment]
try:
    import cv2

    cv2.setNumThreads(0)  # its own threads fight those that read ahead
except ImportError:
    cv2 = None  # type: ignore[assignment]


class TooDeep(ValueError):
    """A picture of more than 8 bits a channel."""


def by_simplejpeg(data: bytes) -> np.ndarray:
    """A JPEG's pixels [H, W, 3] uint8. Raises ValueError."""
    return simplejpeg.decode_jpeg(data, "RGB")


def by_cv2(data: bytes) -> np.ndarray:
    """A JPEG's pixels [H, W, 3] uint8. Raises ValueError; damage inside the stream is only told on stderr."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("no JPEG, or a truncated one")
    return pixels


def by_pillow(data: bytes) -> np.ndarray:
    """A picture's pixels [H, W, 3] uint8, grey repeated, transparency left out. Raises ValueError."""
    if not data:
        raise ValueError("it is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise TooDeep("it has more than 8 bits a channel")
            # Pillow warns of palettes with transparency unless they go through RGBA.
            return np.asarray((image.convert("RGBA") if "transparency" in image.info else image).convert("RGB"))
    except Image.UnidentifiedImageError:
        raise ValueError("it is no picture that Pillow knows") from None
    # Pillow's parsers let any of these through, depending on where the bytes go wrong.
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


FASTEST: Callable[[bytes], np.ndarray] = by_simplejpeg if simplejpeg else by_cv2 if cv2 else by_pillow


def decode(data: bytes, record: str, decoder: Callable[[bytes], np.ndarray] = FASTEST) -> np.ndarray:
    """The picture's pixels ``[H, W, 3]`` uint8.

    Args:
      data: a whole file.
      record: what an error calls it.
      decoder: for JPEG; what it refuses, and all that is no JPEG, goes to Pillow, which repairs small faults.

    Raises:
      ConfigError: truncated, empty, or no picture; names the record.
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
