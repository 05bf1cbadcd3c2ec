"""Worker processes, pinned to a core and with the same allocator, and their timing in rounds."""

import contextlib
import json
import os
import pathlib
import platform
import random
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
# Fresh buffers cost page faults: keep freed memory, in huge pages, in a single arena.
ARENAS = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
TUNABLES = f"{ARENAS}:glibc.malloc.arena_max=1"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",  # what is timed is CPU time, also on a machine with a GPU
    "JAX_TRACEBACK_FILTERING": "off",
}


class Failed(Exception):
    """A worker ended; the message is its last line on standard error."""


class Worker:
    """A process of ``benchmarks.worker`` for a module, under a given Python and allocator; a context manager.

    cache: folder of the programs that torch compiles; torch's own by default.
    """

    def __init__(self, python: str, module: str, tunables: str = TUNABLES, cache: str | None = None):
        self.module, self.errors = module, tempfile.TemporaryFile("w+")  # noqa: SIM115
        core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", module, str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            # Compiled in this process and not in others, whose time would not be counted.
            env={
                **os.environ,
                **ENVIRONMENT,
                "GLIBC_TUNABLES": tunables,
                "TORCHINDUCTOR_COMPILE_THREADS": "1",
                **({"TORCHINDUCTOR_CACHE_DIR": cache} if cache else {}),
            },
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, **request: Any) -> Any:
        """Send a request and return its answer.

        Raises:
          Failed: the worker ended.
        """
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines() or [f"exit code {self.process.returncode}"]
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
        raise Failed(f"{self.module}: {[lines[-1], *errors][-1]}")

    def check(self) -> dict[str, np.ndarray]:
        """The arrays of the program's check."""
        with tempfile.TemporaryDirectory() as folder:
            self.ask(check=f"{folder}/check.npz")
            with np.load(f"{folder}/check.npz") as arrays:
                return dict(arrays)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def in_rounds(
    workers: Mapping[str, Worker], rounds: int, calls: int = 1, warm: int = 2
) -> dict[str, dict[str, np.ndarray]]:
    """``{name: {wall: [rounds, stages], cpu: ...}}`` seconds of the workers' programs, each round in a new order.

    The first ``warm`` rounds are not counted: until every buffer is used once, the allocator asks the kernel for pages.
    """
    seconds: dict[str, dict[str, list[Any]]] = {name: {"wall": [], "cpu": []} for name in workers}
    for _ in range(warm + rounds):
        for name in random.sample(list(workers), len(workers)):
            for clock, stages in workers[name].ask(time=calls).items():
                seconds[name][clock].append(stages)
    return {name: {clock: np.array(rows[warm:]) for clock, rows in clocks.items()} for name, clocks in seconds.items()}


def machine() -> str:
    """Processor, cores and system."""
    name = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        fields = {key.strip(): value.strip() for key, _, value in lines}
        name = fields.get("model name", name)
        # Virtual machines may hide the processor's number in its name.
        if "cpu family" in fields:
            name += f" (family {fields['cpu family']}, model {fields['model']})"
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
