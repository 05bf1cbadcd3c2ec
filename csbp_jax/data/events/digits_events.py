"""``digits_events``: the bundled digits as recordings of an event camera, which ``saccade`` describes."""

import functools
import json
import pathlib
import sys
from importlib import resources

import numpy as np

from csbp_jax.config import Config
from csbp_jax.data import digits
from csbp_jax.data.events import camera, frame_cache, sources
from csbp_jax.data.events.readers import Events
from csbp_jax.data.events.recordings import Recording

_TOGETHER = 100
VERSION = 3545999464
"""Part of the data's fingerprint: give another number when the camera or the binning changes what it records."""


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Of the digits, and of the camera that sees them."""
    return f"{digits.fingerprint(config, folder)} {VERSION}"


class_names = digits.class_names


def load(config: Config, folder: pathlib.Path) -> dict[str, frame_cache.Frames]:
    """Train, validation and test, split as ``bundled.digits``: ``x [T, 16, 16, 2]`` counts of events.

    At first use the recordings are made, in some seconds, and their frames kept in ``folder/frames``. With ``size`` and
    ``resize="events"`` their coordinates are scaled first.
    """
    data, parameters = config.data, _parameters(config)
    T, shape = parameters["T"], parameters["shape"]
    target = frame_cache.folder_of(folder, f"digits_events-T{T}-{data.bins}-{shape[0]}x{shape[1]}", parameters)
    labels = _digits()["y"]
    members = [Recording(str(i), pathlib.Path("digits.npz"), int(label)) for i, label in enumerate(labels)]
    frame_cache.cached(
        target,
        parameters,
        lambda skipped: {"all": members},
        lambda member: sources.binned(recording(int(member.id)), data, T, shape),
        skip=False,
        show=_show,
    )
    split = json.loads(resources.files("csbp_jax.data").joinpath("digits_split.json").read_text())
    return {
        part: frame_cache.Frames(target / "all.npy", np.array(rows), labels[rows], classes=10)
        for part, rows in split.items()
    }


def _parameters(config):
    """All that the frames depend on."""
    data = config.data
    return {
        "T": config.model.time_steps,
        "bins": data.bins,
        "window": data.window if data.bins == "window" else None,
        "shape": (*data.size, 2) if data.size and data.resize == "events" else (camera.SENSOR, camera.SENSOR, 2),
        "model": VERSION,
    }


def recording(index: int) -> Events:
    """What the camera sees of digit ``index`` of the 1797: times from 0 to 300 ms, p = 1 for ON."""
    first = index // _TOGETHER * _TOGETHER
    return _recordings(first)[index - first]


@functools.lru_cache(1)
def _recordings(first):
    """So many together as keep numpy busy; none depends on the others."""
    digits = _digits()["x"][first : first + _TOGETHER]
    return camera.record(digits, np.arange(first, first + len(digits)))


@functools.cache
def _digits():
    with resources.files("csbp_jax.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def _show(stage, done, total):
    if done == 0:
        print(f"digits_events: making {total} recordings, once", file=sys.stderr, flush=True)
