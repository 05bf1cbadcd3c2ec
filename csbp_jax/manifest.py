"""The seal of a folder: the size and sha256 of every file in it, and its own. It finds accidents, not an attacker, who
can write it anew."""

import hashlib
import json
import os
import pathlib
from typing import Any

NAME = "manifest.json"


def seal(folder: pathlib.Path, about: dict[str, Any]) -> None:
    """Writes the manifest, last and at once, when all else is on the disk.

    Args:
      folder: what is sealed, with all its subfolders.
      about: what else the manifest is to hold, as JSON has it.
    """
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": _digest(file, sync=True)}
    content = {"about": about, "files": files}
    part = folder.with_name(folder.name + ".manifest")
    with open(part, "w") as out:
        out.write(json.dumps({"sha256": _own(content), **content}, indent=1) + "\n")
        out.flush()
        os.fsync(out.fileno())
    part.replace(folder / NAME)


def about(folder: pathlib.Path) -> dict[str, Any]:
    """What the seal was given to hold."""
    return json.loads((folder / NAME).read_bytes())["about"]


def fault(folder: pathlib.Path) -> str | None:
    """The first thing in a sealed folder that is not as it was, in words; None if all is."""
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
        if file.stat().st_size != known["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {known['bytes']}"
        if _digest(file) != known["sha256"]:
            return f"{name} is damaged"
    return None


def _digest(path, sync=False):
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
