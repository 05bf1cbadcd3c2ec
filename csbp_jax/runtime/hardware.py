"""Devices: how a step is compiled for them, their memory, the share of their arithmetic in use, traces of steps."""

import contextlib
import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from csbp_jax.config import ConfigError

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
}
"""Dense bfloat16 operations a second, by the name that JAX gives the device; from the makers' data sheets."""


_YNN = "LIBRARY_FUSION_TYPE_"
# jaxlib's own choice for CPU is these two and INDIVIDUAL_CONVOLUTION.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": f"{_YNN}REDUCE,{_YNN}INDIVIDUAL_DOT"}


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """For ``jax.jit`` of a training step: on CPU, convolutions by Eigen. None elsewhere, or where jaxlib cannot do it.

    By default XLA on CPU gives convolutions to YNNPACK. Its gradient in the kernel is one product, summed over batch,
    time and space, and two to four times slower than Eigen's where that is more than some 4,000 terms
    (docs/results/bench/tables.md). The option is one of the program that it is given to, not of the process.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _CPU_OPTIONS


def peak_flops() -> float | None:
    """Operations a second of all devices together; None where the kind is not in PEAK."""
    one = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if one is None else one * jax.device_count()


def flops(step: jax.stages.Wrapped, *given: Any) -> float:
    """Floating point operations of a jitted function, of all devices together, by XLA's own count.

    Counted before the compiler optimises, so recomputation (remat) counts as well.
    """
    return float((step.lower(*given).cost_analysis() or {})["flops"])


def memory_stats() -> dict[str, int]:
    """``{"device_bytes": most that was ever in use on the first device here}``; empty where it does not tell (CPU)."""
    told = jax.local_devices()[0].memory_stats() or {}
    return {"device_bytes": told["peak_bytes_in_use"]} if "peak_bytes_in_use" in told else {}


def parse_trace_steps(words: str) -> range:
    """``START:N``, as steps from 1.

    Raises:
      ConfigError: it is something else.
    """
    match = re.fullmatch(r"(\d+):(\d+)", words)
    if not match or not int(match[1]) or not int(match[2]):
        raise ConfigError(f"--profile: {words!r} is not possible; write START:N, e.g. 20:5 for steps 20 to 24")
    return range(int(match[1]), int(match[1]) + int(match[2]))


@contextlib.contextmanager
def profiled(step: Callable, done: int, steps: range, folder: pathlib.Path) -> Iterator[Callable]:
    """The training step, with a trace of those ``steps`` left in ``folder``; ``done`` is the last one before it."""
    running = False

    def stop():
        nonlocal running
        if running:
            running = False
            jax.profiler.stop_trace()

    def train_step(state, batch):
        nonlocal done, running
        done += 1
        if done == steps.start:
            jax.block_until_ready(state)
            jax.profiler.start_trace(folder)
            running = True
        state, metrics = step(state, batch)
        if running and done == steps.stop - 1:
            jax.block_until_ready(state)
            stop()
        return state, metrics

    try:
        yield train_step
    finally:
        stop()
