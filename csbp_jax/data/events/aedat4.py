"""AEDAT 4 files, read in a child process: on some damaged ones the package ``aedat`` ends the process that reads them.

This file is also the child's program, which imports NumPy and ``aedat`` alone. One child reads many files; after a
crash the next file starts another. Requests are lines of JSON with a path. An answer is a line of JSON, ``{"error"}``,
``{}`` without events or ``{"count", "height", "width"}``, and after the latter the events as bytes. This costs 0.3 ms
per file of 1000 events and no measurable time per file of a million; the first file takes 0.4 s (two cores, busy).
"""

import atexit
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

EVENT = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
"""An event: calendar time in microseconds, column, row, polarity."""

_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None
_owner = 0  # the process that started the child; a fork of it must not use the same pipes


def read(path: pathlib.Path) -> tuple[NDArray[np.void], tuple[int, int]] | None:
    """Read the first stream of events of a file, in the order of the file.

    Returns:
      The events ``[N]`` of dtype ``EVENT``, and height and width of the camera; None if there is no such stream.

    Raises:
      ValueError: the file is damaged.
    """
    with _lock:
        child = _running()
        assert child.stdin and child.stdout
        try:
            child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {}
            size = answer.get("count", 0) * EVENT.itemsize
            content = child.stdout.read(size)
            if not line or len(content) < size:
                raise BrokenPipeError
        except BrokenPipeError:
            child.communicate()  # waits, and closes the pipes
            code = child.returncode
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ValueError(f"the package aedat ended with {reason}") from None
        except BaseException:  # an interrupted answer would be taken for that of the next file
            _end()
            raise
    if "error" in answer:
        raise ValueError(answer["error"])
    return (np.frombuffer(content, EVENT), (answer["height"], answer["width"])) if answer else None


def _running() -> subprocess.Popen[bytes]:
    """Return the child, started if there is none."""
    global _child, _owner
    if _child is None or _owner != os.getpid() or _child.poll() is not None:
        # -P: the modules beside this file are not meant to be imported by their short names.
        # stderr: a panic in Rust prints its message as well as raising it.
        _child = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        _owner = os.getpid()
    return _child


@atexit.register
def _end() -> None:
    if _child is not None and _owner == os.getpid():
        _child.kill()
        _child.communicate()


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the other process closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C signals all processes of a terminal; the parent decides
    for line in requests:
        try:
            decoded = _decode(json.loads(line))
        except BaseException as error:  # a panic in Rust is not an Exception
            message = " ".join(str(error).split()) or type(error).__name__
            answers.write(json.dumps({"error": message}).encode() + b"\n")
        else:
            events, stream = decoded
            answers.write(json.dumps(stream and {"count": len(events), **stream}).encode() + b"\n")
            answers.write(events.data)
        answers.flush()


def _decode(path: str) -> tuple[NDArray[np.void], dict[str, int]]:
    """Return the events of the first stream of events, and its height and width; no event and {} without a stream."""
    import aedat

    decoder = aedat.Decoder(path)
    streams = decoder.id_to_stream()
    first = min((number for number, stream in streams.items() if stream["type"] == "events"), default=None)
    if first is None:
        return np.empty(0, EVENT), {}
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    events = np.empty(sum(map(len, packets)), EVENT)
    for name in EVENT.names or ():
        events[name] = np.concatenate([packet[name] for packet in packets]) if packets else 0
    return events, {"height": streams[first]["height"], "width": streams[first]["width"]}


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a library prints is not an answer
        _serve(sys.stdin.buffer, answers)
