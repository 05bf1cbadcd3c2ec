"""A run on both sides: as its folder has it, and as a tracker has it."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from csbp_jax.training.metrics_log import Row


class SourceRun(NamedTuple):
    """Run to be tracked.

    config: its fields, ``{"chaos.z0": ...}``.
    id, rows: those of the :class:`TrackedRun` when it was last written; empty and 0 before the first time.
    """

    folder: pathlib.Path
    project: str
    config: dict[str, Any]
    id: str
    rows: int


class TrackedRun(NamedTuple):
    """Run of a tracker.

    id: by which the tracker knows it.
    rows: number of rows that it has.
    address: where a person finds it.
    log: adds rows to it.
    """

    id: str
    rows: int
    address: str
    log: Callable[[list[Row]], None]
