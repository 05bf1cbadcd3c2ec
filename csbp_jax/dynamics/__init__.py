"""Is a map chaotic? Of any ``step(state, batch) -> state``, training steps among them.

Spike flips make a training step discontinuous, and the tangent map does not see them. So one number never decides:

- ``lyapunov``: the tangent exponents, by products of Jacobians and QR (Benettin et al. 1980; Eckmann & Ruelle 1985);
  ``lyapunov_many`` of many runs at once;
- ``finite_size``: growth of a difference of given size, which flips and all other jumps take part in;
  ``finite_size_many``; ``finite_size_seen``, the same of read-outs such as logits, and of spikes how many differ;
- ``separation``: how far two runs part that are never set back, in parameters, in logits, in spikes;
- the cumulated local exponents of a real, annealed run: ``every * cumsum(history)`` of the first two;
- ``flip_ratio``: the steepest curvature over that at which plain descent starts to overshoot. Above 1 a fixed point has
  lost its stability; chaos needs more (of the chaos term alone, 1.64 at I0 = 0.65);
- ``visited``: what a read-out of many runs still visits after a transient, which is a bifurcation diagram;
- ``steered``: a strength turned from step to step so that the local exponent follows a path.

*Chaotic* is a positive tangent exponent; *finite-size sensitive* is what has a positive finite-size exponent alone;
*transiently expanding* a run whose cumulated local exponents rise for a while. ``verdict.word`` says from where on.

The state is any pytree. Differences live in the leaves that feed back, by default all inexact ones
(``learner.fed_back`` for a training state: parameters and moments, not batch norm's running statistics); the others,
integers and keys among them, are carried along. All growth rates are in nats a step.
"""

from csbp_jax.dynamics.bifurcation import visited
from csbp_jax.dynamics.flip import flip_ratio
from csbp_jax.dynamics.nearby import Seen, finite_size, finite_size_many, finite_size_seen, separation
from csbp_jax.dynamics.steering import Steered, steered
from csbp_jax.dynamics.tangent import lyapunov, lyapunov_many

__all__ = [
    "Seen",
    "Steered",
    "finite_size",
    "finite_size_many",
    "finite_size_seen",
    "flip_ratio",
    "lyapunov",
    "lyapunov_many",
    "separation",
    "steered",
    "visited",
]
