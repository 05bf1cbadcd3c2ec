"""Finished runs of an experiment: files of blocks, each of some seeds of one setting that trained together."""

import contextlib
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.experiment.fields import Fields, key
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json
from csbp_jax.training.run_json import fits

_MOST_WAITING = 2
"""Blocks that wait for space on a full disk."""


class Block(NamedTuple):
    """Seeds of one setting, which train together.

    key: of the setting's canonical fields (``fields.key``).
    """

    key: str
    seeds: tuple[int, ...]


def name_of(setting: str, seed: int) -> str:
    """Return the name of a run's files, by the key of its setting and its seed."""
    return f"{hashlib.sha256(setting.encode()).hexdigest()[:16]}-{seed}"


class Store:
    """The finished runs in a folder.

    Args:
      folder: of the experiment; its blocks are read at once.
      report: called with a line that says that the disk is full.

    Raises:
      ConfigError: a block is damaged.
    """

    def __init__(self, folder: pathlib.Path, report: Callable[[str], None]):
        self.folder, self.report = folder / run_json.BLOCKS, report
        self._runs: dict[str, dict[int, dict[str, Any]]] = {}
        self._how: dict[str, dict[str, Any]] = {}
        self._waiting: dict[pathlib.Path, dict[str, Any]] = {}
        self._read: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read the blocks that other processes have written since."""
        for file in sorted(self.folder.glob("*.json")):
            if file.name not in self._read:
                self._add(file, _read_block(file))

    def take(self, folder: pathlib.Path) -> int:
        """Write the runs of another folder that this one lacks, and return their number.

        Raises:
          ConfigError: a block there is damaged, or was trained on other data or devices than runs of its setting here.
        """
        count = 0
        for file in sorted((folder / run_json.BLOCKS).glob("*.json")):
            content = _read_block(file)
            setting, how = key(content["fields"]), content["how"]
            before = self._how.get(setting, {})
            if differing := [name for name, value in how.items() if before.get(name, value) != value]:
                name = differing[0]
                raise ConfigError(
                    f"{file}: {name}: {how[name]} there, {before[name]} in other finished runs of this setting; merge "
                    "runs of the same data and devices alone"
                )
            missing = self.missing(Block(setting, tuple(content["seeds"])))
            if missing.seeds:
                rows = [content["seeds"].index(seed) for seed in missing.seeds]
                measures = {name: [values[row] for row in rows] for name, values in content["measures"].items()}
                self._write(missing, content | {"seeds": list(missing.seeds), "measures": measures})
                count += len(missing.seeds)
        return count

    def missing(self, block: Block) -> Block:
        """Return the block without the seeds that are finished."""
        known = self._runs.get(block.key, {})
        return block._replace(seeds=tuple(seed for seed in block.seeds if seed not in known))

    def finished(self, block: Block) -> dict[int, dict[str, Any]]:
        """Return the measures of the finished runs of a block, ``{seed: {measure: number, or list for a curve}}``."""
        known = self._runs.get(block.key, {})
        return {seed: known[seed] for seed in block.seeds if seed in known}

    def runs(self, setting: str) -> list[dict[str, Any]]:
        """Return the measures of all finished runs of a setting."""
        return list(self._runs.get(setting, {}).values())

    def check_how(self, setting: str, how: Mapping[str, Any]) -> None:
        """Check that the finished runs of a setting were trained as the missing ones would be.

        Raises:
          ConfigError: they had other data or devices.
        """
        before = self._how.get(setting, {})
        for name, value in how.items():
            if before.get(name, value) == value:
                continue
            if name == "data":
                raise ConfigError(
                    f"{self.folder.parent}: its data have changed since it began; put them back (your own files with "
                    f"their times, as cp -p does), or {run_json.RESTART}"
                )
            raise ConfigError(
                f"{self.folder.parent}: {name}: {before[name]} in finished runs, {value} now, which rounds otherwise "
                "and shows in a chaotic run; go on as the experiment began (--data-parallel, the same machine and "
                f"devices), or {run_json.RESTART}"
            )

    def write(self, block: Block, fields: Fields, measures: Mapping[str, Any], how: Mapping[str, Any]) -> None:
        """Write a finished block; while the disk is full, two blocks wait for space."""
        columns = {measure: _with_none(np.asarray(values).tolist()) for measure, values in measures.items()}
        content = {"fields": dict(fields), "seeds": list(block.seeds), "measures": columns, "how": dict(how)}
        self._write(block, json.loads(json.dumps(content)))

    def _write(self, block: Block, content: dict[str, Any]) -> None:
        file = self.folder / f"{name_of(block.key, block.seeds[0])}.json"
        self._add(file, content)
        self._waiting[file] = content
        with files.full_disk_ignored() if len(self._waiting) <= _MOST_WAITING else contextlib.nullcontext():
            self.close()
        if self._waiting:
            self.report(f"{self.folder}: the disk is full; results wait in memory; make room")

    @property
    def waits(self) -> bool:
        """Whether blocks wait for space."""
        return bool(self._waiting)

    def close(self) -> None:
        """Write what waits for space."""
        for file, content in list(self._waiting.items()):
            with files.replacing(file, shared=True) as temporary:  # another process may train the same runs
                temporary.write_text(json.dumps(seals.seal(content)))
            del self._waiting[file]

    def _add(self, file: pathlib.Path, content: dict[str, Any]) -> None:
        setting = key(content["fields"])
        names, columns = content["measures"].keys(), content["measures"].values()
        runs = self._runs.setdefault(setting, {})
        for seed, *values in zip(content["seeds"], *columns, strict=True):
            runs[seed] = dict(zip(names, map(_with_nan, values), strict=True))
        # Of known runs nothing says how they were trained.
        self._how[setting] = content["how"] | self._how.get(setting, {})
        self._read.add(file.name)


def _read_block(file: pathlib.Path) -> dict[str, Any]:
    remedy = "delete it, and the command that began the experiment trains its runs again"
    return run_json.read_json(file, _is_block, remedy, files.LARGE)


def _with_none(value: Any) -> Any:
    """Return a number, or nested lists of them, as JSON has them: None for NaN and infinity."""
    if isinstance(value, list):
        return [_with_none(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def _is_block(content: dict[str, Any]) -> bool:
    form = {"fields": dict, "seeds": [int], "measures": dict, "how": dict}
    columns = list(content["measures"].values()) if fits(content, form) else []
    return bool(columns) and all(isinstance(c, list) and len(c) == len(content["seeds"]) for c in columns)
