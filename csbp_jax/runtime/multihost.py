"""Several processes as one run: how they join, who writes, how all stop at one step, and what is told if one is lost.

The first process writes files and the terminal; the others compute and save their parts of a checkpoint. What one of
them decides or cannot do, all are told, so that none waits for another that has left.
"""

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from csbp_jax.config import CheckpointError, ConfigError, Diverged, Lost
from csbp_jax.runtime.preemption import CODES, Stop, Stopped

HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long counts as lost; JAX then ends the others (SIGABRT, 134)."""

Result = TypeVar("Result")


@contextlib.contextmanager
def connected(how: str, stop: Stop) -> Iterator[Stop]:
    """Joins the other processes of a run, yields the Stop that all share, and parts from them at the end.

    Args:
      how: ``off``: there are none. ``auto``: JAX finds them (TPU pods, Slurm, Open MPI ...). ``HOST:PORT,n,i``: this is
        process i of n, and process 0 listens at HOST:PORT, at that address only.
      stop: that of this process's signals. JAX takes SIGTERM over, and tells the other processes.

    Raises:
      ConfigError: ``how`` is none of these, or the others cannot be found.
      Lost: another process ended before this one.
    """
    if how == "off":
        yield stop
        return
    _join(how)
    try:
        with stop.held():
            yield _Shared(stop)
    except (Stopped, Diverged):  # all raise them at the same step
        jax.distributed.shutdown()
        raise
    except Exception as error:
        if hasattr(error, _BY_ALL):
            jax.distributed.shutdown()
        elif jax.process_count() > 1 and re.search("(?i)gloo|nccl|coordination|connection|heartbeat", str(error)):
            cause = str(error).strip().partition("\n")[0][:300]
            told = f"another process of this run has ended ({cause}); start all of them again, and it goes on"
            raise Lost(told) from error
        raise
    else:
        jax.distributed.shutdown()


def is_host0() -> bool:
    """Whether this process writes files and the terminal."""
    return jax.process_index() == 0


def host_slice() -> dict[str, int]:
    """Which rows of a batch this process reads, as ``data.train_batches`` takes it."""
    return {"process": jax.process_index(), "processes": jax.process_count()}


def broadcast_from_host0(function: Callable[[], Result]) -> Result:
    """What ``function`` returns in the first process, for all; where there are several, it goes through JSON.

    Raises:
      ConfigError, CheckpointError, OSError: the first process raised it, and all do.
    """
    if jax.process_count() == 1:
        return function()
    content: Any = None
    error = None
    if is_host0():
        try:
            content = {"result": function()}
        except Exception as raised:
            error, content = raised, {"error": str(raised), "checkpoint": isinstance(raised, CheckpointError)}
    told = json.dumps(content).encode() if is_host0() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(told))))
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(told or bytes(size), np.uint8))
    content = json.loads(np.asarray(told).tobytes())
    if "result" in content:
        return content["result"]
    raise _marked(error or (CheckpointError if content["checkpoint"] else ConfigError)(content["error"]))


def all_succeed(function: Callable[[], Result]) -> Result:
    """What ``function`` returns here, if it returns in all processes.

    Raises:
      ConfigError, CheckpointError: a process raised it. Those that did not say which one did.
    """
    if jax.process_count() == 1:
        return function()
    result, mine = None, None
    try:
        result = function()
    except ConfigError as raised:
        mine = raised
    told = f"{isinstance(mine, CheckpointError):d}{mine}".encode() if mine else b""
    sizes = multihost_utils.process_allgather(np.int32(len(told)))
    if not sizes.any():
        return result  # type: ignore[return-value]
    padded = np.frombuffer(told.ljust(int(sizes.max())), np.uint8)
    texts = [row.tobytes().decode().rstrip() for row in multihost_utils.process_allgather(padded)]
    lowest = next(process for process, text in enumerate(texts) if text)
    kind = CheckpointError if texts[lowest][0] == "1" else ConfigError
    raise _marked(mine or kind(f"{texts[lowest][1:]} (in process {lowest})"))


def check_equal(what: str, value: Any) -> None:
    """All processes must have been given the same.

    Raises:
      ConfigError: they have not.
    """
    theirs = broadcast_from_host0(lambda: value)

    def compare():
        if theirs != value:
            raise ConfigError(
                f"{what}: not the same in all processes; give all of them the same command and the same data"
            )

    all_succeed(compare)


class _Shared(Stop):
    """Told to one process, all stop where they ask for the same time; all must ask equally often.

    JAX hears of a SIGTERM in any of them, and lets all agree on the next question that none has asked yet.
    """

    def __init__(self, mine: Stop):
        super().__init__()
        self._mine, self._asked, self._passed_on = mine, 0, False

    @property
    def code(self) -> int | None:
        if self._mine.code is not None and not self._passed_on:  # Ctrl-C, which JAX does not take over
            self._passed_on = True
            signal.raise_signal(signal.SIGTERM)
        if self._code is None:
            self._asked += 1
            if multihost_utils.reached_preemption_sync_point(self._asked):
                self._code = self._mine.code or CODES[signal.SIGTERM]
        return self._code


def _join(how):
    if how == "auto":
        place = {}
    elif match := re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s,:]+):(\d+),(\d+),(\d+)", how):
        address, count, number = f"{match[1]}:{match[2]}", int(match[3]), int(match[4])
        if not number < count:
            raise ConfigError(f"--distributed: {how!r} is not possible; of n processes, i is from 0 to n - 1")
        place = {"coordinator_address": address, "num_processes": count, "process_id": number}
        place["coordinator_bind_address"] = address
    else:
        raise ConfigError(f"--distributed: {how!r} is not possible; allowed are off, auto and HOST:PORT,n,i")
    try:
        jax.distributed.initialize(**place, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(f"--distributed: {how!r}: the processes could not join ({cause})") from None


_BY_ALL = "_by_all"


def _marked(error):
    """Raised in all processes, which can part in good order."""
    if isinstance(error, ConfigError):
        setattr(error, _BY_ALL, True)
    return error
