"""The LIF neuron as two GPU kernels, forward and backward, in Pallas for Mosaic GPU.

Each kernel goes through time with the membrane in registers, so that inputs are read and outputs written once: the
least that memory allows, where XLA's programs move more (docs/checks/bench/h100.md). JAX calls the interface unstable;
it needs Hopper or later. Compiled for an H100 and run in JAX's interpreter, but never on a GPU: run
``python -m experiments.gpu_kernel.check`` first. Where the kernels do not apply, and for derivatives of the gradient,
csbp_jax/neurons/lif_scan.py computes.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax import models, neurons, surrogate
from csbp_jax.config import Config
from csbp_jax.neurons import lif_scan
from csbp_jax.neurons.lif import prepare_arguments
from experiments.gpu_kernel import passes

# Surrogates that compile: Mosaic GPU has no square root, which erf needs; a user's own may need anything.
SPIKES = (
    surrogate.triangle,
    surrogate.rectangle,
    surrogate.sigmoid,
    surrogate.arctan,
    surrogate.fast_sigmoid,
    surrogate.piecewise_exp,
)
_FORMULAS = {make().formula for make in SPIKES}

_BEFORE_HOPPER = ("5.", "6.", "7.", "8.")
"""Beginnings of the compute capabilities of older NVIDIA GPUs, for which Mosaic GPU makes no programs."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "spike"],
    meta_fields=["reset", "detach_reset", "residual", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class KernelLIF(neurons.LIF):
    """:class:`csbp_jax.neurons.LIF` on the kernels where they :func:`fit <fits>`, else in its plain form.

    ``trace``, which hands out the membrane at every step, is always the plain form.
    """

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        arrays = prepare_arguments(x, membrane, self.decay, self.threshold, self.reset)
        # The kernels fire strictly above the threshold.
        if self.at_threshold != "silent" or not fits(arrays[0], *arrays[2:], self.spike):
            return super().__call__(x, membrane)
        return lif(*arrays, self.spike, lif_scan.Rule(self.reset, self.detach_reset, self.residual))


def neuron(config: Config) -> KernelLIF:
    """The neuron of a config on the kernels; for ``csbp_jax train FILE.py`` (docs/own.md).

    Raises:
      ValueError: ``model.neuron.learn`` is not "none"; PLIF makes its own neuron in each layer.
    """
    plain = models.neuron(config.model.neuron)
    if not isinstance(plain, neurons.LIF):
        raise ValueError(f"model.neuron.learn: {config.model.neuron.learn} is not possible with the GPU kernels")
    return KernelLIF(**vars(plain))


def is_before_hopper() -> bool:
    """Whether JAX's first device is an NVIDIA GPU of a generation before Hopper."""
    return getattr(jax.devices()[0], "compute_capability", "").startswith(_BEFORE_HOPPER)


def fits(x: jax.Array, decay: jax.Array, threshold: jax.Array, spike: surrogate.Surrogate) -> bool:
    """Whether the kernels apply to arguments as :func:`csbp_jax.neurons.lif.prepare_arguments` returns them.

    They need float32 membranes, at least 128 neurons per example, one decay, one threshold and a surrogate of
    ``SPIKES``; one device, since the partitioner could not split a kernel; and, if it is NVIDIA's, Hopper or later.
    """
    num_neurons = x.size // (x.shape[0] * x.shape[1])
    scalars = (decay, threshold, *spike.params)
    return (
        decay.dtype == jnp.float32
        and num_neurons >= passes.THREADS
        and x.shape[0] < 2**16
        and x.size < 2**31
        and spike.formula in _FORMULAS
        and all(jnp.size(scalar) == 1 for scalar in scalars)
        and (jax.device_count() == 1 or passes.INTERPRET is not None)
        and not is_before_hopper()
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def lif(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: surrogate.Surrogate,
    rule: lif_scan.Rule,
) -> tuple[jax.Array, jax.Array]:
    """As :func:`csbp_jax.neurons.lif_scan.lif`, for arguments that fit; without a gradient it is that function."""
    return lif_scan.forward(x, membrane, decay, threshold, spike, rule)[0][:2]


def _lif_forward(x, membrane, decay, threshold, spike, rule):
    spikes, end, stored = _forward(x, membrane, decay, threshold, rule)
    return (spikes, end), (stored, membrane, decay, threshold, spike)


def _lif_backward(rule, residuals, bars):
    return *_backward(residuals, bars, rule), jax.tree.map(jnp.zeros_like, residuals[-1])


lif.defvjp(_lif_forward, _lif_backward)


# A kernel has no derivative: the one that the tangent map of a training step needs is the plain form's.
@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _forward(x, membrane, decay, threshold, rule):
    fast, plain = (functools.partial(f, rule) for f in (passes.forward, _forward_plain))
    return _on_gpu(fast, plain, x, membrane, decay, threshold)


@_forward.defjvp
def _(rule, primals, tangents):
    return jax.jvp(functools.partial(_forward_plain, rule), primals, tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _backward(residuals, bars, rule):
    fast, plain = (functools.partial(f, rule) for f in (_backward_kernel, _backward_plain))
    return _on_gpu(fast, plain, residuals, bars)


@_backward.defjvp
def _(rule, primals, tangents):
    return jax.jvp(functools.partial(_backward_plain, rule), primals, tangents)


def _on_gpu(fast: Any, plain: Any, *operands: Any) -> Any:
    if passes.INTERPRET is not None:
        return fast(*operands)
    return lax.platform_dependent(*operands, cuda=fast, default=plain)


def _forward_plain(rule, x, membrane, decay, threshold):
    # Values do not depend on the surrogate.
    return lif_scan.forward(x, membrane, decay, threshold, surrogate.triangle(), rule)[0]


def _backward_plain(rule, residuals, bars):
    return lif_scan.backward(rule, residuals, *bars)[:4]


def _backward_kernel(rule, residuals, bars):
    x_bar, membrane_bar = passes.backward(rule, residuals, bars)
    return x_bar, membrane_bar, *_sums(rule, residuals, bars, x_bar)


def _sums(rule, residuals, bars, x_bar):
    """Cotangents of decay and threshold, from stored sequences; XLA drops them where no gradient is taken of them."""
    stored, membrane, decay, threshold, spike = residuals
    spikes_bar, membrane_bar = bars
    potential = u, distance = lif_scan.potential_of(stored, threshold.reshape(()), rule)
    row, over = x_bar.astype(jnp.float32), threshold.reshape(())
    v_bar = jnp.concatenate([decay.reshape(()) * row[:, 1:], membrane_bar[:, None]], axis=1)
    s_bar = spikes_bar.astype(jnp.float32)
    _, threshold_bar = lif_scan.back_one(potential, s_bar, v_bar, over, spike, rule)
    before = lif_scan.after_reset(u, distance > 0, over, rule.reset)[:, :-1]
    decay_bar = (row[:, 1:] * before).sum()
    if membrane is not None:
        decay_bar = decay_bar + (row[:, 0] * membrane).sum()
    return decay_bar.reshape(decay.shape), threshold_bar.sum().reshape(threshold.shape)
