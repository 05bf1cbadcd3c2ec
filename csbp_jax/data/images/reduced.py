"""ImageNet's JPEGs reduced to a shorter side, once, so that training decodes fewer pixels."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from csbp_jax.data.download.fetch import Show
from csbp_jax.data.images import records
from csbp_jax.data.images.decode import decode

QUALITY = 95
"""JPEG quality of reduced images, with Pillow's tables and its subsampling of colour (4:2:0)."""
_CHUNK = 256


def description(side: int) -> str:
    """Describe how images were reduced, for ``dataset_info.json``."""
    return f"Larger images reduced to a shorter side of {side} pixels (Lanczos), as RGB JPEGs of quality {QUALITY}"


def reduce(jpeg: bytes, side: int, record: str) -> bytes:
    """Reduce an encoded image to a shorter side, by Lanczos resampling; one that is not larger stays as it is.

    Raises:
      ConfigError: it cannot be decoded; names the record.
    """
    pixels = decode(jpeg, record)
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return jpeg
    image = Image.fromarray(pixels).resize((round(scale * width), round(scale * height)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def reduced_records(source: Any, split: str, side: int, show: Show) -> Iterator[tuple[str, Any]]:
    """Iterate over ``(key, record)`` of a split with reduced images; all cores work on them."""

    def with_reduced(record: dict[str, Any]) -> dict[str, Any]:
        name = os.fsdecode(record["file_name"])
        return record | {"file_name": name, "image": reduce(record["image"], side, name), "label": int(record["label"])}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(source)))
            for record in pool.map(with_reduced, records.read(source, rows)):
                yield record["file_name"], record
            show(f"reduce {split}", rows.stop, len(source))
