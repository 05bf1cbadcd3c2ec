"""The chaos loss in networks of other JAX libraries: ``python -m examples.with_jax``, and so on.

Each file is a small spiking net in its library's own style, neurons and training loop included, trained on the bundled
digits. Three lines are marked ``# CSBP``; without them it is the plain net. Besides them, the method needs its import
and the count of steps.
"""
