"""Brain-inspired chaotic spiking backpropagation in JAX, and a laboratory for chaos in training.

The parts are imported by name: ``from csbp_jax import chaos, neurons, surrogate``. ``ARCHITECTURE.md`` has the plan.
"""

from csbp_jax.training.plugins import Own

__version__ = "0.1.0"
__all__ = ["Own", "load", "train"]


def train(config, **options):
    """Trains, or goes on, and returns what ``result.json`` holds; see :func:`csbp_jax.training.loop.train`."""
    # Here, because JAX takes a second to import.
    from csbp_jax.training import loop

    return loop.train(config, **options)


def load(run, epoch="last", *, trust=False, own=None):
    """``(apply, variables, config)`` of a finished or stopped run; see :func:`csbp_jax.evaluation.restore.load`."""
    from csbp_jax.evaluation import restore

    return restore.load(run, epoch, trust=trust, own=own)
