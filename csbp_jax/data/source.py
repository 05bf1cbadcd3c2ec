"""Random-access sources of records: the protocol of all data sets, and an adapter for user-defined sources."""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, Loss
from csbp_jax.data import targets

Array = NDArray[Any]
Record = dict[str, Array]
"""``{"x": [T or 1, ...], "y": []}``: one example and its target, which may have axes."""
Batch = dict[str, Array]
"""``{"x": [B, T or 1, ...], "y": [B, ...]}``, and possibly further arrays with one entry per example."""

_CLASSES = Loss()  # whose targets are classes
# Of the module and not of a source: several may share an open file, and a lock cannot be pickled for worker processes.
_ONE_THREAD = threading.RLock()  # reentrant, since a user's source may read another


class DataSource(Protocol):
    """Records of one split, by index. Each stream of batches reads them in threads of its own.

    A subclass needs ``__len__``, ``__getitem__`` and ``classes``; the rest has defaults. Any other class with all of
    these members is a source as well.
    """

    classes: int
    """Number of classes, or of labels or values of a target (``loss.task``)."""
    lengths: Array | None = None
    """Time steps of each record, ``[N]``; None if all of all splits have as many."""
    per_step: bool = False
    """Whether a target has a time axis, its first (``loss.per``)."""
    events: bool = False
    """Whether records are frames of events ``[T, ...]``; otherwise they are static inputs ``[1, ...]``."""
    num_uniforms: int = 0
    """Number of uniform random numbers per record that ``take`` uses, the only randomness on the host.

    Evaluation reads a source with some record by record, not by ``take``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Record: ...

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack records into a batch, and augment them if the source does so.

        Args:
          indices: ``[b]``, numbers of the records.
          uniforms: ``[b, num_uniforms]``, random numbers in [0, 1).
        """
        del uniforms
        return stack([self[int(i)] for i in indices], self.per_step)


