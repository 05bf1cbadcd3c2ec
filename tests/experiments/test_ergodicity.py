"""Ergodicity on systems whose answer is known."""

import numpy as np
import pytest

from experiments.ergodic.ergodicity import autocorrelation_time, energy_test, orbit_groups, split_r_hat

GOLDEN = (5**0.5 - 1) / 2
ORBITS, STEPS = 16, 4000


def iterate(step, starts, transient=100):
    """Orbits ``[starts, STEPS]`` of a map of the interval."""
    values = []
    for _ in range(transient + STEPS):
        starts = step(starts)
        values.append(starts)
    return np.array(values[transient:]).T


@pytest.fixture(scope="module")
def starts():
    return np.random.default_rng(0).uniform(0.01, 0.99, ORBITS)


@pytest.fixture(scope="module")
def logistic(starts):
    """Ergodic and chaotic."""
    return iterate(lambda x: 4 * x * (1 - x), starts)


def cubic(x):
    """Chaotic on two intervals, x > 0 and x < 0, which it never leaves."""
    return np.sign(x) * 4 * np.abs(x) * (1 - np.abs(x))


def two_samples(orbits):
    """Values of the first orbit, far apart, and values of the others at the last step."""
    return orbits[0, np.linspace(0, STEPS - 1, 64).round().astype(int)], orbits[1:, -1]


def test_the_logistic_map_and_a_rotation_are_ergodic_though_only_one_is_irregular(starts, logistic):
    for orbits in (logistic, np.cos(2 * np.pi * iterate(lambda x: (x + GOLDEN) % 1, starts))):
        assert split_r_hat(orbits) < 1.01 and set(orbit_groups(orbits[..., None])) == {0}
        assert energy_test(*two_samples(orbits)).p > 0.05
    assert autocorrelation_time(logistic) == pytest.approx(1, abs=0.1)


def test_a_map_with_two_attractors_is_not_ergodic(starts):
    signed = np.where(np.arange(ORBITS) < 5, -starts, starts)
    orbits = iterate(cubic, signed)
    assert split_r_hat(orbits) > 1.5
    np.testing.assert_array_equal(orbit_groups(orbits[..., None]), np.where(np.arange(ORBITS) < 5, 1, 0))
    assert energy_test(*two_samples(orbits)).p < 0.01


def test_attractors_that_differ_only_in_spread_are_told_apart(logistic):
    centred = logistic - 0.5
    centred[:4] *= 0.5
    assert split_r_hat(centred) > 1.05 and np.bincount(orbit_groups(centred[..., None])).tolist() == [12, 4]


def test_a_conserved_quantity_makes_every_orbit_a_group_of_its_own(logistic, starts):
    conserved = np.broadcast_to(starts[:, None], logistic.shape)
    assert split_r_hat(conserved) == np.inf
    assert len(set(orbit_groups(np.stack([logistic, conserved], axis=-1)))) == ORBITS


def test_a_common_fixed_point_is_a_single_attractor_up_to_rounding(starts):
    orbits = iterate(lambda x: 2.5 * x * (1 - x), starts) + 1e-13 * starts[:, None]
    assert split_r_hat(orbits) == 1 and set(orbit_groups(orbits[..., None])) == {0}
    assert energy_test(*two_samples(orbits)).p == 1 and np.isnan(autocorrelation_time(orbits))


def test_bands_in_step_are_ergodic_but_do_not_mix(logistic):
    """Two bands in turn, in which all orbits are at the same step."""
    orbits = logistic + 2 * (np.arange(STEPS) % 2)
    assert split_r_hat(orbits) < 1.01 and set(orbit_groups(orbits[..., None])) == {0}
    first, at_last_step = two_samples(orbits)
    at_any_step = orbits[np.arange(1, ORBITS), np.random.default_rng(0).integers(STEPS, size=ORBITS - 1)]
    assert energy_test(first, at_last_step).p < 0.01 and energy_test(first, at_any_step).p > 0.05


def test_r_hat_follows_its_equation_for_normal_values():
    """Scores of normal values are the values, up to the rank's noise: chains with other means have a known R-hat."""
    generator = np.random.default_rng(1)
    shift = 0.5
    orbits = generator.normal(size=(200, 400)) + shift * generator.normal(size=(200, 1))
    assert split_r_hat(orbits) == pytest.approx(np.sqrt(1 + shift**2), abs=0.02)


def autoregressive(a, generator):
    """64 orbits of noise with a memory, of variance ``1 / (1 - a**2)``."""
    values = [generator.normal(size=64) / np.sqrt(1 - a * a)]
    for _ in range(STEPS):
        values.append(a * values[-1] + generator.normal(size=64))
    return np.array(values).T


@pytest.mark.parametrize("a", [0.9, 0.0, -0.5])
def test_autocorrelation_time_of_ar1_is_that_of_theory(a):
    orbits = autoregressive(a, np.random.default_rng(2))
    assert autocorrelation_time(orbits) == pytest.approx((1 + a) / (1 - a), rel=0.15)


def test_an_autocorrelation_time_is_positive():
    """Of values that alternate as fast as they can, too, of which its sum may be negative."""
    generator = np.random.default_rng(2)
    alternating = np.convolve(generator.normal(size=300), [1, -1.5, 0.6])
    for record in (alternating, np.tile([1.0, -1.0], 50)):
        assert autocorrelation_time(record[None]) == 1 / len(record)


def test_an_orbit_counts_by_its_variance_in_the_autocorrelation_time():
    """Slow and white orbits of variances 5.26 and 1: not the 10 of a mean over orbits of their autocorrelations."""
    generator = np.random.default_rng(2)
    orbits = np.concatenate([autoregressive(0.9, generator), autoregressive(0.0, generator)])
    assert autocorrelation_time(orbits) == pytest.approx(1 + 18 * 5.26 / 6.26, rel=0.15)


def test_the_energy_test_holds_its_level():
    generator = np.random.default_rng(3)
    samples = generator.normal(size=(60, 2, 30))
    ps = [energy_test(first, second, permutations=49).p for first, second in samples]
    assert np.mean(np.array(ps) <= 0.2) == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize("measure", [split_r_hat, autocorrelation_time])
@pytest.mark.parametrize("orbits", [np.zeros(10), np.zeros((2, 3)), np.full((2, 8), np.nan)])
def test_orbits_that_cannot_be_measured_are_refused(measure, orbits):
    with pytest.raises(ValueError, match=f"{measure.__name__}: orbits have"):
        measure(orbits)


def test_groups_need_observables_and_the_energy_test_needs_values():
    with pytest.raises(ValueError, match=r"pass \[orbits, steps, observables\]"):
        orbit_groups(np.zeros((3, 10)))
    with pytest.raises(ValueError, match="a sample is empty or not finite"):
        energy_test([], [1.0])
