"""What cannot be measured is refused in words that name it."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics
from csbp_jax.dynamics import energy_test, iaaft, nonlinearity_test, orbit_groups, permutation_entropy

SINE, CONSTANT = np.sin(np.arange(600)), np.zeros((64, 64), int)
basins: Any = dynamics.uncertainty_exponent
UNEQUAL, BATCHES = np.zeros((64, 39), int), [None] * 10


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
    (lambda: basins(CONSTANT), "the grid has no boundary to measure"),
    (lambda: basins(np.zeros(9, int), (1, 2)), r"labels are int64 \[9\]; pass integers \[rows, columns\]"),
    (lambda: basins(np.zeros((64, 64)), (1, 2)), r"labels are float64 \[64, 64\]"),
    (lambda: basins(CONSTANT, (1,)), r"offsets \(1,\); pass two or more"),
    (lambda: basins(CONSTANT, (2, 1)), r"offsets \(2, 1\)"),
    (lambda: basins(CONSTANT, (0, 1)), r"offsets \(0, 1\)"),
    (lambda: basins(UNEQUAL, (1, 16)), "grid is 64 x 39, but an offset of 16 needs 40 points per axis; pass small"),
    (lambda: dynamics.basin_entropy(UNEQUAL, 1), "box 1; allowed are 2 to 39, the shorter side of the grid"),
    (lambda: dynamics.basin_entropy(UNEQUAL, 40), "box 40; allowed are 2 to 39"),
    *(
        (lambda function=function, orbits=orbits: function(orbits), f"{function.__name__}: orbits have")
        for function in (dynamics.split_r_hat, dynamics.autocorrelation_time)
        for orbits in (np.zeros(10), np.zeros((2, 3)), np.full((2, 8), np.nan))
    ),
    (lambda: orbit_groups(np.zeros((3, 10))), "observables"),
    (lambda: energy_test([], [1.0]), "empty or not finite"),
    (lambda: permutation_entropy(SINE, order=5), "it has 600 values, and 604 are needed"),
    (lambda: permutation_entropy(SINE, order=1), "order 1 and lag 1 are not possible"),
    (lambda: nonlinearity_test(SINE[:99]), "too short: it has 99 values, and 100 are needed"),
    (lambda: nonlinearity_test(SINE, 0), "surrogates: 0 is not possible"),
    (lambda: iaaft(np.ones(100), 2), "constant"),
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
