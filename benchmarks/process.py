"""Worker processes from the side that asks: started pinned and with one allocator, and timed in rounds."""

import contextlib
import json
import os
import pathlib
import random
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
# Fresh buffers would be paid for in page faults: keep freed memory, in huge pages, in one arena.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.arena_max=1"
)
ENVIRONMENT = {
    "GLIBC_TUNABLES": TUNABLES,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_TRACEBACK_FILTERING": "off",
}


class Failed(Exception):
    """A worker ended; the message is the last thing it said."""


class Worker:
    """``benchmarks.worker`` of a module, under some Python; a context manager."""

    def __init__(self, python, module):
        self.module, self.errors = module, tempfile.TemporaryFile("w+")  # noqa: SIM115
        core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", module, str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
        )
        self.versions = self._answer()["versions"]

    def ask(self, **request):
        """The answer to one request.

        Raises:
          Failed: the worker ended instead.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines() or [f"exit code {self.process.returncode}"]
        raise Failed(f"{self.module}: {said[-1]}")

    def check(self):
        """The arrays of its program's check."""
        with tempfile.TemporaryDirectory() as folder:
            self.ask(check=f"{folder}/check.npz")
            with np.load(f"{folder}/check.npz") as arrays:
                return dict(arrays)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def in_rounds(workers, rounds, calls=1, warm=2):
    """``{name: {wall: [rounds, stages], cpu: ...}}`` seconds of the workers' programs, each round in a new order.

    Rounds before the first do not count: until every buffer was used once, the allocator asks the kernel for pages.
    """
    found = {name: {"wall": [], "cpu": []} for name in workers}
    for _ in range(warm + rounds):
        for name in random.sample(list(workers), len(workers)):
            for clock, seconds in workers[name].ask(time=calls).items():
                found[name][clock].append(seconds)
    return {name: {clock: np.array(rows[warm:]) for clock, rows in clocks.items()} for name, clocks in found.items()}
