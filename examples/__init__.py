"""The chaos loss in networks of other JAX libraries: ``python -m examples.with_jax``, and so on.

Each file with_LIBRARY is a small spiking net in its library's style, with neurons and training loop, trained on the
bundled digits. Three lines are marked ``# CSBP``; without them it is the plain net. The method also needs its import
and the number of the step.

The marked lines call a layer a second time to get h, so that the net stays unchanged. Under jit, XLA merges the two
products of the forward pass, unless one of them is inside a scan (spyx); the backward pass has an additional product. A
net that returns h needs neither, nor does ``nnx.capture``.

network_in_nnx does the reverse: it trains a network of this package as a Flax NNX module.

own_experiment is an experiment for ``csbp_jax train``; see docs/own.md. class_folders writes folders to try.
"""
