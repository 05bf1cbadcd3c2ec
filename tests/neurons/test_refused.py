"""What neurons refuse: mistakes of a programmer, named by the function that was called."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import neurons, surrogate
from csbp_jax.config import ConfigError
from csbp_jax.neurons import ALIF, CLIF, ILIF, CuBaLIF, in_chunks, lif, lif_trace
from csbp_jax.neurons.integer import from_binary, to_binary
from csbp_jax.neurons.plif import PLIF
from csbp_jax.neurons.psn import PSN, MaskedPSN, SlidingPSN
from csbp_jax.neurons.recurrent import Feedback

B, T, C = 3, 3, 4
X = jnp.zeros((B, T, C))
KEY = jax.random.key(0)
# Wrong on purpose, also for type checkers.
RESET: Any = "zero"
TIE: Any = "maybe"
SPIKE: Any = surrogate.triangle


def psn(module) -> Any:
    return module.init_with_output(KEY, C)[0]


def state_of(neuron, batch=B):
    return neuron(jnp.zeros((batch, T, C)))[1]


WHOLE, UNIT, POSITIVE = "must be a positive whole number", "must be from 0 to 1", "must be above 0"
NO_SURROGATE = "spike is <function triangle .*>, but must be a Surrogate"
CASES: list[tuple[Any, type[Exception], str]] = [
    (lambda: lif(jnp.zeros((B, T, C), jnp.int32)), TypeError, "lif: x is int32"),
    (lambda: lif(jnp.zeros((B, 0, C))), ValueError, r"lif: x has shape \(3, 0, 4\).*T >= 1"),
    (lambda: lif(jnp.zeros(3)), ValueError, r"lif: x has shape \(3,\).*time is axis 1"),
    (lambda: lif(X, reset=RESET), ValueError, "lif: reset is 'zero'.*hard, soft, none"),
    (lambda: lif(X, decay=jnp.ones(5)), ValueError, r"lif: decay of shape \(5,\).*\(3, 4\)"),
    (lambda: lif(X, threshold=jnp.ones((B, 3, C))), ValueError, r"lif: threshold of shape \(3, 3, 4\).*\(3, 4\)"),
    (lambda: lif(X, membrane=jnp.zeros((2, C))), ValueError, r"lif: membrane of shape \(2, 4\).*\(3, 4\)"),
    *(
        (lambda f=f, options=options: f(X, **options), error, f"lif: {message}")
        for f in (lif, lif_trace)
        for options, error, message in (
            ({"at_threshold": TIE}, ValueError, "at_threshold is 'maybe'.*silent, fire"),
            ({"spike": SPIKE}, TypeError, NO_SURROGATE),
            ({"spike": "triangle"}, TypeError, "spike is 'triangle', but must be a Surrogate"),
            ({"decay": 2.0}, ValueError, f"decay is 2.0, but {UNIT}"),
            ({"decay": np.array([0.5, -0.5, 0.5, 0.5])}, ValueError, f"decay is .*, but {UNIT}"),
            ({"threshold": 0}, ValueError, f"threshold is 0, but {POSITIVE}"),
        )
    ),
    (lambda: ALIF(decay=2.0)(X), ValueError, f"ALIF: decay is 2.0, but {UNIT}"),
    (lambda: ALIF(adaptation=-1)(X), ValueError, "ALIF: adaptation is -1, but must be 0 or more"),
    (lambda: ALIF(adaptation_decay=1.5)(X), ValueError, f"ALIF: adaptation_decay is 1.5, but {UNIT}"),
    (lambda: ALIF(threshold=0)(X), ValueError, f"ALIF: threshold is 0, but {POSITIVE}"),
    (lambda: ALIF(reset=RESET)(X), ValueError, "ALIF: reset is 'zero', but must be one of hard, soft, none"),
    (lambda: ALIF(at_threshold=TIE)(X), ValueError, "ALIF: at_threshold is 'maybe', but must be one of silent, fire"),
    (lambda: ALIF(decay=jnp.ones(5))(X), ValueError, r"ALIF: decay of shape \(5,\) does not broadcast to \(3, 4\)"),
    (lambda: ALIF(spike=SPIKE)(X), TypeError, f"ALIF: {NO_SURROGATE}"),
    (lambda: CLIF(decay=2.0)(X), ValueError, f"CLIF: decay is 2.0, but {UNIT}"),
    (lambda: CLIF(spike=SPIKE)(X), TypeError, f"CLIF: {NO_SURROGATE}"),
    (lambda: CuBaLIF(synapse_decay=1.5)(X), ValueError, f"CuBaLIF: synapse_decay is 1.5, but {UNIT}"),
    (lambda: CuBaLIF(spike=SPIKE)(X), TypeError, f"lif: {NO_SURROGATE}"),
    (
        lambda: ALIF()(X, state_of(CuBaLIF())),
        TypeError,
        "ALIF: state is a CurrentState, but must be the AdaptiveState of another call",
    ),
    (
        lambda: ALIF()(X, neurons.AdaptiveState(jnp.zeros((B, C)), jnp.zeros((2, C)))),
        ValueError,
        r"ALIF: adaptation of shape \(2, 4\) does not broadcast to \(3, 4\)",
    ),
    (lambda: ILIF(decay=-0.5)(X), ValueError, f"ILIF: decay is -0.5, but {UNIT}"),
    (lambda: ILIF(threshold=0)(X), ValueError, f"ILIF: threshold is 0, but {POSITIVE}"),
    (lambda: ILIF(levels=0)(X), ValueError, f"ILIF: levels is 0, but {WHOLE}"),
    (lambda: ILIF(levels=2.5)(X), ValueError, f"ILIF: levels is 2.5, but {WHOLE}"),  # type: ignore[arg-type]
    (lambda: to_binary(X, 0), ValueError, f"to_binary: levels is 0, but {WHOLE}"),
    (lambda: from_binary(X, 0), ValueError, f"from_binary: levels is 0, but {WHOLE}"),
    (lambda: from_binary(X, 2), ValueError, "from_binary: h has 3 sub-steps, but must have a multiple of levels, 2"),
    (lambda: PLIF(decay=1.0).init(KEY, 2), ValueError, "PLIF: decay is 1.0, but must be between 0 and 1"),
    (lambda: psn(PSN(T, threshold=0.0)), ValueError, f"PSN: threshold is 0.0, but {POSITIVE}"),
    (lambda: psn(PSN(0)), ValueError, f"PSN: time_steps is 0, but {WHOLE}"),
    (lambda: psn(MaskedPSN(T, order=0)), ValueError, f"MaskedPSN: order is 0, but {WHOLE}"),
    (lambda: psn(MaskedPSN(T, masking=1.5)), ValueError, f"MaskedPSN: masking is 1.5, but {UNIT}"),
    (lambda: psn(SlidingPSN(0)), ValueError, f"SlidingPSN: order is 0, but {WHOLE}"),
    (lambda: psn(SlidingPSN(2.5)), ValueError, f"SlidingPSN: order is 2.5, but {WHOLE}"),  # type: ignore[arg-type]
    (lambda: psn(SlidingPSN(2, threshold=-1.0)), ValueError, "SlidingPSN: threshold is -1.0"),
    (
        lambda: psn(SlidingPSN(2))(X, jnp.zeros((B, C))),
        TypeError,
        "SlidingPSN: state is a .*, but must be the SlidingState of another call",
    ),
    *(
        (
            lambda batch=batch, order=order: psn(SlidingPSN(2))(X, state_of(psn(SlidingPSN(order)), batch)),
            ValueError,
            r"SlidingPSN: the state's inputs have shape .*, but must be \(3, 1, 4\)",
        )
        for batch, order in ((B, 3), (B + 1, 2))
    ),
    *(
        (lambda f=f, options=options: psn(f(T, **options))(X), error, f"{f.__name__}: {message}")
        for f in (PSN, SlidingPSN)
        for options, error, message in (
            ({"at_threshold": TIE}, ValueError, "at_threshold is 'maybe', but must be one of silent, fire"),
            ({"spike": SPIKE}, TypeError, NO_SURROGATE),
        )
    ),
    (
        lambda: Feedback(psn(PSN(T)), jnp.eye(C))(X),
        ConfigError,
        "PSN: x has 1 time steps, but the weights are for all 3 steps at once",
    ),
    (
        lambda: psn(PSN(T))(X, state_of(psn(PSN(T)))),
        ConfigError,
        "PSN: x continues an earlier sequence, but .* take a sliding PSN",
    ),
    (lambda: in_chunks(lambda state, x: (state, x), 0, X, 0), ValueError, "in_chunks: length is 0"),
    *(
        (
            lambda shape=shape: in_chunks(lambda state, x: (state, x), 0, jnp.zeros(shape), 4),
            ValueError,
            r"in_chunks: x has shape \(.*\), but must be \[B, T, ...\] with T >= 1",
        )
        for shape in ((1, 0, 3), (3,))
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
