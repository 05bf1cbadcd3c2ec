"""Names that JAX keeps to itself are still there (csbp_jax/runtime/private.py).

Where one has moved with a new version, look it up in that version's source: whether JAX has started in
``jax/_src/xla_bridge.py``, other processes in ``jax/_src/clusters``, and the counts of a program in what
``jax.stages.Lowered.cost_analysis`` calls. Change that file alone. If there is none any more, a pod needs
``--distributed auto``, a late ``deterministic`` is not refused, and operations are not counted on GPUs.
"""

import jax
import jax.numpy as jnp
import pytest

from csbp_jax.runtime import private


def test_whether_jax_has_started_is_known():
    jnp.ones(2).block_until_ready()
    assert private.backend_of_jax() == jax.default_backend()


@pytest.mark.parametrize("size", [3, 5])
def test_the_operations_of_a_program_are_counted(size):
    lowered = jax.jit(jnp.dot).lower(jnp.ones((size, size)), jnp.ones((size, size)))
    counts = private.counts_of_program(jax.local_devices(backend="cpu")[0], lowered.compiler_ir("hlo"))
    assert counts["flops"] == 2 * size**3 and counts == lowered.cost_analysis()


def test_processes_of_a_scheduler_are_found(monkeypatch):
    assert private.found_processes() == 1
    variables = {"JOB_ID": "7", "STEP_NODELIST": "node1,node2", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert private.found_processes() == 2
