"""Dimension and entropy of spectra: formulas, maps where they are known, and a small spiking net."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from csbp_jax import dynamics
from experiments import known_exponents
from experiments.xor import net


@jax.jit
def dimension_and_entropy(exponents):
    return dynamics.kaplan_yorke(exponents), dynamics.pesin(exponents)


@pytest.mark.parametrize(
    "exponents, dimension, entropy",
    [
        ([1.0, -2.0], 1.5, 1.0),
        ([-2.0, 1.0], 1.5, 1.0),
        ([0.41922, -1.62319], 1.25827, 0.41922),
        ([0.9056, 0.0, -14.5723], 2.06215, 0.9056),
        ([-0.1, -0.2, -0.3], 0.0, 0.0),
        ([0.0, -1.0], 1.0, 0.0),
        ([1.4, -1.4], 2.0, 1.4),
        ([1.0, 0.5, -0.1], 3.0, 1.5),
        ([2.0, 0.5, -1.0, -3.0], 3.5, 2.5),
        ([0.0], 1.0, 0.0),
        ([-1.0], 0.0, 0.0),
        ([np.nan, -1.0], np.nan, np.nan),
        ([1.0, np.nan], np.nan, np.nan),
        ([np.nan, np.nan], np.nan, np.nan),
    ],
)
def test_dimension_and_entropy_of_a_spectrum(x64, exponents, dimension, entropy):
    of_spectrum = dimension_and_entropy(np.array(exponents))
    assert float(of_spectrum[0]) == pytest.approx(dimension, abs=1e-5, nan_ok=True)
    assert float(of_spectrum[1]) == pytest.approx(entropy, nan_ok=True)


def spectrum_of(step, start, steps, warmup=100):
    return dynamics.lyapunov(step, start, itertools.repeat(None, warmup + steps), len(start), warmup=warmup)


@pytest.mark.parametrize(
    "step, start, dimension", [(known_exponents.henon, [0.1, 0.1], 1.258), (known_exponents.standard, [1.0, 2.0], 2.0)]
)
def test_dimension_of_known_maps(x64, step, start, dimension):
    exponents, _, history = spectrum_of(step, np.array(start), 1000)
    value, error = dynamics.delta_method(dynamics.kaplan_yorke, history)
    assert value == pytest.approx(float(dynamics.kaplan_yorke(exponents)))
    assert abs(value - dimension) < 4 * error + 1e-9 and error < 0.02


def test_errors_of_a_function_account_for_errors_that_cancel(x64):
    """In Hénon's map the two exponents fluctuate against each other, since their sum is constant."""
    _, errors, history = spectrum_of(known_exponents.henon, np.array([0.1, 0.1]), 1000)
    total, error = dynamics.delta_method(jnp.sum, history)
    assert total == pytest.approx(np.log(0.3)) and error < 1e-9 < 1e-3 < errors[0]
    difference, error = dynamics.delta_method(lambda exponents: exponents[0] - exponents[1], history)
    assert error == pytest.approx(2 * errors[0]) and difference == pytest.approx(0.4192 + 1.623, abs=4 * error)


def descend(setting, params, _):
    """A step of CSBP at fixed strength on the XOR net with two hidden neurons."""
    gradient, _ = jax.grad(net.task_loss, has_aux=True)(params, setting)
    pushed = net.term_gradient(params, setting, net.Kind(), setting.z0, setting.lr)
    return jax.tree.map(lambda p, g, c: p - setting.lr * (g + c), params, gradient, pushed)


@pytest.mark.full
def test_whole_spectrum_of_a_spiking_net(x64):
    """The sum of all nine exponents is the mean growth of volume, which is positive: the map folds."""
    step, steps = functools.partial(descend, net.Setting(z0=30.0)), 60
    params = jax.tree.map(lambda p: p.astype(float), net.uniform(0))
    exponents, _, history = dynamics.lyapunov(step, params, itertools.repeat(None, steps), 9)
    x, unravel = ravel_pytree(params)

    def stepped(x):
        x = ravel_pytree(step(unravel(x), None))[0]
        return x, x

    jacobian, volumes = jax.jit(jax.jacfwd(stepped, has_aux=True)), []
    for _ in range(steps):
        derivative, x = jacobian(x)
        volumes.append(np.linalg.slogdet(np.asarray(derivative))[1])
    total, error = dynamics.delta_method(jnp.sum, history)
    assert len(exponents) == len(x) == 9
    assert total == pytest.approx(np.mean(volumes), rel=1e-6) and total > error > 0
    assert dynamics.kaplan_yorke(exponents) == 9
    assert 0 < float(exponents[0]) < float(dynamics.pesin(exponents)) < np.abs(np.asarray(exponents)).sum()
