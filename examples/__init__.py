"""The chaos loss in networks of other JAX libraries: ``python -m examples.with_jax``, and so on.

own_experiment is another thing, an experiment for ``csbp_jax train``; see docs/own.md.

Each other file is a small spiking net in its library's own style, neurons and training loop included, trained on the
bundled digits. Three lines are marked ``# CSBP``; without them it is the plain net. Besides them, the method needs its
import and the count of steps.

Calling a layer once more, to have h, leaves the net as it is. Under jit, XLA merges the two products of the forward
pass, unless one of them is inside a scan (spyx); the backward pass has one product more. A net that hands out h spares
both, as does ``nnx.capture``.
"""
