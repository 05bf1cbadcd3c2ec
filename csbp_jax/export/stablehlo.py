"""A run's network as one function in StableHLO: ``x [B, T, ...]`` to ``logits [B, T, C]``, weights inside.

It is that of evaluation (running statistics, no dropout), for any batch size and the run's own T, and lowered for CPU,
CUDA and TPU alike. The file is what ``jax.export`` makes, a container of its own around portable StableHLO bytecode:

    exported = jax.export.deserialize(pathlib.Path("last.stablehlo").read_bytes())
    logits = exported.call(x)  # x float32; a still picture is repeated T times
    exported.mlir_module_serialized  # the bytecode, for other compilers

JAX promises to run it with its own versions of the next half year. What other forms keep in their metadata lies beside
it, as JSON.
"""

import pathlib

import jax
import jax.numpy as jnp
from jax import export

from csbp_jax.evaluation.restore import RestoredRun

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(run: RestoredRun) -> export.Exported:
    """The function, exported."""
    shape = (*export.symbolic_shape("batch"), run.config.model.time_steps, *run.config.model.input_shape)

    @jax.jit
    def logits(x):
        return run.apply(run.variables, x)[0]

    return export.export(logits, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))


def write(run: RestoredRun, about: dict[str, str], file: pathlib.Path) -> None:
    """The function, serialized; it has no place for ``about``."""
    file.write_bytes(exported(run).serialize())
