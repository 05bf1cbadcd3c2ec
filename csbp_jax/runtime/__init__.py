"""Hardware, processes and files: sharding, multihost runs, preemption, profiling, caches, atomic writes."""

from csbp_jax.config import extras

extras.need("train", "csbp_jax.runtime")
