"""Several processes as one run: how they connect, who writes files, how all stop at the same step or after a loss.

Process 0 writes files and the terminal; the others compute and save their shards of a checkpoint. Decisions and errors
of one process are passed to all, so that none waits for another that has left.
"""

import collections
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from csbp_jax.config import CheckpointError, ConfigError, Diverged, Lost
from csbp_jax.runtime import private, sharding
from csbp_jax.runtime.preemption import CODES, Stop, Stopped

HEARTBEAT_SECONDS = 30
"""Silence after which a process counts as lost; JAX then ends the others (SIGABRT, 134)."""

QUIET_SECONDS = 10
"""Seconds after which a wait for other processes is said."""

Result = TypeVar("Result")


@contextlib.contextmanager
def connected(how: str | None, stop: Stop) -> Iterator[Stop]:
    """Connect the processes of a run, yield the Stop that they share, and disconnect at the end.

    Args:
      how: ``off``: this is the only process, and nobody is asked for others. ``auto``: JAX finds the others (TPU pods,
        Slurm, Open MPI ...). ``HOST:PORT,n,i``: this is process i of n, and process 0 listens at HOST:PORT, at that
        address only. None: ``auto`` where JAX finds others, else ``off``.
      stop: this process's Stop. JAX takes over SIGTERM and passes it to the other processes.

    Raises:
      ConfigError: ``how`` is none of these; the processes could not connect, or they (or their TPU slices) have
        different numbers of devices.
      Lost: another process ended before this one.
    """
    if how is None:
        how = "off" if private.found_processes() == 1 else "auto"
    if how == "off":
        yield stop
        return
    with _said_if_long("waiting for the other processes of --distributed"):
        _connect(how)
    try:
        with stop.deferred():
            _check_device_counts()
            with _said_if_long("waiting for the devices of the other processes"):
                _connect_devices()
            yield _SharedStop(stop)
    except (Stopped, Diverged):  # raised by all processes at the same step
        jax.distributed.shutdown()
        raise
    except Exception as error:
        if hasattr(error, _RAISED_BY_ALL):
            jax.distributed.shutdown()
        elif jax.process_count() > 1 and re.search("(?i)gloo|nccl|coordination|connection|heartbeat", str(error)):
            cause = str(error).strip().partition("\n")[0][:300]
            raise Lost(f"another process of this run has ended ({cause}); restart all of them to resume") from error
        raise
    else:
        jax.distributed.shutdown()


def launched() -> tuple[int, int]:
    """Return the index of this process and the number of processes that its launcher has started; (0, 1) without one.

    For work that processes share without exchanging anything: JAX does not connect them. Launchers are those whose
    processes JAX would connect (a TPU slice, Slurm, Kubernetes ...), and MPI's by Open MPI's variables.

    If JAX has not started, this process then takes the GPUs that it would take if it were connected: the one that has
    its index on its host, or those of ``JAX_LOCAL_DEVICE_IDS``.

    Raises:
      ConfigError: the launcher does not say which process this is.
    """
    on_host: int | None
    if "OMPI_COMM_WORLD_RANK" in os.environ:  # JAX looks for a variable that Open MPI 5 no longer has
        names = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
        count, index, on_host = (_number(name) for name in names)
    else:
        count = private.found_processes("give each its share: --shard INDEX/COUNT (shard=)")
        index, on_host = private.found_index() if count > 1 else (0, None)
    if count > 1 and on_host is not None and private.backend_of_jax() is None:
        devices = os.environ.get("JAX_LOCAL_DEVICE_IDS") or str(on_host)
        jax.config.update("jax_cuda_visible_devices", devices)
        jax.config.update("jax_rocm_visible_devices", devices)
    return index, count


def _number(name: str) -> int:
    """Return the whole number that a variable of the environment has.

    Raises:
      ConfigError: it has none.
    """
    value = os.environ.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ConfigError(f"{name}: {value!r} is no number; start by mpirun, or unset the variables of Open MPI")
    return int(value)


def is_host0() -> bool:
    """Return whether this process writes files and the terminal."""
    return jax.process_index() == 0


def broadcast_from_host0(function: Callable[[], Result]) -> Result:
    """Call ``function`` in process 0 and return its result in all; with several processes it must be JSON.

    Raises:
      Exception: process 0 raised it; the others raise it as a ConfigError, or a CheckpointError if it is one.
    """
    if jax.process_count() == 1:
        return function()
    content: Any = None
    error = None
    if is_host0():
        try:
            content = {"result": function()}
        except Exception as raised:
            error, content = raised, {"error": _line(raised), "checkpoint": isinstance(raised, CheckpointError)}
    message = json.dumps(content).encode() if is_host0() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    received = multihost_utils.broadcast_one_to_all(np.frombuffer(message or bytes(size), np.uint8))
    content = json.loads(np.asarray(received).tobytes())
    if "result" in content:
        return content["result"]
    raise _raised_by_all(error or (CheckpointError if content["checkpoint"] else ConfigError)(content["error"]))


