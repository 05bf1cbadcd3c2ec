"""Programs of a config for CPUs, GPUs or TPUs, from shapes alone and without such a device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from csbp_jax.config import Config
from csbp_jax.data.source import ArraySource
from csbp_jax.experiment import memory
from csbp_jax.runtime import sharding
from csbp_jax.training.compiled import CompiledRun, compile_run
from csbp_jax.training.compiled_group import CompiledGroup, member_mesh
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
    source = _source(config, frames, dtype, 32)
    target, kind = source.y.shape[1:], source.y.dtype
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


def members(
    config: Config,
    frames: tuple[int, ...],
    dtype: DTypeLike,
    count: int,
    devices: Sequence[jax.Device],
    own: Own = Own(),
    platform: str | None = None,
) -> list[jax.stages.Traced]:
    """Trace the initialisation, training and evaluation of ``count`` members of a sweep, two of which share a seed.

    Arguments are those of :func:`shapes`. Training is an epoch of two steps where the data stay on the devices, and
    otherwise a step.
    """
    records = _source(config, frames, dtype, 2 * config.batch_size)
    splits = dict.fromkeys(("train", "validation", "test"), records)
    group = CompiledGroup(config, splits, member_mesh(1, devices), own, platform=platform)
    states, keys = memory.state_shapes(group, config, count)
    init = group.init.trace(keys, group.hparams([config] * count))
    return [
        init,
        *(program.trace(*arguments) for program, arguments, _ in memory.programs(group, states, keys, count - 1)),
    ]


def _source(config: Config, frames: tuple[int, ...], dtype: DTypeLike, count: int) -> ArraySource:
    """Return ``count`` records of zeros, ``frames`` of a type each."""
    kind = np.int32 if config.loss.task == "class" else np.float32
    target = frames[:1] * (config.loss.per == "step") + (config.model.classes,) * (config.loss.task != "class")
    return ArraySource(np.broadcast_to(np.zeros((), dtype), (count, *frames)), np.zeros((count, *target), kind), 2)
