"""Names that JAX keeps to itself, and that a new version may move, in this file alone.

tests/runtime/test_private.py says what to do when one has moved.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

from csbp_jax.config import ConfigError, one_line

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


def found_processes(remedy: str = "name them: --distributed HOST:PORT,n,i") -> int:
    """Return how many processes JAX finds that it would connect (TPU pods, Slurm, Open MPI ...); 1 if none.

    A TPU VM is asked for its neighbours over the network. Where nobody answers, the number is taken to be 1, and a line
    on the error stream says so, and what to do (``remedy``) if there are others.
    """
    try:
        environment = _environment()
        if environment is None:
            return 1
        if environment.name == "gketpu" and _is_alone_in_its_slice():
            return 1
        return int(environment.get_process_count())
    except Exception as error:  # of a library for the network, of Kubernetes' or of JAX's own
        print(
            f"csbp_jax: one process, as it is not known whether there are others ({_cause(error)}); if there are, "
            f"{remedy}",
            file=sys.stderr,
        )
        return 1


def found_index() -> tuple[int, int | None]:
    """Return the index of this process among those of :func:`found_processes`, and that on its host, if it has one.

    Raises:
      ConfigError: JAX finds processes, but not which one this is.
    """
    try:
        environment = _environment()
        if environment is None:
            return 0, None
        on_host = environment.get_local_process_id()
        return int(environment.get_process_id()), None if on_host is None else int(on_host)
    except Exception as error:  # as above
        raise ConfigError(
            f"--shard: this is one of several processes, but it is not known which ({_cause(error)}); give each its "
            "share: --shard INDEX/COUNT (shard=)"
        ) from error


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:200]}"


def _environment() -> Any:
    """Return JAX's class for what has started this process; None if it finds nothing.

    Slurm and others have variables in each process; a TPU VM asks a server for its metadata.
    """
    from jax._src.clusters import ClusterEnv

    possible = (kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return next((kind for kind in possible if kind.is_env_present()), None)


def _is_alone_in_its_slice() -> bool:
    """Return whether the variables of a TPU VM in a container name one worker, of a single slice.

    Without a variable for the number of slices, JAX would ask the server, which a container may not reach.
    """
    names = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    return names is not None and len(names.split(",")) == 1 and "MEGASCALE_NUM_SLICES" not in os.environ
