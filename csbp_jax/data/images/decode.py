"""Image decoding to RGB by simplejpeg where it is installed, else by Pillow.

Only images in the formats of ``FORMATS`` are read, whatever a file is called: Pillow itself chooses among all of its
formats by content, and some, such as EPS, start other programs. Sizes are checked before memory is allocated.

Both use libjpeg-turbo and return the same pixels, for CMYK to within 1. Neither applies the EXIF orientation.

A truncated file is an error, and so is one that is not an image. Wrong bytes in the middle of a JPEG are not an error:
most leave a valid stream of other pixels, which no decoder can notice, and others ("extraneous bytes before marker")
also occur in many intact images. Such damage is detected by the checksum of the archive.
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from csbp_jax.config import ConfigError, one_line
from csbp_jax.runtime import files

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]
"""From a complete file to pixels ``[H, W, 3]``; raises ValueError."""


FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats of images that are read, by Pillow's names: those that it decodes in its own process."""
REPLACE = "replace it"
"""What an error says to do with a damaged picture of the user's own."""
MAX_PIXELS = 89_478_485
"""Most pixels of an image, 256 MiB of RGB: the number above which Pillow warns."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # such images are refused below


class Unfit(ValueError):
    """An intact image that is not read; its message says what it has too much of."""


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise Unfit(f"it has {height} x {width} pixels; allowed are {MAX_PIXELS:,} in all")


@contextlib.contextmanager
def open_image(source: pathlib.Path | IO[bytes]) -> Iterator[Image.Image]:
    """Open an image in one of ``FORMATS`` by Pillow, without decoding it.

    Raises:
      ValueError: not such an image, damaged, or too large; also for errors of Pillow while it is decoded in the block.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_pixels(image.height, image.width)
            yield image
    except Unfit:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"it is not an image in one of the formats {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):  # the latter at twice the pixels
        raise Unfit(f"it has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's parsers raise many types, depending on where the bytes are wrong
        raise ValueError(one_line(error)) from None


def picture_shape(path: pathlib.Path) -> tuple[int, int, int]:
    """Return a picture's height, width and channels, 1 if it is grey and else 3, without decoding it.

    Raises:
      ConfigError: not a picture, damaged, or too large.
    """
    files.check(path)
    with _decoded(str(path), REPLACE), open_image(path) as image:
        return image.height, image.width, 1 if image.mode in ("1", "L", "LA") else 3


@contextlib.contextmanager
def _decoded(record: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if isinstance(error, Unfit):
            remedy = "save it smaller, with 8 bits a channel"
        raise ConfigError(f"{record}: cannot be decoded ({error}); {remedy}") from None


def to_grey(pixels: Pixels, record: str) -> Pixels:
    """Return the only channel ``[H, W, 1]`` of a picture ``[H, W, 3]``.

    Raises:
      ConfigError: it is coloured; names the record.
    """
    if (pixels != pixels[..., :1]).any():
        raise ConfigError(f"{record}: is coloured, but this run was trained on grey pictures; save it as grey")
    return pixels[..., :1]


def by_simplejpeg(data: bytes) -> Pixels:
    """Decode a JPEG to pixels ``[H, W, 3]`` by simplejpeg. Raises ValueError."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(height, width)
    return simplejpeg.decode_jpeg(data, "RGB")


def by_pillow(data: bytes) -> Pixels:
    """Decode an image to pixels ``[H, W, 3]`` by Pillow, grey repeated and transparency dropped. Raises ValueError."""
    if not data:
        raise ValueError("it is empty")
    with open_image(io.BytesIO(data)) as image:
        if image.mode.startswith(("I", "F")):
            raise Unfit("it has more than 8 bits per channel")
        # Pillow warns of palettes with transparency unless they go through RGBA.
        return np.asarray((image.convert("RGBA") if "transparency" in image.info else image).convert("RGB"))


FASTEST: Decoder = by_simplejpeg if simplejpeg else by_pillow


def decode(data: bytes, record: str, decoder: Decoder = FASTEST, remedy: str = "fetch it again") -> Pixels:
    """Decode an image file to pixels ``[H, W, 3]``.

    Args:
      data: a complete file.
      record: name for error messages.
      decoder: for JPEG; files that it rejects, and those of other formats, go to Pillow, which repairs small faults.
      remedy: what an error says to do with a damaged file.

    Raises:
      ConfigError: truncated, empty, too large, or not an image; names the record.
    """
    if data[:2] == b"\xff\xd8":
        with contextlib.suppress(ValueError):
            return decoder(data)
    with _decoded(record, remedy):
        return by_pillow(data)
