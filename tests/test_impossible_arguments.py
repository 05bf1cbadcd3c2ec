"""Numbers that a term, a control, a loss or a surrogate cannot have are refused in one line that names them."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import chaos, controls, losses, neurons, surrogate
from csbp_jax.config.schema import SurrogateName

H, HALF, ZERO = np.zeros((1, 2)), np.zeros((1, 2), np.float16), jnp.zeros(1)
X, ALIF = jnp.ones((1, 2, 3)), neurons.ALIF(0.5)
STEP: dict[str, Any] = {"step": 0, "key": jax.random.key(0)}
term: Any = chaos.term
strength: Any = chaos.strength
drift_term: Any = controls.drift
seeded: Any = (controls.gaussian, lambda seed: controls.ar1(0.9, seed=seed))
MPGD = controls.mpgd()

CASES = [
    (lambda: term(3.0, target=1.5), "chaos: target is 1.5, but must be between 0 and 1"),
    (lambda: term(3.0, target=np.array([0.5, 0.0])), r"chaos: target is \[0.5 0. \], but must be between"),
    (lambda: term(3.0, scale=np.zeros((2, 1))), r"chaos: scale is \[\[0.\] \[0.\]\], but must be above 0"),
    (lambda: term(3.0, scale=-1), "chaos: scale is -1, but must be above 0"),
    (lambda: term(3.0, scale=np.float32("nan")), "chaos: scale is nan"),
    (lambda: term(H, reduce="max"), "'max'.*'mean', 'sum' or 'neuron'"),
    *((lambda pull=pull: pull(HALF), "float16.*bfloat16") for pull in controls.TERMS.values()),
    (lambda: term(neurons.lif(X, 0.5)), r"h is of type tuple, .* and give the second, its membrane$"),
    (lambda: term(ALIF(X)), r"h is of type tuple, .* \(spikes, state\), and give state.membrane$"),
    (lambda: term(ALIF.trace(X)), r"h is of type tuple, .* \(spikes, state\), and give state.membrane$"),
    (
        lambda: drift_term(ALIF(X)[1]),
        "h is of type AdaptiveState, but must be one array; give state.membrane$",
    ),
    (lambda: term({"membrane": X, "current": X}), r'h is of type dict, .*; give state\["membrane"\]$'),
    (lambda: term([X, X]), "h is of type list, but must be one array; give one array$"),
    (lambda: term(None), "h is of type NoneType, but must be one array; give one array$"),
    (lambda: jax.jit(term)(np.arange(3)), "h is int32, which has no gradient; give the membrane as floating-point"),
    (lambda: strength(3, "1", 0.5), "chaos.strength: z0 is '1', a text, but must be a number, 0 or more"),
    (lambda: strength(3.5, 1.0, 0.5), "chaos.strength: step is 3.5, but must be 0 or a positive whole number"),
    (lambda: chaos.strength(3, -1.0, 0.5), "chaos.strength: z0 is -1.0, but must be 0 or more"),
    (lambda: chaos.strength(3, 1.0, 1.01), "chaos.strength: beta is 1.01, but must be from 0 to 1"),
    (lambda: chaos.strength(3, 1.0, 0.5, 0), "every is 0, but must be a positive whole number"),
    (lambda: controls.drift(H, scale=0), "chaos: scale is 0, but must be above 0"),
    (lambda: controls.ar1(1.0), "ar1: correlation is 1.0, but must be between -1 and 1"),
    *((lambda force=force: force(seed=-1), "force: seed is -1, but must be 0 or more") for force in seeded),
    (lambda: controls.mpgd(gamma=0.5), "mpgd: gamma is"),
    (lambda: controls.mpgd(gamma=1.0), "mpgd: gamma is"),
    (lambda: controls.mpgd(beta=2.0), "mpgd: beta is"),
    (lambda: MPGD.update(ZERO, MPGD.init(ZERO), **STEP, forcing=ZERO), "needs the parameters"),
    (lambda: losses.tet(jnp.zeros((1, 1, 2)), jnp.zeros(1, int), lam=1.5), "tet: lam is 1.5, but must be from 0 to 1"),
    (lambda: losses.smoothed(jnp.zeros(1, int), 2, 1.0), "smoothed: share is 1.0, but must be at least 0 and below 1"),
    *(
        (lambda name=name: getattr(surrogate, name)(-1), f"{name}: (width|slope|alpha) is -1, but must be above 0")
        for name in get_args(SurrogateName)
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_it_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
