"""Manifest of a directory: size and SHA-256 of every file in it, and of itself.

It detects accidental damage, not tampering: whoever can write the files can also write a new manifest.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from csbp_jax.runtime import files, seals

NAME = "manifest.json"


def write_manifest(folder: epath.PathLike, metadata: dict[str, Any]) -> None:
    """Write the manifest of a directory, atomically, after all of its files have been flushed to the disk.

    Args:
      folder: a directory; its subdirectories are included.
      metadata: additional JSON content of the manifest.
    """
    folder = epath.Path(folder)
    digests = {name: _digest(folder / name, sync=True) for name in sorted(_files(folder))}
    content = {"about": metadata, "files": digests}
    # Not runtime.files: this also writes to buckets, flushes to the disk, and keeps the temporary file outside of the
    # directory, which holds only files that the manifest lists.
    temporary = folder.with_name(folder.name + ".manifest")
    with temporary.open("wb") as out:
        out.write(json.dumps(seals.seal(content), indent=1).encode() + b"\n")
        _sync(out)
    temporary.replace(folder / NAME)


def metadata(folder: epath.PathLike) -> dict[str, Any]:
    """Return the ``metadata`` passed to :func:`write_manifest`."""
    return _read(epath.Path(folder))["about"]


def _read(folder: epath.Path) -> Any:
    with (folder / NAME).open("rb") as file:
        return json.loads(file.read(files.SMALL))


def has_manifest(folder: epath.PathLike) -> bool:
    """Return whether a directory has a manifest as :func:`write_manifest` wrote it, whatever its files are."""
    folder = epath.Path(folder)
    try:
        content = _read(folder) if (folder / NAME).is_file() else {}
        return content.pop(seals.KEY) == seals.digest(content) and "files" in content
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def verify(folder: epath.PathLike) -> str | None:
    """Describe the first missing or changed file of a directory with a manifest; None if all files are intact."""
    folder = epath.Path(folder)
    for path in pathlib.Path(folder).rglob("*"):  # all, for Orbax may open one that the manifest does not list
        if (path.is_symlink() or not path.is_dir()) and (problem := files.problem(path, sys.maxsize)):
            return f"{path.relative_to(folder)} {problem}"
    try:
        content = _read(folder)
        if content.pop(seals.KEY) != seals.digest(content):
            return f"{NAME} is damaged"
        for name, entry in content["files"].items():
            if name.startswith("/") or ".." in name.split("/"):
                return f"{NAME} names {name}, which is not in its folder"
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _digest(folder / name) != entry:
                return f"{name} is damaged"
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return f"{NAME} is damaged"
    return None


def _files(folder: epath.Path, within: str = "") -> Iterator[str]:
    """Yield the names of all files, relative to ``folder``; works on disks and in buckets."""
    for path in (folder / within).iterdir():
        name = f"{within}{path.name}"
        if path.is_dir():
            yield from _files(folder, f"{name}/")
        else:
            yield name


def _digest(path: epath.Path, sync: bool = False) -> dict[str, Any]:
    with path.open("rb") as file:
        if sync:
            _sync(file)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}


def _sync(file: IO[bytes]) -> None:
    with contextlib.suppress(io.UnsupportedOperation):  # an object in a bucket is durable once it is closed
        descriptor = file.fileno()
        file.flush()
        os.fsync(descriptor)
