"""``metrics.jsonl``, one row of measurements per line, each with its seal (:mod:`csbp_jax.runtime.seals`).

Rows are appended, read, and cut back to the step that a run resumes from.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from csbp_jax.config import ConfigError, writing
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


def rewind(file: pathlib.Path, step: int, epochs: int, steps_per_epoch: int) -> list[Row]:
    """Drop the rows after ``step``, so that a resumed run repeats no row.

    Args:
      file: a ``metrics.jsonl``.
      step: the last step that stays.
      epochs: number of finished epochs. At the last step of an epoch, its validation may still be missing.
      steps_per_epoch: number of steps per epoch.

    Returns:
      The rows that stay.

    Raises:
      ConfigError: a row is damaged, or the first row or the row of a finished epoch is missing.
    """
    # Without a checkpoint everything is repeated, including the row of the start.
    rows = [row for row in read_rows(file) if row["step"] <= step] if step else []
    rows = [row for row in rows if row["kind"] != "epoch" or row["step"] <= epochs * steps_per_epoch]
    ends = [row["step"] for row in rows if row["kind"] == "epoch"]
    if step and (
        not rows
        or rows[:1] != [row for row in rows if row["kind"] == "start"]
        or ends != list(range(steps_per_epoch, epochs * steps_per_epoch + 1, steps_per_epoch))
    ):
        raise ConfigError(f"{file}: rows up to step {step} are missing; {RESTART}")
    files.write_text(file, "".join(map(seals.line, rows)))
    return rows


def set_aside(file: pathlib.Path) -> pathlib.Path | None:
    """Rename a ``metrics.jsonl`` that has more than the row of the start, and return its new path."""
    if not file.exists() or files.read_bytes(file, files.LARGE).count(b"\n") < 2:
        return None
    return files.set_aside(file)


@contextlib.contextmanager
def writer(file: pathlib.Path) -> Iterator[tuple[Callable[[Row], None], Callable[[], None]]]:
    """Yield ``write(row)``, which appends to a ``metrics.jsonl``, and ``sync()``.

    While the disk is full, rows wait for space. ``sync`` flushes all of them to the disk, because after a power cut a
    checkpoint must not be ahead of ``metrics.jsonl``; it raises a WriteError if there is no space.
    """
    waiting = b""
    with open(file, "ab", buffering=0) as lines:

        def append() -> None:
            nonlocal waiting
            with writing(file):
                while waiting:
                    waiting = waiting[lines.write(waiting) :]

        write_waiting = files.full_disk_ignored()(append)  # a decorator too

        def write(row: Row) -> None:
            nonlocal waiting
            waiting += seals.line(row).encode()
            write_waiting()

        def sync() -> None:
            append()
            with writing(file):
                os.fsync(lines.fileno())

        with files.closed_after(write_waiting):
            yield write, sync
