"""Measures of chaos for any map ``step(state, batch) -> state``, training steps among them.

Spike flips make a training step discontinuous, which the tangent map does not see. One number is therefore never
enough:

- ``lyapunov``: the tangent exponents, by products of Jacobians and QR (Benettin et al. 1980; Eckmann & Ruelle 1985);
  ``lyapunov_many`` for many runs at once;
- ``finite_size``: growth of a difference of given size, which includes flips and all other jumps; ``finite_size_many``;
  ``finite_size_readouts``: the same for read-outs such as logits, and for spikes the number of those that differ;
- ``separation``: distances of runs that are never rescaled, in parameters, logits or spikes;
- ``rise``: the largest growth along an annealed run, from its local exponents; ``annealed_rises`` for many runs;
- ``kaplan_yorke`` and ``pesin``: dimension and entropy from the whole spectrum; their errors by ``delta_method``;
- ``flip_ratio``: the largest curvature over that at which plain descent starts to overshoot. Above 1 a fixed point has
  lost its stability; chaos needs more (with the chaos term alone, 1.64 at I0 = 0.65);
- ``compare_terms``: whether a control of the chaos term differs from it, on one neuron;
- ``driven_exponents``: those of a network's own state over time steps, along its inputs;
- ``attractor_samples``: samples of a read-out of many runs after a transient, for bifurcation diagrams.

A run with a positive tangent exponent is *chaotic*; one with only a positive finite-size exponent is *finite-size
sensitive*; one with a large rise is *transiently expanding*. The thresholds are in ``csbp_jax.instruments.classify``.

The state is any pytree. Differences live in its dynamical leaves, by default all inexact ones (for a training state
``learner.dynamical_leaves``: parameters and moments, but not the running statistics of batch norm); the others, such as
integers and keys, are carried along. All growth rates are in nats per step.
"""

from csbp_jax.dynamics.annealed import annealed_rises, rise
from csbp_jax.dynamics.bifurcation import attractor_samples
from csbp_jax.dynamics.driven import DrivenExponents, driven_exponents
from csbp_jax.dynamics.finite_size import (
    ReadoutExponents,
    finite_size,
    finite_size_many,
    finite_size_readouts,
    separation,
)
from csbp_jax.dynamics.flip_ratio import flip_ratio
from csbp_jax.dynamics.lyapunov import lyapunov, lyapunov_many
from csbp_jax.dynamics.spectrum import delta_method, kaplan_yorke, pesin
from csbp_jax.dynamics.terms import OnOneNeuron, TermDifference, compare_terms

__all__ = [
    "DrivenExponents",
    "OnOneNeuron",
    "ReadoutExponents",
    "TermDifference",
    "annealed_rises",
    "attractor_samples",
    "compare_terms",
    "delta_method",
    "driven_exponents",
    "finite_size",
    "finite_size_many",
    "finite_size_readouts",
    "flip_ratio",
    "kaplan_yorke",
    "lyapunov",
    "lyapunov_many",
    "pesin",
    "rise",
    "separation",
]
