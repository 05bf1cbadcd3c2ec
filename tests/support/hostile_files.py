"""Small files that ask for much memory, wait, start programs, or raise unusual errors in the libraries."""

import os
import struct
import zlib

import numpy as np

from tests.support.formats import encoded, photo, saved, zipped


def npy_header(dtype, shape):
    """An npy header without its data."""
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    return saved(np.lib.format.write_array_header_1_0, header)


def npz(**members):
    """An npz of these bytes or arrays."""
    return zipped({f"{name}.npy": x if isinstance(x, bytes) else saved(np.save, x) for name, x in members.items()})


def npz_bomb(stated=6_000_000_000, written=6_000_000, name="x", **others):
    """An npz with a member that states far more bytes, in the npy header and in the archive, than it holds."""
    content = npz(**others | {name: npy_header("|u1", (stated,)) + bytes(written)})
    header = len(npy_header("|u1", (stated,)))
    small, large = (struct.pack("<I", min(header + size, 2**32 - 2)) for size in (written, stated))
    assert content.count(small) == 2  # the member's own header and the directory
    return content.replace(small, large)


def npz_without_array():
    """An npz whose only member is a text."""
    return zipped({"notes.txt": "no array"})


def wide_jpeg(side=65_500):
    """A JPEG whose header states side x side pixels."""
    content = encoded(photo(0), quality=90)
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", side, side) + content[start + 4 :]


def wide_png(height, width):
    """A PNG whose header states height x width pixels."""
    content = encoded(photo(0), "PNG")
    header = content[12:16] + struct.pack(">II", height, width) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
DDS = b"DDS " + struct.pack("<I", 124) + bytes(120)
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200)

PICTURES = {
    "program.png": (EPS, "it is not an image in one of the formats PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM"),
    "dds.png": (DDS, "it is not an image in one of the formats"),
    "avif.png": (AVIF, "it is not an image in one of the formats"),
    "wide.jpg": (wide_jpeg(), r"cannot be decoded \(it has .*pixels.*\); save it smaller"),
    "wide.png": (wide_png(9_500, 9_500), r"cannot be decoded \(it has .* pixels.*\); save it smaller"),
}
"""{name: (content, message)} of files that a reader of pictures refuses."""

ARRAYS = {
    "notes.npz": (npz_without_array(), r"notes.txt: cannot be read \(.*magic string.*\); save it again"),
    "bomb.npz": (npz_bomb(), "states an array of 6,000,000,000 bytes; allowed are 2,147,483,648; divide it"),
    "vast.npy": (npy_header("<f8", (10**6, 10**6)), "states an array of 8,000,000,000,000 bytes"),
    "long.npy": (npy_header("<f8", (10**6, 10)) + bytes(80), "its header states 80,000,000 bytes of data, but 80"),
    "nothing.npy": (npy_header("|V0", (10**18,)), r"its header states \|V0"),
    "negative.npy": (npy_header("|u1", (-1, 2)) + bytes(9), r"its header states uint8 \(-1, 2\)"),
}
"""The same for a reader of arrays."""


def _events(**changes):
    one = np.ones(3, np.int64)
    return npz(**{"x": one, "y": one, "t": np.arange(3), "p": one} | changes)


EVENTS = {
    "camera.npz": (_events(height=10**9, width=10**9), "camera of height 1000000000 and width 1000000000; allowed are"),
    "camera0.npz": (_events(height=0, width=-1), "camera of height 0 and width -1; allowed are 1 to 8192"),
    "sides.npz": (_events(height=[8, 8], width=8), r"height is int64 \(2,\); save one whole number"),
    "late.npz": (
        _events(t=np.array([0, 1, 2**64 - 1], np.uint64)),
        "t has a value 18446744073709551615, which does not",
    ),
    "letters.npz": (_events(x=b"no array"), r"x: cannot be read \(.*magic string.*\); save it again"),
    "bomb.npz": (_events(t=npy_header("<i8", (10**9,))), "t: states an array of 8,000,000,000 bytes"),
}
"""The same for a reader of events."""


def write(folder, *kinds):
    """Write files and a FIFO ``pipe`` with the first file's suffix; return ``{path: message}``."""
    messages = {}
    for name, (content, message) in [item for kind in kinds for item in kind.items()]:
        (folder / name).write_bytes(content)
        messages[folder / name] = message
    pipe = folder / f"pipe{next(iter(messages)).suffix}"
    os.mkfifo(pipe)
    return messages | {pipe: "is not a regular file, but a folder, pipe or device; give a file"}
