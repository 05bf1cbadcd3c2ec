"""``digits_events``: the bundled digits as recordings of the synthetic event camera in ``camera``."""

import functools
import pathlib
import sys
from collections.abc import Mapping

import numpy as np

from csbp_jax.config import Config
from csbp_jax.data import digits
from csbp_jax.data.events import camera, frame_cache, sources
from csbp_jax.data.events.readers import Events, IntArray
from csbp_jax.data.events.recordings import Recording
from csbp_jax.data.source import DataSource

VERSION = 3545999464
"""Part of the data's fingerprint: change it when the camera or the binning changes what it records."""

_CHUNK = 100


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Return the fingerprint of the digits, and the version of the camera that records them."""
    return f"{digits.fingerprint(config, folder)} {VERSION}"


class_names = digits.class_names


def load(config: Config, folder: pathlib.Path) -> Mapping[str, DataSource]:
    """Load train, validation and test, split as ``data.digits``: ``x [T, 16, 16, 2]`` event counts.

    At first use the recordings are simulated, in some seconds, and their frames cached in ``folder/frames``. With
    ``size`` and ``resize="events"`` coordinates are scaled first.
    """
    data, T = config.data, config.model.time_steps
    shape = (*data.size, 2) if data.size and data.resize == "events" else (camera.SENSOR, camera.SENSOR, 2)
    parameters = {"shape": shape, "model": VERSION} | sources.binning_of(data.bins, data.window, T)
    target = frame_cache.cache_dir(folder, f"digits_events-T{T}-{data.bins}-{shape[0]}x{shape[1]}", parameters)
    labels = digits.arrays()["y"]
    members = [Recording(str(i), pathlib.Path("digits.npz"), int(label)) for i, label in enumerate(labels)]
    frame_cache.load_or_build(
        target,
        parameters,
        lambda skipped: {"all": members},
        lambda member: sources.bin_events(recording(int(member.id)), data, T, shape),
        skip=False,
        show=functools.partial(_show, f"{T} time steps, data.bins {data.bins}"),
    )
    splits = {
        name: frame_cache.CachedFrames(target / "all.npy", np.array(rows), labels[rows], classes=10)
        for name, rows in digits.splits().items()
    }
    return sources.with_own_lengths(splits, config) if data.bins == "own" else splits


def recording(index: int) -> Events:
    """Record digit ``index`` of the 1797 by the synthetic camera: times from 0 to 300 ms, p = 1 for ON."""
    first = index // _CHUNK * _CHUNK
    return _recordings(first)[index - first]


@functools.lru_cache(1)
def _recordings(first: int) -> list[Events]:
    """Record a chunk of digits, large enough for numpy to be efficient; no recording depends on the others."""
    chunk: IntArray = digits.arrays()["x"][first : first + _CHUNK]
    return camera.record(chunk, np.arange(first, first + len(chunk)))


def _show(frames: str, stage: str, done: int, total: int) -> None:
    if done == 0:
        print(f"digits_events: making {total} recordings, once for {frames}", file=sys.stderr, flush=True)