class ArraySource(DataSource):
    """Records in memory: static inputs if T is 1, otherwise frames.

    Args:
      x: ``[N, T or 1, ...]``, or a list of frames ``[T_i, ...]`` of several lengths.
      y: targets ``[N, ...]``, or a list of those of every time step, ``[T_i, ...]``.
      classes: number of classes, labels or values.
      per_step: whether targets are those of every time step.
    """

    def __init__(self, x: Array | Sequence[Array], y: Array | Sequence[Array], classes: int, per_step: bool = False):
        self.x: Any = x
        self.y: Any = y
        self.classes, self.per_step = classes, per_step
        self.lengths = None if isinstance(x, np.ndarray) else np.array([len(record) for record in x])
        self.events = self.lengths is not None or np.shape(x)[1] > 1

    def __repr__(self) -> str:
        x = self.x if isinstance(self.x, np.ndarray) else self.x[0]
        return f"{type(self).__name__}(x {x.dtype} {x.shape}, {self.classes} classes)"

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int, /) -> Record:
        return {"x": self.x[i], "y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack the records ``indices [b]``; ``uniforms`` is ignored."""
        if isinstance(self.x, np.ndarray) and isinstance(self.y, np.ndarray):
            return {"x": self.x[indices], "y": self.y[indices]}
        return super().take(indices, uniforms)

    @property
    def fingerprint(self) -> str:
        """A checksum of all records."""
        first = self.x if isinstance(self.x, np.ndarray) else self.x[0]
        digest = hashlib.sha256(f"{first.dtype} {first.shape}".encode())
        for records in (self.x, self.y):
            for array in [records] if isinstance(records, np.ndarray) else records:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class UserSource(DataSource):
    """User-defined source, with defaults for the members that it lacks.

    Its records are checked as they are read, since there may be too many to read them all before training.

    Args:
      source: has ``__len__``, ``__getitem__`` and ``classes``; may have ``lengths``, ``events``, ``num_uniforms``,
        ``take``, ``class_names`` and ``fingerprint``.
      name: what messages begin with.
      thread_safe: whether several threads may read it at once; otherwise they read all such sources in turn.
      loss: what targets are; by default a class.
    """

    def __init__(self, source: Any, name: str, thread_safe: bool = True, loss: Loss = _CLASSES):
        self.source, self.name, self.thread_safe, self.loss = source, name, thread_safe, loss
        self.per_step, lengths = loss.per == "step", getattr(source, "lengths", None)
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.classes = int(source.classes)  # NumPy's integers are not JSON
        self.events = bool(getattr(source, "events", False)) or self.lengths is not None
        self.num_uniforms = getattr(source, "num_uniforms", 0)
        self.class_names = tuple(map(str, getattr(source, "class_names", ())))

    @property
    def fingerprint(self) -> str:
        """A string that changes when the records change; empty if the source has none."""
        return str(getattr(self.source, "fingerprint", ""))

    def __len__(self) -> int:
        with self._turn():
            return len(self.source)

    def __getitem__(self, i: int) -> Record:
        """Read a record.

        Raises:
          ConfigError: it has another form or shape than record 0, another length than it should, or a wrong target.
        """
        with self._turn():
            record = self._checked(np.asarray(i), self.source[i])
        shape = np.shape(record["x"])
        expected = self._shape if self.lengths is None else (int(self.lengths[i]), *self._shape[1:])
        if shape != expected:
            of = "that of record 0" if self.lengths is None else "by its length"
            raise ConfigError(f"{self.name}: x of record {i} is {shape}, but {of} {expected}; expected is one shape")
        return record

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        with self._turn():
            return np.shape(self.source[0]["x"])

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack records into a batch, as the source does if it defines this.

        Raises:
          ConfigError: as for a single record; of a source's own batch, only targets are checked.
        """
        if not hasattr(self.source, "take"):
            return super().take(indices, uniforms)
        with self._turn():
            return self._checked(indices, self.source.take(indices, uniforms))

    def _turn(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.thread_safe else _ONE_THREAD

    def _checked(self, indices: Array, records: Any) -> Record:
        """Return a record, or a batch of several, with checked targets: labels and values as float32 ``[..., K]``."""
        try:
            steps, y = np.shape(records["x"])[indices.ndim], records["y"]
        except (IndexError, KeyError, TypeError, ValueError):
            by = " by take" * indices.ndim
            raise ConfigError(
                f"{self.name}: record {indices.flat[0]}{by} is not a dict with x and y; expected is "
                '{"x": [T or 1, ...], "y": []}'
            ) from None
        axes = indices.ndim + self.per_step
        count = [*np.shape(y)[indices.ndim :], 0][0]
        if self.per_step and count != steps > 1:  # else they would be padded as records are
            raise ConfigError(
                f"{self.name}: y of record {indices.flat[0]} has {count} time steps, but x {steps}; loss.per step "
                "needs a target for each"
            )
        if self.loss.task != "class":
            y = targets.numbers(y, axes, self.loss, self.classes, f"{self.name}: record {indices.flat[0]}")
            return records | {"y": y}
        labels = np.asarray(y)
        if labels.dtype.kind not in "iu" or labels.shape[: indices.ndim] != indices.shape or labels.ndim != axes:
            raise ConfigError(
                f"{self.name}: y of record {indices.flat[0]} is {labels.dtype} {labels.shape}; expected is an integer "
                f"{indices.shape}{' for each time step' * self.per_step}"
            )
        wrong = np.argwhere((labels < 0) | (labels >= self.classes))
        if len(wrong):
            raise ConfigError(
                f"{self.name}: record {indices[tuple(wrong[0][: indices.ndim])]} has label {labels[tuple(wrong[0])]}; "
                f"expected are 0 to {self.classes - 1}"
            )
        return records


class Rows(DataSource):
    """Some records of a source, by their numbers ``rows [n]``; all by default."""

    def __init__(self, source: DataSource, rows: Array | None = None):
        self.source, self.classes, self.events, self.per_step = source, source.classes, source.events, source.per_step
        self.rows = np.arange(len(source)) if rows is None else rows
        self.lengths = None if source.lengths is None else source.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Record:
        return self.source[int(self.rows[i])]


class Unaugmented(Rows):
    """Records of a source, or some of them, without the augmentation that its ``take`` may do.

    A source that draws random numbers is read record by record, any other by its ``take``.
    """

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Read a batch as evaluation does; ``uniforms`` is ``[b, 0]``."""
        if self.source.num_uniforms:
            return super().take(indices, uniforms)
        return self.source.take(self.rows[indices], uniforms)


class Drawn(Rows):
    """Some records of a source, by their numbers ``rows [n]``, with labels ``y [n]``, by default their own."""

    def __init__(self, source: DataSource, rows: Array, y: Array | None = None):
        super().__init__(source, rows)
        self.num_uniforms = source.num_uniforms
        self.y = np.array([source[int(i)]["y"] for i in rows]) if y is None else y

    def __getitem__(self, i: int) -> Record:
        return super().__getitem__(i) | {"y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack the records, as the source does, with these labels."""
        return self.source.take(self.rows[indices], uniforms) | {"y": self.y[indices]}


def example_batch(source: DataSource) -> Batch:
    """Read record 0 as a batch of one, in the form of training batches."""
    return source.take(np.zeros(1, int), np.zeros((1, source.num_uniforms), np.float32))


def stack(records: Sequence[Record], per_step: bool = False) -> Batch:
    """Stack ``x`` and ``y`` of records into a batch, padded to the longest; ``y`` too, if it is ``per_step``."""
    batches = [{key: np.asarray(record[key])[None] for key in ("x", "y")} for record in records]
    return {name: rows[:, 0] for name, rows in stack_batches(batches, per_step).items()}


def stack_batches(batches: Sequence[Batch], per_step: bool) -> Batch:
    """Stack batches along a new first axis, padded to the longest."""
    longest = max(max(batch["x"].shape[1:2], default=0) for batch in batches)
    timed = ("x", "y") if per_step else ("x",)
    return {
        name: np.stack([pad(batch[name], longest) if name in timed else batch[name] for batch in batches])
        for name in batches[0]
    }


def pad(array: Array, length: int, mode: Literal["constant", "edge"] = "constant") -> Array:
    """Append zeros, or the last time step, along the axis of time, axis 1, up to a length."""
    missing = length - max(array.shape[1:2], default=length)
    return np.pad(array, [(0, missing * (axis == 1)) for axis in range(array.ndim)], mode) if missing > 0 else array
