"""Files of a sweep's results, one for each chunk of members that trained together, and those of its shards."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json

SHARDS = "shards"
"""Directory of a sweep's shards."""

_SPLITS = ("validation", "test")
_MOST_WAITING = 2
"""Chunks whose results wait for space on a full disk."""


def chunk_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """List the files of results of a sweep, those of its shards included."""
    return [file for part in (folder, *shard_folders(folder)) for file in sorted((part / "chunks").glob("*.json"))]


@contextlib.contextmanager
def writer(report: Callable[[str], None]) -> Iterator[Callable[[pathlib.Path, dict[str, Any]], None]]:
    """Yield ``write(file, content)`` of a chunk's results; while the disk is full, those of two chunks wait for space.

    They wait to the end of the context at most. ``report`` is called with a line that says so.
    """
    waiting: dict[pathlib.Path, dict[str, Any]] = {}

    def write_waiting() -> None:
        for file in list(waiting):
            seals.write_json(file, waiting[file])
            del waiting[file]

    def write(file: pathlib.Path, content: dict[str, Any]) -> None:
        waiting[file] = content
        with files.full_disk_ignored() if len(waiting) <= _MOST_WAITING else contextlib.nullcontext():
            write_waiting()
        if waiting:
            report(f"{file.parent}: the disk is full; results wait in memory; make room")

    try:
        yield write
    finally:
        write_waiting()


def check_folder(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Check that a sweep's folder holds no results of another sweep, of which a shard is no part.

    Args:
      folder: of the sweep, which may not exist yet.
      content: what its ``config.json`` stores of the sweep: ``config``, ``data`` and ``own``.

    Raises:
      ConfigError: it holds another sweep, or the same one with other data or other code of the user's own.
    """
    if (folder / "config.json").exists() and (differing := _differences(folder, content)):
        raise ConfigError(
            f"NAME: {folder} is another sweep; differing are {'; '.join(differing)}. Give another NAME (--name) "
            "or move it away"
        )


def check_shards(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Check that a sweep's folder holds no shard of another sweep; arguments as of :func:`check_folder`.

    Raises:
      ConfigError: it holds one, or one of this sweep with other data or other code of the user's own.
    """
    for shard in shard_folders(folder):
        if not any((shard / name).exists() for name in ("config.json", "chunks")):
            continue  # another process is about to begin it
        if differing := _differences(shard, content):
            raise ConfigError(f"{shard}: it belongs to another sweep ({'; '.join(differing)}); move it out of {folder}")


def check_dealt(folder: pathlib.Path, of_sweep: Sequence[Sequence[int]]) -> None:
    """Check that the shards of a sweep's folder trained its chunks: of other chunks, each shard has other members.

    Args:
      folder: of the sweep, which may not exist yet.
      of_sweep: the members' numbers of each chunk of the sweep.

    Raises:
      ConfigError: one trained other chunks.
    """
    count, dealt = sum(map(len, of_sweep)), set(map(tuple, of_sweep))
    for shard in shard_folders(folder):
        for file in sorted((shard / "chunks").glob("*.json")):
            members = read_chunk(file, count)["members"]
            if tuple(members) not in dealt:
                raise ConfigError(
                    f"{shard}: {len(members)} of its members trained at once, which are no chunk here; give all shards "
                    "the same --chunk, or start from scratch with FRESH=1 (--fresh)"
                )


def _differences(part: pathlib.Path, content: dict[str, Any]) -> list[str]:
    """List what a sweep's folder or shard has otherwise than ``content``, as far as its members depend on it."""
    stored = run_json.read_config(part, run_json.REPAIR)
    differing = run_json.config_differences(stored["config"], content["config"])
    if stored.get("data", content["data"]) != content["data"]:
        differing.append("data (copies of your own files need the same times: cp -p)")
    return differing + run_json.own_differences(stored, content["own"])


def shard_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """List the folders of a sweep's shards; those that --fresh has renamed are left out."""
    return [shard for shard in sorted((folder / SHARDS).glob("*")) if re.fullmatch(r"\d+-of-\d+", shard.name)]


def read_results(folder: pathlib.Path, count: int) -> list[Any]:
    """Read each member's result, None where it is missing; errors are those of :func:`read_chunk`."""
    results: list[Any] = [None] * count
    for file in chunk_files(folder):
        content = read_chunk(file, count)
        for number, result in zip(content["members"], content["results"], strict=True):
            results[number] = result
    return results


def read_chunk(file: pathlib.Path, count: int) -> dict[str, Any]:
    """Read a file of results, of a sweep of ``count`` members.

    Raises:
      ConfigError: the file is damaged or holds something else.
    """
    remedy = "delete it, and the command that began the sweep trains its members again"
    return run_json.read_json(file, lambda content: _is_chunk(content, count), remedy, files.MAX_BYTES)


def _is_chunk(content: dict[str, Any], count: int) -> bool:
    """Return whether a file of results has what tables read, for members of a sweep of ``count`` members."""
    match content:
        case {"members": list(members), "results": list(results)} if len(members) == len(results):
            numbers = [number for number in members if isinstance(number, int) and 0 <= number < count]
            return numbers == members and isinstance(content.get("how", {}), dict) and all(map(_is_result, results))
    return False


def _is_result(content: Any) -> bool:
    match content:
        case {"diverged": bool(), "epochs": list(epochs), "last": dict(last), "chosen": dict() | None as chosen}:
            accuracies = [report.get(f"{split}_accuracy") for report in (last, chosen or last) for split in _SPLITS]
            return all(isinstance(epoch, dict) for epoch in epochs) and all(map(run_json.is_number, accuracies))
    return False
