"""Brain-inspired chaotic spiking backpropagation in JAX, and a laboratory for chaos in training.

The parts are imported by name: ``from csbp_jax import chaos, neurons, surrogate``. ``ARCHITECTURE.md`` has the plan.
"""

__version__ = "0.1.0"
