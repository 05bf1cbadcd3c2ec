"""Conversion of TensorFlow Datasets directories from tfrecord to array_record, without TensorFlow."""

import functools
import json
import pathlib
import struct
from collections.abc import Iterator

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.images import records
from csbp_jax.runtime import files

_LANE = 32
_START = bytes.fromhex("54641f64")  # its remainder is 0xFFFFFFFF, the initial value of a CRC
Bits = NDArray[np.uint32]

# The remainder of each byte.
_TABLE: Bits = np.arange(256, dtype=np.uint32)
for _ in range(8):
    _TABLE = np.where(_TABLE & 1, (_TABLE >> 1) ^ np.uint32(0x82F63B78), _TABLE >> 1)


def convert(source: pathlib.Path, target: pathlib.Path, show: Show) -> None:
    """Copy the records of ``source``, in their order, and its metadata to the new directory ``target``.

    Args:
      source: contains ``dataset_info.json`` and ``*.tfrecord-00000-of-00001``.
      target: must not exist.
      show: progress callback ``show(stage, done, total)``, in bytes.

    Raises:
      ConfigError: a shard is missing or truncated, or a checksum is wrong; names file and record.
    """
    info = records.metadata(source)
    target.mkdir(parents=True)
    shards = sorted(source.glob("*.tfrecord-*"))
    total, done = sum(shard.stat().st_size for shard in shards), 0
    counts: dict[str, list[int]] = {}
    for shard in shards:
        writer = ArrayRecordWriter(str(target / shard.name.replace(".tfrecord-", ".array_record-")), "group_size:1")
        count = 0
        for record in read(shard):
            writer.write(record)
            count += 1
            done += len(record) + 16
            show(f"convert {shard.name}", done, total)
        writer.close()
        counts.setdefault(shard.name.split(".tfrecord-")[0], []).append(count)
    for split in info["splits"]:
        actual = counts.get(f"{info['name']}-{split['name']}", [])
        # Protobuf leaves a list out that is empty.
        if actual != (expected := [int(n) for n in split.get("shardLengths", [])]):
            raise ConfigError(
                f"{source}: {split['name']} has shards of {actual} records, but dataset_info.json says {expected}; "
                "copy it again"
            )
    for file in source.iterdir():
        if file.suffix in (".json", ".txt") and file.name != "dataset_info.json":
            (target / file.name).write_bytes(file.read_bytes())
    (target / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}, indent=2))


def read(path: pathlib.Path) -> Iterator[bytes]:
    """Iterate over the records of a tfrecord file: length (8 bytes), its checksum (4), payload, its checksum (4).

    Raises:
      ConfigError: the file ends inside a record, a checksum is wrong, or it is no regular file.
    """
    files.check(path)
    with open(path, "rb") as file:
        for number in range(2**63):
            head = file.read(12)
            if not head:
                return
            length = int.from_bytes(head[:8], "little")
            # Before the body is read: a wrong length would allocate far too much memory.
            if len(head) == 12 and struct.unpack("<I", head[8:])[0] != masked(head[:8]):
                raise ConfigError(f"{path}: record {number}: the checksum of its length is wrong; copy the file again")
            body = file.read(length + 4) if len(head) == 12 else b""
            if len(body) != length + 4:
                raise ConfigError(f"{path}: ends inside record {number}; copy the file again")
            if struct.unpack("<I", body[-4:])[0] != masked(body[:-4]):
                raise ConfigError(f"{path}: record {number}: its checksum is wrong; copy the file again")
            yield body[:-4]


def masked(data: bytes) -> int:
    """Compute the checksum of a tfrecord file: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Compute CRC-32 with Castagnoli's polynomial (RFC 3720, appendix B.4).

    A CRC is linear in the message. So the remainders of lanes of 32 bytes are computed in parallel, and neighbours are
    combined pairwise until one is left: the left remainder, shifted by the length of the right lane, xor the right one.
    """
    message = _START + data
    lanes = np.frombuffer(bytes(-len(message) % _LANE) + message, np.uint8).reshape(-1, _LANE)
    state = np.zeros(len(lanes), np.uint32)
    for column in lanes.T:
        state = _TABLE[(state ^ column) & 255] ^ (state >> 8)
    level = 0
    while len(state) > 1:
        if len(state) % 2:
            state = np.concatenate([np.zeros(1, np.uint32), state])
        state = _apply(_shift(level), state[::2]) ^ state[1::2]
        level += 1
    return int(~state[0])


@functools.cache
def _shift(level: int) -> Bits:
    """Tabulate the effect of _LANE 2**level zero bytes on each byte of a remainder, ``[4, 256]``."""
    if level:
        half = _shift(level - 1)
        return _apply(half, half)
    state = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(_LANE):
        state = _TABLE[state & 255] ^ (state >> 8)
    return state


def _apply(operator: Bits, state: Bits) -> Bits:
    return np.bitwise_xor.reduce([operator[k][(state >> np.uint32(8 * k)) & 255] for k in range(4)])
