"""``metrics.jsonl``, one row of measurements per line, each with its seal (:mod:`csbp_jax.runtime.seals`).

Rows are appended, read, and cut back to the step that a run resumes from.
"""

import contextlib
import io
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from csbp_jax.config import CheckpointError, ConfigError, writing
from csbp_jax.reporting.measures import primary
from csbp_jax.runtime import files, seals
from csbp_jax.training.run_json import RESTART, fits

Row = dict[str, Any]

_ROW = {"kind": str, "step": int, "seconds": float}
_MEANS = {"task_loss": float, "chaos_loss": float, "z": dict}
# What is read of a kind of row.
_KINDS: dict[str, dict[str, Any]] = {
    "start": {"gradient_norms": dict},
    "train": _MEANS,
    "epoch": {"epoch": int},
    **{kind: {"task_loss": float} for kind in ("first", "loss_high", "loss_normal")},
    **{kind: {"layers": [str]} for kind in ("never_fires", "always_fires")},
}


def follow_rows(file: pathlib.Path) -> Iterator[list[Row]]:
    """Yield the rows of a ``metrics.jsonl`` so far, again and again; each reading goes on where the last one ended.

    They are without their seals, and without a last line that a kill has cut short.

    Raises:
      ConfigError: a row cannot be read, or was changed after it was written, or it is not a regular file.
    """
    rows, number, size, last = list[Row](), 0, 0, b""
    while True:
        content = _read_from(file, size - len(last))
        if not content.startswith(last):  # a resumed run has dropped rows
            rows, number, size, last = [], 0, 0, b""
            content = _read_from(file, 0)
        *lines, tail = content[len(last) :].split(b"\n")
        for line in lines:
            number += 1
            rows += _rows_of(line, f"{file}:{number}")
            size, last = size + len(line) + 1, line + b"\n"
        # It is empty, unless a kill has cut it short. If only its line break is damaged, the row before it is complete.
        is_complete = _row(tail) is not None or _row(tail[:-1]) is not None
        yield [*rows, *(_rows_of(tail, f"{file}:{number + 1}") if is_complete else [])]


def read_rows(file: pathlib.Path) -> list[Row]:
    """Read the rows of a ``metrics.jsonl`` so far; see :func:`follow_rows`."""
    return next(follow_rows(file))


def _read_from(file: pathlib.Path, start: int) -> bytes:
    return files.read_bytes(file, files.LARGE, start) if file.exists() else b""


def _rows_of(line: bytes, name: str) -> list[Row]:
    row = _row(line)
    if row is None and line.strip():
        raise ConfigError(
            f"{name}: this row was damaged or edited; restore the file from a copy, or delete the row, if it is "
            f"neither the first nor an epoch's; or, if you edited it, delete its {seals.KEY}"
        )
    return [] if row is None else [row]


def _row(line: bytes) -> Row | None:
    """Return the row of a line without its seal, None if it is damaged or lacks what is read of its kind."""
    try:
        row = seals.parse(line)
    except ValueError:
        return None
    if not fits(row, _ROW):
        return None
    form = _KINDS.get(row["kind"], {})
    if row["kind"] == "epoch":
        form = form | {f"validation_{primary(row, 'validation_')}": float}
        form |= {"rates": dict, **_MEANS} if "rates" in row else {}
    return row if fits(row, form) else None


def check_complete(file: pathlib.Path, rows: list[Row], step: int, epochs: int, steps_per_epoch: int) -> None:
    """Check that the rows of the start and of each finished epoch are there, once each and in their order.

    Args:
      file: a ``metrics.jsonl``, for the message.
      rows: those of the file up to ``step``.
      step: the last step that was done, at least 1.
      epochs: number of finished epochs.
      steps_per_epoch: number of steps per epoch.

    Raises:
      ConfigError: a row is missing.
    """
    starts = [row for row in rows if row["kind"] == "start"]
    ends = [row["step"] for row in rows if row["kind"] == "epoch"]
    has_start = bool(rows) and starts == rows[:1]
    if not has_start or ends != [steps_per_epoch * epoch for epoch in range(1, epochs + 1)]:
        raise ConfigError(f"{file}: rows up to step {step} are missing; put back a copy of the file, or {RESTART}")


def rewind(file: pathlib.Path, step: int, epochs: int, steps_per_epoch: int) -> list[Row]:
    """Drop the rows after ``step``, so that a resumed run repeats no row, and return those that stay.

    Args:
      file: a ``metrics.jsonl``.
      step: the last step that stays, at least 1.
      epochs: number of finished epochs. At the last step of an epoch, its validation may still be missing.
      steps_per_epoch: number of steps per epoch.

    Raises:
      ConfigError: a row is damaged, or the first row or the row of a finished epoch is missing; nothing is changed.
    """
    rows = [row for row in read_rows(file) if row["step"] <= step]
    rows = [row for row in rows if row["kind"] != "epoch" or row["step"] <= epochs * steps_per_epoch]
    check_complete(file, rows, step, epochs, steps_per_epoch)
    files.write_text(file, "".join(map(seals.line, rows)))
    return rows


def set_aside(file: pathlib.Path) -> pathlib.Path | None:
    """Rename a ``metrics.jsonl`` that has more than the row of the start, and return its new path."""
    if not file.exists() or files.read_bytes(file, files.LARGE).count(b"\n") < 2:
        return None
    return files.set_aside(file)


class Log:
    """A ``metrics.jsonl`` to which rows are appended; see :func:`opened`."""

    def __init__(self, file: pathlib.Path, lines: io.FileIO):
        self.file, self._lines, self._waiting = file, lines, b""

    def write(self, row: Row) -> None:
        """Append a row. While the disk is full, rows wait for space."""
        self._waiting += seals.line(row).encode()
        self.write_waiting()

    @files.full_disk_ignored()  # a decorator too
    def write_waiting(self) -> None:
        """Append the rows that wait, if there is space."""
        self._append()

    def sync(self) -> None:
        """Flush all rows to the disk, because after a power cut a checkpoint must not be ahead of them.

        Raises:
          WriteError: there is no space.
        """
        self._append()
        with writing(self.file):
            os.fsync(self._lines.fileno())

    def check_in_place(self) -> None:
        """Check that the file is still where it was, and keep its rows beside it if it is not.

        Editors and programs that synchronise folders replace a file by another of the same name: the rows written since
        are then in none that has a name, and the run could not be resumed.

        Raises:
          CheckpointError: it was replaced, moved or deleted.
        """
        if files.is_open_at(self.file, self._lines.fileno()):
            return
        kept = self.file.with_name(f"{self.file.name}.kept-{time.strftime('%Y%m%d-%H%M%S')}")
        self._lines.seek(0)
        files.write_bytes(kept, self._lines.readall() + self._waiting)
        raise CheckpointError(
            f"{self.file}: was replaced, moved or deleted while the run trained, and nothing more is saved; rename "
            f"{kept.name}, which has all rows, to {self.file.name}, and the same command resumes"
        )

    def _append(self) -> None:
        with writing(self.file):
            while self._waiting:
                self._waiting = self._waiting[self._lines.write(self._waiting) :]


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[Log]:
    """Open a ``metrics.jsonl``, to append rows to it; leaving writes those that wait for space, if there is some."""
    with open(file, "ab+", buffering=0) as lines:
        log = Log(file, lines)
        with files.closed_after(log.write_waiting):
            yield log
