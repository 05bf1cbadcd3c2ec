"""The chaos loss in networks of other JAX libraries: ``python -m examples.with_jax``, ``.with_nnx``, ``.with_spyx``, ``.with_equinox``.

Each file is a small spiking net in its library's own style, trained on the bundled digits. Three lines are marked
``# CSBP``: deleting them leaves the plain net. Besides them the method needs its import and the step count. Nothing else is
of this package, neurons and training loops included.
"""
