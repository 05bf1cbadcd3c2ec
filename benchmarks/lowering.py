"""Programs of a config for CPUs, GPUs or TPUs, from shapes alone and without such a device."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from csbp_jax.config import Config
from csbp_jax.data.source import ArraySource
from csbp_jax.runtime import sharding
from csbp_jax.training.compiled import CompiledRun, compile_run
from csbp_jax.training.plugins import Own

STEPS_PER_EPOCH = 10_000


class Shapes(NamedTuple):
    """The functions of a run, its traced initialisation, and the shapes of a state and of a batch of training."""

    run: CompiledRun
    init: jax.stages.Traced
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]


def shapes(
    config: Config, frames: tuple[int, ...], dtype: DTypeLike, mesh: Mesh, own: Own = Own(), platform: str | None = None
) -> Shapes:
    """Build the run of a resolved config over a mesh; ``frames [T or 1, ...]`` is the shape of a record.

    platform: for which it is lowered, if it is not the mesh's: cpu, gpu or tpu.
    """
    loss, kind = config.loss, np.int32 if config.loss.task == "class" else np.float32
    target = frames[:1] * (loss.per == "step") + (config.model.classes,) * (loss.task != "class")
    source = ArraySource(np.broadcast_to(np.zeros((), dtype), (32, *frames)), np.zeros((32, *target), kind), 2)
    run = compile_run(config, source, STEPS_PER_EPOCH, own, mesh, platform)
    init = jax.jit(run.pure_init).trace(jax.random.key(0))
    placed = sharding.shardings(config.layout, init.out_info, mesh)
    state = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), init.out_info, placed)
    rows = sharding.batch_sharding(mesh)
    batch = {
        "x": jax.ShapeDtypeStruct((config.batch_size, *frames), dtype, sharding=rows),
        "y": jax.ShapeDtypeStruct((config.batch_size, *target), kind, sharding=rows),
    }
    return Shapes(run, init, state, batch)
