"""Programs of a config for CPUs, GPUs or TPUs, from shapes alone and without such a device."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from csbp_jax.config import Config
from csbp_jax.data.source import ArraySource
from csbp_jax.runtime import hardware, sharding
from csbp_jax.training.compiled import CompiledRun, compile_run
from csbp_jax.training.plugins import Own

STEPS_PER_EPOCH = 10_000


class Shapes(NamedTuple):
    """The functions of a run, its traced initialisation, and the shapes of a state and of a batch of training."""

    run: CompiledRun
    init: jax.stages.Traced
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]


@contextlib.contextmanager
def traced_for(platform: str, devices: int = 1) -> Iterator[None]:
    """Let the package write its programs as on a host with these devices; ``platform`` is cpu, gpu or tpu.

    What JAX has traced before is forgotten, as it may be for other devices.
    """
    with (
        mock.patch.object(jax, "default_backend", return_value=platform),
        mock.patch.object(jax, "device_count", return_value=devices),
    ):
        jax.clear_caches()
        hardware.compiler_options.cache_clear()
        yield
    hardware.compiler_options.cache_clear()


def shapes(config: Config, frames: tuple[int, ...], dtype: DTypeLike, mesh: Mesh, own: Own = Own()) -> Shapes:
    """Build the run of a resolved config over a mesh; ``frames [T or 1, ...]`` is the shape of a record."""
    source = ArraySource(np.broadcast_to(np.zeros((), dtype), (32, *frames)), np.zeros(32, np.int32), 2)
    run = compile_run(config, source, STEPS_PER_EPOCH, own, mesh)
    init = jax.jit(run.pure_init).trace(jax.random.key(0))
    placed = sharding.shardings(config.layout, init.out_info, mesh)
    state = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), init.out_info, placed)
    rows = sharding.batch_sharding(mesh)
    batch = {
        "x": jax.ShapeDtypeStruct((config.batch_size, *frames), dtype, sharding=rows),
        "y": jax.ShapeDtypeStruct((config.batch_size,), np.int32, sharding=rows),
    }
    return Shapes(run, init, state, batch)
