"""What cannot be measured is refused in words that name it."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics

BATCHES = [None] * 10


def logistic(x, _):
    return 4 * x * (1 - x)


def exponents(n=1, x=0.1, **options):
    return dynamics.lyapunov(logistic, jnp.asarray(x), BATCHES, n, **options)


CASES = [
    (lambda: exponents(3, [0.1, 0.2]), "n is 3, but must be from 1 to 2"),
    (lambda: exponents(warmup=10), "no chunk is left to count, and a standard error needs two"),
    (lambda: exponents(warmup=9), "1 chunk is left to count, and a standard error needs two"),
    (lambda: dynamics.attractor_samples(logistic, jnp.ones(2), BATCHES, lambda x: x, 10), "after the transient"),
    (
        lambda: dynamics.lyapunov_many(logistic, jnp.float32(0.1), BATCHES),
        r"lyapunov_many: .* axis of runs.*\(\); stack",
    ),
    (
        lambda: dynamics.lyapunov_many(lambda state, _: state, (jnp.zeros(3), jnp.zeros((2, 5))), BATCHES),
        r"lyapunov_many: every leaf of states needs a leading axis of runs, of one size, .* \(3,\), \(2, 5\); stack",
    ),
    (
        lambda: dynamics.finite_size_many(logistic, jnp.ones(()), BATCHES, np.array([1e-3])),
        r"finite_size_many: .* axis of runs",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_it_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_number_of_steps_is_not_taken_for_their_inputs():
    batches: Any = 5000
    calls = (
        lambda: dynamics.lyapunov(logistic, jnp.ones(1), batches),
        lambda: dynamics.attractor_samples(logistic, jnp.ones(1), batches, lambda x: x, 10),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"batches: is 5000, but must have an input for each step, such as \[None"):
            call()


@pytest.mark.parametrize(
    "measure",
    [
        dynamics.lyapunov_many,
        functools.partial(dynamics.finite_size_many, deltas=jnp.array([1e-3])),
        dynamics.annealed_rises,
    ],
)
def test_a_misspelt_option_of_many_runs_is_an_error(measure):
    with pytest.raises(TypeError, match="warm_up"):
        measure(logistic, jnp.array([0.3]), BATCHES, warm_up=10)