def all_succeed(function: Callable[[], Result]) -> Result:
    """Call ``function`` in all processes and return its local result if none of them raised an error.

    Raises:
      Exception: this process raised it; the others raise it as a ConfigError, or a CheckpointError if it is one, and
        the message names this process.
    """
    if jax.process_count() == 1:
        return function()
    result: Any = None
    error: Exception | None = None
    try:
        result = function()
    except Exception as raised:
        error = raised
    text = f"{isinstance(error, CheckpointError):d}{_line(error)}" if error else ""
    message = text.encode(errors="surrogateescape")
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(message))))
    if sizes.any():
        padded = np.frombuffer(message.ljust(int(sizes.max())), np.uint8)
        texts = [
            row.tobytes().decode(errors="surrogateescape").rstrip() for row in multihost_utils.process_allgather(padded)
        ]
        lowest = next(process for process, text in enumerate(texts) if text)
        kind = CheckpointError if texts[lowest][0] == "1" else ConfigError
        raise _raised_by_all(error or kind(f"{texts[lowest][1:]} (in process {lowest})"))
    return result


def host0_first(function: Callable[[], Result]) -> Result:
    """Call ``function`` in process 0, then in the others, as :func:`all_succeed`; they find what process 0 has written.

    Raises:
      Exception: a process raised it, as in :func:`all_succeed`.
    """
    results: list[Result] = []
    broadcast_from_host0(lambda: results.append(function()))
    return all_succeed(lambda: results[0] if results else function())


def check_equal(what: str, value: Any) -> None:
    """Check that all processes have the same value.

    Raises:
      ConfigError: they differ.
    """
    value_of_host0 = broadcast_from_host0(lambda: value)

    def compare() -> None:
        if value_of_host0 != value:
            raise ConfigError(
                f"{what}: not the same in all processes; give all of them the same command and the same data"
            )

    all_succeed(compare)


class _SharedStop(Stop):
    """Stop of all processes: a request to one stops all at the same poll; all must poll equally often.

    JAX notices a SIGTERM in any process, and lets all of them agree on the next poll that none has reached yet.
    """

    def __init__(self, local: Stop):
        super().__init__()
        self._local, self._polls, self._forwarded = local, 0, False

    def poll(self) -> int | None:
        if self._local.poll() is not None and not self._forwarded:  # Ctrl-C, which JAX does not take over
            self._forwarded = True
            signal.raise_signal(signal.SIGTERM)
        if self._code is None:
            self._polls += 1
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self._code = self._local.poll() or CODES[signal.SIGTERM]
        return self._code


@contextlib.contextmanager
def _said_if_long(what: str) -> Iterator[None]:
    """Say what takes longer than ``QUIET_SECONDS``."""
    timer = threading.Timer(QUIET_SECONDS, print, (f"csbp_jax: {what}",), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _connect(how: str) -> None:
    arguments: dict[str, Any] = {}
    if match := re.fullmatch(r"((?:\[[0-9a-fA-F:]+\]|[^\s,:]+):[0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})", how):
        arguments = {"num_processes": int(match[2]), "process_id": int(match[3])}
        arguments |= dict.fromkeys(("coordinator_address", "coordinator_bind_address"), match[1])
        if not arguments["process_id"] < arguments["num_processes"]:
            raise ConfigError(f"--distributed: {how!r} is not possible; of n processes, i is from 0 to n - 1")
    elif how != "auto":
        raise ConfigError(f"--distributed: {how!r} is not possible; allowed are off, auto and HOST:PORT,n,i")
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(f"--distributed: {how!r}: the processes could not connect ({cause})") from None


def _check_device_counts() -> None:
    # JAX's collectives of values on the host need equal numbers. All processes see the same devices, so all raise.
    counts = collections.Counter(device.process_index for device in jax.devices())
    for process, count in sorted(counts.items()):
        if count != counts[0]:
            raise _raised_by_all(
                ConfigError(
                    f"--distributed: process 0 has {counts[0]} devices, but process {process} has {count}; start all "
                    "with equally many"
                )
            )


def _connect_devices() -> None:
    # The first collective of a group of devices connects them, and waits for the last of them no longer than 30 s on
    # CPUs and 10 minutes on GPUs; later ones wait for longer. Processes arrive here together, but not after what one
    # of them does first or takes longer for: to load data, to compile.
    mesh = host0_first(sharding.data_parallel)  # in groups of one device of each process
    rows = sharding.shard_batch(np.zeros(jax.local_device_count(), np.float32), mesh)
    multihost_utils.process_allgather(rows, tiled=True)  # of all devices


def _line(error: Exception) -> str:
    """Describe an error to processes in which it did not occur."""
    if isinstance(error, ConfigError | OSError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


_RAISED_BY_ALL = "_raised_by_all"


def _raised_by_all(error: Exception) -> Exception:
    """Mark an error that all processes raise, so that they can disconnect in order."""
    setattr(error, _RAISED_BY_ALL, True)
    return error
