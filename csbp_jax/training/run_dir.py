"""The directory of a run: created and locked, with its ``config.json``."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import metadata
from typing import Any

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.plugins import COPY, Own

FOLDERS = ("figures", "checkpoints", "profile", run_json.BLOCKS, "shards")
"""Folders that training writes to in the directory of a run or experiment."""
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
    wait: bool = False,
    editable: Collection[str] = (),
) -> Iterator[pathlib.Path]:
    """Create or reopen a run directory, lock it, and check that its config, data and plugin code are unchanged.

    Args:
      root: directory of all runs.
      content: the config, as JSON.
      name: the run's directory under ``root``.
      fresh: rename an old run of this name, adding the time, and start from scratch.
      data: fingerprint of the data, from ``data.fingerprint``.
      classes: class names, stored for readers that have the run but not the data.
      own: the user's plugins; their file is copied into the directory.
      elsewhere: ``config.json`` of the run in another directory, if it is resumed from its checkpoints alone.
      wait: for the lock, if another process holds it.
      editable: fields of the config that may differ from those that are stored, but for fewer epochs.

    Raises:
      ConfigError: the name is not a valid directory name, the directory belongs to another config (the message names
        the fields that differ) or to none, the data or the plugin file have changed, a folder in it is a link, or
        another process trains the run or, with fresh, a run within it.
    """
    check_name(name)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(root)):  # pathlib turns gs://... into gs:/...
        raise ConfigError(f"{root}: not a directory; locks and renames need a file system, such as a mounted bucket")
    run = root / name
    if fresh and run.exists():
        with contextlib.ExitStack() as locks:
            locks.enter_context(locked(run))
            # Processes of their own may train runs within it, such as the shards of an experiment.
            for lock in sorted(run.glob("*/**/lock")):
                locks.enter_context(locked(lock.parent))
            old = files.set_aside(run)
        console.print(f"the old run is kept as {old}", soft_wrap=True)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run, wait):
        files.check_links(run, *FOLDERS)
        if elsewhere and not (run / "config.json").exists():
            seals.write_json(run / "config.json", elsewhere)
        _check_or_write_config(run, content, fingerprint_digest(data), classes, own.metadata(), editable)
        if own.plugins:
            console.print(f"{own.label}: {', '.join(own.plugins)} of your own", soft_wrap=True)
        if own.plugins and own.code and not (run / COPY).exists():
            files.write_bytes(run / COPY, own.code)
        yield run


@contextlib.contextmanager
def in_place(run: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Yield a check that a run's directory is still where it was, for before anything is saved in it.

    Raises:
      CheckpointError: of the check: the directory was moved or deleted.
    """
    directory = os.open(run, os.O_RDONLY)  # held open, for else another directory may get its number

    def is_in_place() -> bool:
        # An rm -r that meets a save leaves the directory, without its files.
        has_files = (run / "lock").exists() or (run / "metrics.jsonl").exists()
        return has_files and files.is_open_at(run, directory, follow_link=True)

    def check() -> None:
        if not is_in_place():
            raise CheckpointError(
                f"{run}: was moved or deleted while it trained, and nothing more is saved; put it back, and the same "
                "command resumes, or begins again without it"
            )

    try:
        yield check
    finally:
        for _ in range(50):
            if is_in_place() or not run.exists() or (run / "lock").exists():
                break
            if (run / "checkpoints").is_symlink():
                break
            with contextlib.suppress(OSError):  # a save that was being written makes it again, until its last file
                layout.remove_incomplete(run / "checkpoints")
                (run / "checkpoints").rmdir()
                run.rmdir()
            time.sleep(0.1)
        os.close(directory)


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is not possible for a directory of a run or an experiment."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise ConfigError(f"NAME: {name!r} is not possible; use letters, digits, '.', '_' and '-'")


def fingerprint_digest(data: str) -> str:
    """Return the digest of a data fingerprint that ``config.json`` stores."""
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def locked(run: pathlib.Path, wait: bool = False) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a run.

    Raises:
      ConfigError: another process holds it, and this one is not to wait.
    """

    def refuse() -> None:
        if not wait:
            raise ConfigError(f"{run}: another process is training this run") from None

    return files.locked(run / "lock", on_wait=refuse)


def _check_or_write_config(
    run: pathlib.Path,
    config: dict[str, Any],
    data: str,
    classes: Sequence[str],
    own: dict[str, Any],
    editable: Collection[str],
) -> None:
    file = run / "config.json"
    if file.exists():
        stored = run_json.read_config(run)
        is_shorter = "epochs" in editable and config["epochs"] < stored["config"].get("epochs", 0)
        if differing := run_json.config_differences(stored["config"], config, () if is_shorter else editable):
            more = "; a run goes on for more epochs, not for fewer" if is_shorter else ""
            raise ConfigError(
                f"NAME: run {run.name!r} has another config; differing are {'; '.join(differing)}{more}. Give another "
                f"NAME (train DATASET --name NAME), or {run_json.RESTART}"
            )
        if stored.get("data", data) != data:
            raise ConfigError(
                f"{run}: its data have changed since it began; put them back (your own files with their times, as cp "
                f"-p does), or {run_json.RESTART}"
            )
        if differing := run_json.differences(stored.get("own", {}) | {"file": ""}, own | {"file": ""}, "own"):
            raise ConfigError(
                f"NAME: run {run.name!r} has other code of your own; differing are {'; '.join(differing)}. Put the "
                f"file back ({run / COPY} is a copy), give another NAME (--name), or {run_json.RESTART}"
            )
    elif any((run / name).exists() for name in ("checkpoints", "metrics.jsonl", "result.json", run_json.BLOCKS)):
        raise ConfigError(f"{file}: missing, though the run has begun; {run_json.RESTART}")
    else:
        some = {"classes": list(classes), "own": own}
        versions = {package: metadata.version(package) for package in _PACKAGES}
        content = {"schema": run_json.SCHEMA, "config": config, "data": data, **{k: v for k, v in some.items() if v}}
        seals.write_json(file, content | {"versions": versions, "python": platform.python_version()})
