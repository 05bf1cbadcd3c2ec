"""Export of a run's network as one StableHLO function: ``x [B, T, ...]`` to ``logits [B, T, C]``, weights inside.

The function is the network in evaluation mode (running statistics, no dropout), for any batch size and the run's own T,
lowered for CPU, CUDA and TPU. The file is the container that ``jax.export`` writes, around portable StableHLO bytecode:

    exported = jax.export.deserialize(pathlib.Path("last.stablehlo").read_bytes())
    logits = exported.call(x)  # x float32; repeat a still input T times
    exported.mlir_module_serialized  # the bytecode, for other compilers

JAX guarantees that its versions of the next half year can run the file. The metadata that other forms contain is
written to a JSON file beside it.
"""

import pathlib

import jax
import jax.numpy as jnp
from jax import export

from csbp_jax.runs.restore import RestoredRun

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(run: RestoredRun) -> export.Exported:
    """Return the network as an exported function."""
    shape = (*export.symbolic_shape("batch"), run.config.model.time_steps, *run.config.model.input_shape)

    @jax.jit
    def logits(x: jax.Array) -> jax.Array:
        return run.apply(run.variables, x)[0]

    return export.export(logits, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))


def write(run: RestoredRun, metadata: dict[str, str], file: pathlib.Path) -> None:
    """Write the serialized function, whose container has no field for the metadata."""
    file.write_bytes(exported(run).serialize())
