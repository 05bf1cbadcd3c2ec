"""``metrics.jsonl``: a row of a run's measurements a line, appended, read back, and cut to where a run goes on."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from csbp_jax.config import ConfigError


def read_rows(file: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line cut short by a kill is left out."""
    rows = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and {"kind", "step"} <= set(row)]


def rewind(file: pathlib.Path, step: int, epochs: int, steps_per_epoch: int) -> list[dict[str, Any]]:
    """Drops what was written after ``step``, so that a resumed run doubles no row.

    Args:
      file: a ``metrics.jsonl``.
      step: the last one that stays.
      epochs: how many have ended; at an epoch's last step, it may still lack its validation.
      steps_per_epoch: steps an epoch has.

    Returns:
      The rows that stay.

    Raises:
      ConfigError: the first row or that of an ended epoch is missing.
    """
    # Without a checkpoint all is done again, the row of the start too.
    rows = [row for row in read_rows(file) if row["step"] <= step] if step else []
    rows = [row for row in rows if row["kind"] != "epoch" or row["step"] <= epochs * steps_per_epoch]
    ends = [row["step"] for row in rows if row["kind"] == "epoch"]
    if step and (
        rows[:1] != [row for row in rows if row["kind"] == "start"]
        or ends != list(range(steps_per_epoch, epochs * steps_per_epoch + 1, steps_per_epoch))
    ):
        raise ConfigError(f"{file}: rows up to step {step} are missing; start anew with FRESH=1 (--fresh)")
    part = file.with_name(file.name + ".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(file)
    return rows


@contextlib.contextmanager
def writer(
    file: pathlib.Path, rows: list[dict[str, Any]]
) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[], None]]]:
    """Yields ``write(row)``, which appends to ``rows`` and to the file, a ``metrics.jsonl``, and ``sync()``.

    On a full disk rows wait for room. ``sync`` brings all of them to the disk itself, since after a power cut a
    checkpoint must not know more than ``metrics.jsonl``; it raises OSError where there is no room.
    """
    waiting = b""
    with open(file, "ab", buffering=0) as lines:

        def append():
            nonlocal waiting
            while waiting:
                waiting = waiting[lines.write(waiting) :]

        def write(row):
            nonlocal waiting
            rows.append(row)
            waiting += json.dumps(row).encode() + b"\n"
            with _unless_full():
                append()

        def sync():
            append()
            os.fsync(lines.fileno())

        try:
            yield write, sync
        finally:
            with _unless_full():
                append()


@contextlib.contextmanager
def _unless_full():
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
