"""The seal of a folder: the size and sha256 of every file in it, and its own. It finds accidents, not an attacker, who
can write it anew."""

import contextlib
import hashlib
import io
import json
import os
from typing import Any

from etils import epath

NAME = "manifest.json"


def write_manifest(folder: epath.PathLike, about: dict[str, Any]) -> None:
    """Writes the manifest, last and at once, when all else is on the disk.

    Args:
      folder: what is sealed, with all its subfolders.
      about: what else the manifest is to hold, as JSON has it.
    """
    folder = epath.Path(folder)
    files = {name: _digest(folder / name, sync=True) for name in sorted(_files(folder))}
    content = {"about": about, "files": files}
    part = folder.with_name(folder.name + ".manifest")
    with part.open("wb") as out:
        out.write(json.dumps({"sha256": _own(content), **content}, indent=1).encode() + b"\n")
        _sync(out)
    part.replace(folder / NAME)


def metadata(folder: epath.PathLike) -> dict[str, Any]:
    """What the seal was given to hold."""
    return json.loads((epath.Path(folder) / NAME).read_bytes())["about"]


def verify(folder: epath.PathLike) -> str | None:
    """The first thing in a sealed folder that is not as it was, in words; None if all is."""
    folder = epath.Path(folder)
    try:
        told = json.loads((folder / NAME).read_bytes())
        sealed = told["sha256"] == _own({"about": told["about"], "files": told["files"]})
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, TypeError, KeyError):
        sealed = False
    if not sealed:
        return f"{NAME} is damaged"
    for name, known in told["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        here = _digest(file)
        if here["bytes"] != known["bytes"]:
            return f"{name} has {here['bytes']} bytes, not {known['bytes']}"
        if here != known:
            return f"{name} is damaged"
    return None


def _files(folder, within=""):
    """The names of all files, from ``folder`` on; a bucket is walked as a disk is."""
    for path in (folder / within).iterdir():
        name = f"{within}{path.name}"
        if path.is_dir():
            yield from _files(folder, f"{name}/")
        else:
            yield name


def _digest(path, sync=False):
    with path.open("rb") as file:
        if sync:
            _sync(file)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}


def _sync(file):
    with contextlib.suppress(io.UnsupportedOperation):  # in a bucket what is closed is there
        descriptor = file.fileno()
        file.flush()
        os.fsync(descriptor)


def _own(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
