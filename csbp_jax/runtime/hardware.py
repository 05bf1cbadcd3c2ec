"""Devices: compiler options, those that JAX does not use, float64, FLOPs of a step, peak FLOP/s and memory use."""

import contextlib
import functools
import os
import pathlib
import re
from typing import Any

import jax
import jax.experimental

from csbp_jax.config import ConfigError
from csbp_jax.runtime import private

PEAK_FLOPS = {
    "TPU v2": 23e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "Tesla T4": 65e12,
    "Tesla V100": 125e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    "NVIDIA GeForce RTX 5090": 209e12,
}
"""Dense FLOP/s of a device in bfloat16 (T4 and V100: float16), from the manufacturers' data sheets.

The keys are how JAX's name of it begins, in words; the longest counts. A chip of a TPU v2, v3 or TPU7x is two devices.
"""

# jaxlib's default on CPU is these two and LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

_LEVEL = "xla_backend_optimization_level"


@functools.cache
def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """Return options of ``jax.jit`` for a training step: on CPU, XLA's convolutions by Eigen; None elsewhere.

    The platform is JAX's by default. On CPU, :func:`quick_options` are among them.

    By default XLA on CPU computes them with YNNPACK. Its kernel gradient is one product, summed over batch, time and
    space, and was two to four times slower than Eigen's where the sum has more than about 4,000 terms. The option
    applies to one compiled program, not to the process. The result is None too if this version of jaxlib does
    not have the option.
    """
    if (platform or jax.default_backend()) != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _CPU_OPTIONS | _level()


def quick_options() -> dict[str, str] | None:
    """Return options of ``jax.jit`` for other programs: on CPU, the first level of LLVM; None elsewhere.

    By default LLVM takes the third level, compiles for longer, and made none of the steps and evaluations that were
    measured faster. A level in XLA_FLAGS, as in this package's tests, stands.
    """
    return _level() or None if jax.default_backend() == "cpu" else None


def _level() -> dict[str, str]:
    return {} if _LEVEL in os.environ.get("XLA_FLAGS", "") else {_LEVEL: "1"}


def start_problem(error: Exception) -> str | None:
    """Return in one line why JAX could not start, if that is what raised ``error``; None for other errors."""
    cause = str(error)
    if not cause.startswith("Unable to initialize backend"):
        try:
            jax.devices()
        except Exception as repeated:  # for CUDA without a GPU, an AssertionError without a text
            cause = str(repeated)
        else:
            return None
    cause = cause.partition("\n")[0] or "this machine has no such device; leave it out, or set it to cpu"
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return f"JAX_PLATFORMS: {platforms!r}: {cause}"
    # On a TPU host JAX itself chooses the TPU; with '' it would silently compute on the CPU.
    advice = "JAX_PLATFORMS='' to automatically choose an available backend"
    return cause.replace(advice, "JAX_PLATFORMS=cpu to use the CPU")


ACCELERATORS = {
    "gpu": (("/dev/nvidia[0-9]*",), 'make setup ACCELERATOR=cuda12, or pip install "jax[cuda12]"'),
    "tpu": (("/dev/accel[0-9]*", "/dev/vfio/[0-9]*"), 'make setup ACCELERATOR=tpu, or pip install "jax[tpu]"'),
}
"""Device files of each kind of accelerator, and what JAX needs to use it."""


def unused_accelerator(root: pathlib.Path = pathlib.Path("/")) -> str:
    """Say in one line which accelerator this machine has while JAX computes on the CPU; empty if there is none.

    Nothing is said where JAX_PLATFORMS chooses the CPU.
    """
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return ""
    for kind, (patterns, remedy) in ACCELERATORS.items():
        if any(any(root.glob(pattern[1:])) for pattern in patterns):
            return f"this machine has a {kind.upper()}, but JAX computes on its CPU; to use it: {remedy}"
    return ""


def require(platform: str | None) -> None:
    """Check that JAX computes on a platform, ``cpu``, ``gpu`` or ``tpu``; None for any.

    Raises:
      ConfigError: it computes on another; says what to install.
    """
    actual = jax.default_backend()
    if platform not in (None, actual):
        remedy = unused_accelerator() or ACCELERATORS.get(platform or "", ("", "set JAX_PLATFORMS=cpu"))[1]
        raise ConfigError(f"--require: {platform}, but JAX computes on {actual} ({remedy}; docs/scale.md)")


def float64() -> contextlib.AbstractContextManager[None]:
    """Return ``jax.enable_x64(True)`` of any version of JAX, for a ``with`` in which JAX computes in float64.

    Raises:
      ConfigError: JAX computes on a TPU, where float64 is at best a pair of float32.
    """
    if jax.default_backend() == "tpu":
        raise ConfigError("JAX_PLATFORMS: TPUs have no float64, which this needs; set it to cpu")
    home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # where JAX 0.7 has it
    return home.enable_x64(True)


def peak_flops() -> float | None:
    """Return the peak FLOP/s of all devices together; None if the device is not in PEAK_FLOPS."""
    peak = peak_of(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


def peak_of(name: str) -> float | None:
    """Return the peak FLOP/s of a device by JAX's name of it; None if it is not in PEAK_FLOPS."""
    # By whole words: "TPU v5" is not the beginning of "TPU v5p".
    known = [key for key in PEAK_FLOPS if re.match(rf"{key}\b", name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def flops(step: jax.stages.Wrapped, *arguments: Any) -> float:
    """Count the floating-point operations of a jitted function over all devices, by XLA's own count.

    XLA counts before it optimises, so recomputation (remat) is included. Convolutions are counted as plain sums of
    products, also where the CPU's form of them (``csbp_jax.xla.winograd``) needs fewer. JAX's plugins, those of TPUs
    and GPUs, count compiled programs only: their programs are counted by JAX's CPU. The result is 0 if JAX_PLATFORMS
    leaves the CPU out.
    """
    with jax.default_matmul_precision("highest"):
        lowered = step.lower(*arguments)
    counts = lowered.cost_analysis()
    if counts is None:
        try:
            device = jax.local_devices(backend="cpu")[0]
        except RuntimeError:  # no CPU in JAX_PLATFORMS
            return 0.0
        counts = private.counts_of_program(device, lowered.compiler_ir("hlo"))
    return float(counts.get("flops", 0.0))


def memory_stats() -> dict[str, int]:
    """Return ``{"device_bytes": peak bytes in use on the first local device}``; empty if not reported (CPU)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"device_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}
