"""``metrics.jsonl``, one row of measurements per line: appended, read, and cut back to the step a run resumes from."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.runtime import files

Row = dict[str, Any]


def read_rows(file: pathlib.Path) -> list[Row]:
    """Read the rows of a ``metrics.jsonl``, without a last line that a kill has cut short."""
    rows = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and {"kind", "step"} <= set(row)]


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
      ConfigError: the first row or the row of a finished epoch is missing.
    """
    # Without a checkpoint everything is repeated, including the row of the start.
    rows = [row for row in read_rows(file) if row["step"] <= step] if step else []
    rows = [row for row in rows if row["kind"] != "epoch" or row["step"] <= epochs * steps_per_epoch]
    ends = [row["step"] for row in rows if row["kind"] == "epoch"]
    if step and (
        rows[:1] != [row for row in rows if row["kind"] == "start"]
        or ends != list(range(steps_per_epoch, epochs * steps_per_epoch + 1, steps_per_epoch))
    ):
        raise ConfigError(f"{file}: rows up to step {step} are missing; start from scratch with FRESH=1 (--fresh)")
    files.write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


@contextlib.contextmanager
def writer(file: pathlib.Path, rows: list[Row]) -> Iterator[tuple[Callable[[Row], None], Callable[[], None]]]:
    """Yield ``write(row)``, which appends to ``rows`` and to a ``metrics.jsonl``, and ``sync()``.

    While the disk is full, rows wait for space. ``sync`` flushes all of them to the disk, because after a power cut a
    checkpoint must not be ahead of ``metrics.jsonl``; it raises OSError if there is no space.
    """
    waiting = b""
    with open(file, "ab", buffering=0) as lines:

        def append() -> None:
            nonlocal waiting
            while waiting:
                waiting = waiting[lines.write(waiting) :]

        def write(row: Row) -> None:
            nonlocal waiting
            rows.append(row)
            waiting += json.dumps(row).encode() + b"\n"
            with _disk_full_ignored():
                append()

        def sync() -> None:
            append()
            os.fsync(lines.fileno())

        try:
            yield write, sync
        finally:
            with _disk_full_ignored():
                append()


@contextlib.contextmanager
def _disk_full_ignored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
