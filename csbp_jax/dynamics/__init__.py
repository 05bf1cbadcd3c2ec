"""Is a map chaotic? Of any ``step(state, batch) -> state``, training steps among them.

Spike flips make a training step discontinuous, and the tangent map does not see them. So one number never decides:

- ``lyapunov``: the tangent exponents, by products of Jacobians and QR (Benettin et al. 1980; Eckmann & Ruelle 1985);
  ``lyapunov_many`` of many runs at once;
- ``finite_size``: growth of a difference of given size, which flips and all other jumps take part in;
  ``finite_size_many``; ``finite_size_readouts``, the same of read-outs such as logits, and of spikes how many differ;
- ``separation``: how far two runs part that are never set back, in parameters, in logits, in spikes;
- the cumulated local exponents of a real, annealed run: ``every * cumsum(history)`` of the first two;
- ``flip_ratio``: the steepest curvature over that at which plain descent starts to overshoot. Above 1 a fixed point has
  lost its stability; chaos needs more (of the chaos term alone, 1.64 at I0 = 0.65);
- ``attractor_samples``: what a read-out of many runs still visits after a transient, which is a bifurcation diagram.

*Chaotic* is a positive tangent exponent; *finite-size sensitive* is what has a positive finite-size exponent alone;
*transiently expanding* a run whose cumulated local exponents rise for a while. ``instruments.classify`` has the
thresholds.

The state is any pytree. Differences live in the leaves that feed back, by default all inexact ones
(``learner.dynamical_leaves`` for a training state: parameters and moments, not batch norm's running statistics);
the others, integers and keys among them, are carried along. All growth rates are in nats a step.
"""

from csbp_jax.dynamics.bifurcation import attractor_samples
from csbp_jax.dynamics.finite_size import (
    ReadoutExponents,
    finite_size,
    finite_size_many,
    finite_size_readouts,
    separation,
)
from csbp_jax.dynamics.flip_ratio import flip_ratio
from csbp_jax.dynamics.lyapunov import lyapunov, lyapunov_many

__all__ = [
    "ReadoutExponents",
    "attractor_samples",
    "finite_size",
    "finite_size_many",
    "finite_size_readouts",
    "flip_ratio",
    "lyapunov",
    "lyapunov_many",
    "separation",
]
