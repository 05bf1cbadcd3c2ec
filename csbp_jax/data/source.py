"""Random-access sources of records: the protocol of all data sets, and an adapter for user-defined sources."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Record = dict[str, Array]
"""``{"x": [T or 1, ...], "y": []}``: one example and its label."""
Batch = dict[str, Array]
"""``{"x": [B, T or 1, ...], "y": [B]}``, and possibly further arrays with one entry per example."""


@runtime_checkable
class DataSource(Protocol):
    """Records of one split, by index.

    A subclass needs ``__len__``, ``__getitem__`` and ``classes``; the rest has defaults. Any other class with all of
    these members is a source as well.
    """

    classes: int
    """Number of classes."""
    events: bool = False
    """Whether records are frames of events ``[T, ...]``; otherwise they are static inputs ``[1, ...]``."""
    num_uniforms: int = 0
    """Number of uniform random numbers per record that ``take`` uses, the only randomness on the host."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Record: ...

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack records into a batch, and augment them if the source does so.

        Args:
          indices: ``[b]``, numbers of the records.
          uniforms: ``[b, num_uniforms]``, random numbers in [0, 1).
        """
        del uniforms
        return stack([self[int(i)] for i in indices])


class ArraySource(DataSource):
    """Records in memory: static inputs if T is 1, otherwise frames.

    Args:
      x: ``[N, T or 1, ...]``.
      y: labels ``[N]``.
      classes: number of classes.
    """

    def __init__(self, x: Array, y: Array, classes: int):
        self.x, self.y, self.classes, self.events = x, y, classes, x.shape[1] > 1

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int, /) -> Record:
        return {"x": self.x[i], "y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack the records ``indices [b]``; ``uniforms`` is ignored."""
        del uniforms
        return {"x": self.x[indices], "y": self.y[indices]}

    @property
    def fingerprint(self) -> str:
        """A checksum of all records."""
        digest = hashlib.sha256(f"{self.x.dtype} {self.x.shape}".encode())
        for array in (self.x, self.y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class UserSource(DataSource):
    """User-defined source, with defaults for the members that it lacks.

    Args:
      source: has ``__len__``, ``__getitem__`` and ``classes``; may have ``events``, ``num_uniforms``, ``take``,
        ``class_names`` and ``fingerprint``.
    """

    def __init__(self, source: Any):
        self.source = source
        self.classes = source.classes
        self.events = bool(getattr(source, "events", False))
        self.num_uniforms = getattr(source, "num_uniforms", 0)
        self.class_names = tuple(map(str, getattr(source, "class_names", ())))

    @property
    def fingerprint(self) -> str:
        """A string that changes when the records change; empty if the source has none."""
        return str(getattr(self.source, "fingerprint", ""))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        record: Record = self.source[i]
        return record

    def take(self, indices: Array, uniforms: Array) -> Batch:
        if not hasattr(self.source, "take"):
            return super().take(indices, uniforms)
        batch: Batch = self.source.take(indices, uniforms)
        return batch


def as_data_source(source: Any) -> DataSource:
    """Complete a source with the defaults of the protocol if it lacks any member."""
    return source if isinstance(source, DataSource) else UserSource(source)


def take(source: Any, indices: Array, uniforms: Array) -> Batch:
    """Stack records of any source, even one that defines no ``take``."""
    return as_data_source(source).take(indices, uniforms)


def example_batch(source: DataSource) -> Batch:
    """Read record 0 as a batch of one, in the form of training batches."""
    return source.take(np.zeros(1, int), np.zeros((1, source.num_uniforms), np.float32))


def stack(records: Sequence[Record]) -> Batch:
    """Stack ``x`` and ``y`` of records into a batch."""
    return {key: np.stack([record[key] for record in records]) for key in ("x", "y")}
