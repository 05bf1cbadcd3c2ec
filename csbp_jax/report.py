"""What a run shows and leaves behind: its folder, ``metrics.jsonl``, the progress bar and the closing table."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from csbp_jax.config import ConfigError
from csbp_jax.own import COPY, Own

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
        _check_or_write_config(run, content, fingerprint(data), classes, own.about())
        if elsewhere and (differing := _differences(elsewhere.get("config"), content)):
            raise ConfigError(f"NAME: checkpoints of run {name!r} are of another config; {'; '.join(differing)}")
        if own.parts:
            console.print(f"{own.place}: {', '.join(own.parts)} of your own", soft_wrap=True)
        if own.parts and own.code and not (run / COPY).exists():
            part = run / f"{COPY}.part"
            part.write_bytes(own.code)
            part.replace(run / COPY)
        yield run


def fingerprint(data: str) -> str:
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


def read_rows(file: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line cut short by a kill is left out."""
    rows = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and {"kind", "step"} <= set(row)]


def rewind(file: pathlib.Path, step: int, epochs: int, steps_per_epoch: int) -> list[dict[str, Any]]:
    """Drops what was written after ``step``, so that a resumed run doubles no row.

    Args:
      file: a ``metrics.jsonl``.
      step: the last one that stays.
      epochs: how many have ended; at an epoch's last step, it may still lack its validation.
      steps_per_epoch: steps an epoch has.

    Returns:
      The rows that stay.

    Raises:
      ConfigError: the first row or that of an ended epoch is missing.
    """
    # Without a checkpoint all is done again, the row of the start too.
    rows = [row for row in read_rows(file) if row["step"] <= step] if step else []
    rows = [row for row in rows if row["kind"] != "epoch" or row["step"] <= epochs * steps_per_epoch]
    ends = [row["step"] for row in rows if row["kind"] == "epoch"]
    if step and (
        rows[:1] != [row for row in rows if row["kind"] == "start"]
        or ends != list(range(steps_per_epoch, epochs * steps_per_epoch + 1, steps_per_epoch))
    ):
        raise ConfigError(f"{file}: rows up to step {step} are missing; start anew with FRESH=1 (--fresh)")
    part = file.with_name(file.name + ".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(file)
    return rows


@contextlib.contextmanager
def metrics_writer(
    file: pathlib.Path, rows: list[dict[str, Any]]
) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[], None]]]:
    """Yields ``write(row)``, which appends to ``rows`` and to the file, a ``metrics.jsonl``, and ``sync()``.

    On a full disk rows wait for room. ``sync`` brings all of them to the disk itself, since after a power cut a
    checkpoint must not know more than ``metrics.jsonl``; it raises OSError where there is no room.
    """
    waiting = b""
    with open(file, "ab", buffering=0) as lines:

        def append():
            nonlocal waiting
            while waiting:
                waiting = waiting[lines.write(waiting) :]

        def write(row):
            nonlocal waiting
            rows.append(row)
            waiting += json.dumps(row).encode() + b"\n"
            with _unless_full():
                append()

        def sync():
            append()
            os.fsync(lines.fileno())

        try:
            yield write, sync
        finally:
            with _unless_full():
                append()


@contextlib.contextmanager
def _unless_full():
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def live(console: Console) -> bool:
    """Whether a bar can be drawn; if not, each epoch is a plain line."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def progress(console: Console, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """A live bar on a terminal, nothing elsewhere; yields ``show(steps done, text)``."""
    # 80 columns hold the words alone.
    bars = [BarColumn(bar_width=16)] if console.width >= 96 else []
    columns = (TextColumn("{task.description}"), *bars, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not live(console)) as bar:
        task = bar.add_task("compiling", total=total, completed=done)
        yield lambda step, text: bar.update(task, completed=step, description=text)


@contextlib.contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a preparation; yields ``show(stage, done, total)``. Elsewhere, a line as each begins."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not live(console)) as bar:
        tasks: dict[str, Any] = {}

        def show(stage, done, total):
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
                if not live(console):
                    console.print(stage, soft_wrap=True)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def line(row: dict[str, Any], epochs: int) -> str:
    """One line on the terminal for a row of metrics."""
    text = f"epoch {row['epoch']}/{epochs} step {row['step']}"
    if "task_loss" in row:
        text += f" task {row['task_loss']:.3g} chaos {row['chaos_loss']:.3g} z {sum(row['z'].values()):.3g}"
        text += f" acc {row['accuracy']:.1%} {row['examples_per_second']:.0f}/s"
    text += f" flip {row['flip_ratio']:.2g}" if row.get("flip_ratio") is not None else ""
    return text + (f" val {row['validation_accuracy']:.1%}" if "validation_accuracy" in row else "")


def share(norms: dict[str, float]) -> str:
    """How much the chaos term weighs at the start, in words."""
    if not norms["chaos"]:
        return "no chaos term: plain backpropagation"
    return (
        f"at step 0 the chaos term's gradient has {norms['chaos'] / norms['task']:.0%} of the task gradient's norm "
        f"({norms['chaos']:.3g} of {norms['task']:.3g})"
    )


def closing_table(console: Console, run: pathlib.Path, result: dict[str, Any], checkpoints: Any) -> None:
    """Accuracy of the last and of the validation-chosen epoch, time, and where things are."""
    table = Table(title=f"{run.name}: {result['seconds']:.0f} s of training", title_justify="left")
    table.add_column("weights of")
    for heading in ("epoch", "validation accuracy", "test accuracy", "examples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, key in (("last epoch", "last"), ("validation-chosen", "chosen"), ("moving average", "ema")):
        if key not in result:
            continue
        part = result[key]
        table.add_row(
            label,
            str(part["epoch"]),
            f"{part['validation_accuracy']:.2%}",
            f"{part['test_accuracy']:.2%}",
            str(part["test_count"]),
        )
    console.print(table)
    if result.get("stopped_early"):
        console.print(f"stopped early: no epoch after {result['chosen']['epoch']} was better in validation")
    for label, place in (
        ("figures", run / "figures"),
        ("metrics", run / "metrics.jsonl"),
        ("config", run / "config.json"),
        ("checkpoints", checkpoints),
    ):
        console.print(f"{label:12} {place}", soft_wrap=True)


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(columns):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    console.print(table)
