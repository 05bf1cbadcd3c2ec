"""Names that JAX keeps to itself, and that a new version may move, in this file alone.

tests/runtime/test_private.py says what to do when one has moved.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


def backend_of_jax() -> str | None:
    """Return the name of JAX's backend, or None while it has none; JAX's public functions would start it."""
    import jax
    from jax._src import xla_bridge

    return jax.default_backend() if xla_bridge.backends_are_initialized() else None


def counts_of_program(device: "jax.Device", program: Any) -> dict[str, float]:
    """Return what XLA counts in a program in HLO, as ``Lowered.cost_analysis`` does on a CPU; none if it has moved."""
    try:
        from jaxlib._jax import hlo_module_cost_analysis
    except ImportError:
        return {}
    return hlo_module_cost_analysis(device.client, program.as_hlo_module())


def found_processes() -> int:
    """Return how many processes JAX finds that it would connect (TPU pods, Slurm, Open MPI ...); 1 if none."""
    from jax._src.clusters import ClusterEnv

    for environment in ClusterEnv._cluster_types:
        # Slurm and others have variables in each process; a TPU VM is asked for its neighbours over the network.
        if not environment.opt_in_only_method and environment.is_env_present():
            return environment.get_process_count()
    return 1
