"""A run on both sides: as its folder has it, and as a tracker has it."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from csbp_jax.training.metrics_log import Row


class SourceRun(NamedTuple):
    """Run to be tracked.

    config: its fields, ``{"chaos.z0": ...}``.
    id: that of the :class:`TrackedRun` which has its earlier rows; empty the first time.
    """

    folder: pathlib.Path
    project: str
    config: dict[str, Any]
    id: str


class TrackedRun(NamedTuple):
    """Run of a tracker.

    id: by which the tracker knows it.
    resumed: whether it has the earlier rows.
    address: where a person finds it.
    log: adds rows to it.
    """

    id: str
    resumed: bool
    address: str
    log: Callable[[list[Row]], None]
