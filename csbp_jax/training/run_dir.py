"""A run's folder: opened and locked, its ``config.json``, its ``result.json``."""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import platform
import re
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.reporting.terminal import Console
from csbp_jax.training.plugins import COPY, Own

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@contextlib.contextmanager
def open_run(
    root: pathlib.Path,
    content: dict[str, Any],
    name: str,
    fresh: bool,
    console: Console,
    data: str = "",
    classes: Sequence[str] = (),
    own: Own = Own(),
    elsewhere: dict[str, Any] | None = None,
) -> Iterator[pathlib.Path]:
    """The run's folder with its ``config.json``, locked; one that is there already must hold the same config and data.

    Args:
      root: folder of all runs.
      content: the config, as JSON has it.
      name: the run's folder under ``root``.
      fresh: set an old run of this name aside, under its name and the time, and start anew.
      data: what ``data.identity`` says of the data.
      classes: their names, kept for who has the folder but not the data.
      own: what is of the user; their file is copied into the folder.
      elsewhere: what ``config.json`` was where this run is gone on with in another folder.

    Raises:
      ConfigError: the name cannot be a folder's, the folder holds another config (its fields are named) or none, its
        data or the user's file have changed, or another process trains this run.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise ConfigError(f"NAME: {name!r} is not possible; use letters, digits, '.', '_' and '-'")
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(root)):  # what pathlib makes of gs://...
        raise ConfigError(f"{root}: is no folder; locks and renames need a file system, such as a mounted bucket")
    run = root / name
    if fresh and run.exists():
        with _locked(run):
            old = run.rename(root / f"{name}.before-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}")
        console.print(f"the old run is kept as {old}", soft_wrap=True)
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run):
        if elsewhere and not (run / "config.json").exists():
            write_json(run / "config.json", elsewhere)
        _check_or_write_config(run, content, fingerprint_digest(data), classes, own.about())
        if elsewhere and (differing := _differences(elsewhere.get("config"), content)):
            raise ConfigError(f"NAME: checkpoints of run {name!r} are of another config; {'; '.join(differing)}")
        if own.parts:
            console.print(f"{own.place}: {', '.join(own.parts)} of your own", soft_wrap=True)
        if own.parts and own.code and not (run / COPY).exists():
            part = run / f"{COPY}.part"
            part.write_bytes(own.code)
            part.replace(run / COPY)
        yield run


def fingerprint_digest(data: str) -> str:
    """What ``config.json`` keeps of ``data.identity``."""
    return hashlib.sha256(data.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(run):
    """The system frees the lock, however the process ends."""
    with open(run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{run}: another process is training this run") from None
        yield


def _check_or_write_config(run, mine, data, classes, own):
    file = run / "config.json"
    if file.exists():
        there = read_json(file, "config")
        if differing := _differences(there["config"], mine):
            raise ConfigError(
                f"NAME: run {run.name!r} has another config; differing are {'; '.join(differing)}. "
                "Give another NAME (--name), or start anew with FRESH=1 (--fresh)"
            )
        if there.get("data", data) != data:
            raise ConfigError(
                f"{run}: its data have changed since it began; put them back (your own files with their times, as cp "
                "-p does), or start anew with FRESH=1 (--fresh)"
            )
        if differing := _differences(there.get("own", {}) | {"file": ""}, own | {"file": ""}, "own"):
            raise ConfigError(
                f"NAME: run {run.name!r} has other code of your own; differing are {'; '.join(differing)}. Put the "
                f"file back ({run / COPY} is a copy), give another NAME (--name), or start anew with FRESH=1 (--fresh)"
            )
    elif any((run / left).exists() for left in ("checkpoints", "metrics.jsonl", "result.json")):
        raise ConfigError(f"{file}: missing, though the run has begun; start anew with FRESH=1 (--fresh)")
    else:
        versions = {package: metadata.version(package) for package in _PACKAGES}
        about = {"config": mine, "data": data, **({"classes": list(classes)} if classes else {})}
        about |= {"own": own} if own else {}
        write_json(file, about | {"versions": versions, "python": platform.python_version()})


def _differences(theirs: Any, mine: Any, prefix: str = "") -> list[str]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        return [
            line
            for key in sorted({*theirs, *mine})
            for line in _differences(theirs.get(key), mine.get(key), f"{prefix}.{key}".lstrip("."))
        ]
    return [] if theirs == mine else [f"{prefix} ({theirs} there, {mine} here)"]


def read_json(file: pathlib.Path, *keys: str) -> dict[str, Any]:
    """The content of a file of a run, with these keys.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        content = None
    if isinstance(content, dict) and all(key in content for key in keys):
        return content
    raise ConfigError(f"{file}: cannot be read; start anew with FRESH=1 (--fresh)")


def read_result(run: pathlib.Path) -> dict[str, Any]:
    """A finished run's ``result.json``.

    Raises:
      ConfigError: it cannot be read.
    """
    result = read_json(run / "result.json", "seconds", "gradient_norms", "last", "chosen")
    for part in ("last", "chosen"):
        if not isinstance(result[part], dict) or not {"epoch", "test_accuracy"} <= set(result[part]):
            raise ConfigError(f"{run / 'result.json'}: cannot be read; start anew with FRESH=1 (--fresh)")
    return result


def write_json(file: pathlib.Path, content: Any) -> None:
    """Whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(file)
