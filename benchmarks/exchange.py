"""How near two cores are: nanoseconds in which a byte goes from one to the other and back.

    python -m benchmarks.exchange CORE CORE

Two processes wait in turn for each other's byte in shared memory. Some 70 ns of it are Python's. Cores that share a
cache take about 80 ns, others 350 and more; a virtual machine may move to other cores at any moment.
"""

import mmap
import os
import sys
import time

TURNS, ROUNDS = 2000, 20


def nanoseconds(cores: tuple[int, int]) -> float:
    """The least of several rounds; forks, so that no other thread may run."""
    shared = mmap.mmap(-1, 64)
    if not os.fork():
        os.sched_setaffinity(0, {cores[1]})
        for _ in range(ROUNDS * TURNS):
            while not shared[0]:
                pass
            shared[0] = 0
        os._exit(0)
    os.sched_setaffinity(0, {cores[0]})
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(TURNS):
            shared[0] = 1
            while shared[0]:
                pass
        times.append((time.perf_counter_ns() - began) / TURNS)
    os.wait()
    return min(times)


if __name__ == "__main__":
    print(nanoseconds((int(sys.argv[1]), int(sys.argv[2]))))
