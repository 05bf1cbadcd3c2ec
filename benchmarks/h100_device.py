"""The compiler's description of an H100, and compilation for it; needs JAX's CUDA plugin, but no device."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import topologies

# The compiler's description of an H100 SXM, with NVIDIA's published figures.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  device_memory_size: 84942979072
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  driver_version: "12.8.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Autotuning times kernels on a device.
OPTIONS: Any = {"xla_gpu_autotune_level": 0}


def compiled(
    function: Callable[..., Any], *arguments: Any, donated: int | tuple[int, ...] = (), deterministic: bool = False
) -> tuple[Any, float]:
    """The program, and the seconds of its compilation; deterministic as the option ``--deterministic`` asks for."""
    device = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), arguments)
    began = time.perf_counter()
    lowered = jax.jit(function, donate_argnums=donated).lower(*arguments)
    program = lowered.compile(OPTIONS | {"xla_gpu_deterministic_ops": deterministic})
    return program, time.perf_counter() - began
