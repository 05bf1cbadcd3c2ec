"""The one-neuron experiment against a reference in PyTorch, its own tangent map, and the theory of the chaos term."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.neurons import lif, lif_trace
from experiments import one_neuron
from experiments.one_neuron import BETA, BP_LR, DECAY, LR, START, Z0, bifurcation, trajectory, update

# Name in the reference file -> time steps, z0, beta, learning rate.
RUNS = {
    "csbp_T20_div10": (20, Z0, BETA, LR),
    "csbp_T10_div10": (10, Z0, BETA, LR),
    "bp_T10_div10": (10, 0.0, 1.0, BP_LR),
}
NAMES = pytest.mark.parametrize("name", RUNS)
FIXED_POINT = math.log(0.65 / 0.35)  # of h under the term alone
FLIP = 8.791 / 2  # its curvature lr (1 + input**2) z at the loss of stability is 2 / (0.65 0.35)


def strengths(z0, beta, steps):
    return z0 * beta ** np.arange(steps)


def growth(w, z, lr, **variant):
    """Factor by which one step multiplies a small change of w = b."""
    step = lambda w: update((w, w), z, lr, **variant)[0][0]  # noqa: E731
    return jax.jvp(step, (w,), (jnp.ones_like(w),))[1]


@functools.partial(jax.jit, static_argnames="time_steps")
def growths(w, z, lr, time_steps):
    return jax.vmap(lambda w, z: growth(w, z, lr, time_steps=time_steps))(w, z)


@functools.partial(jax.jit, static_argnames="time_steps")
def updates(w, b, z, lr, time_steps):
    return jax.vmap(lambda w, b, z: update((w, b), z, lr, time_steps=time_steps))(w, b, z)


def error_bounds(w, z, lr, time_steps):
    """Bound on the error of a free run before each step, and the change of h that alters the pattern of spikes.

    To first order, an error is multiplied by the tangent map and a rounding is added, 16 units of the largest value
    met. The tangent map does not see a spike flip, nor the kinks of the triangle: hence the distance of the nearest
    membrane from one of either, for all steps. It is given in h, whose change reaches a membrane at most
    1 / (1 - decay) fold.
    """
    factors = np.abs(growths(w, z, lr, time_steps))
    rounding = 16 * np.finfo(float).eps * max(1.0, np.abs(2 * w).max())
    bounds = [0.0]  # the start is exact
    for factor in factors[:-1]:
        bounds.append(factor * bounds[-1] + rounding)
    h = np.broadcast_to(2 * w[:, None], (len(w), time_steps))
    membranes = np.asarray(jax.jit(lif_trace)(h, DECAY)[2])
    distances = np.abs(membranes[..., None] - np.array([0.0, 1.0, 2.0])).min(axis=(1, 2))
    return np.array(bounds), distances * (1 - DECAY)


@pytest.mark.parametrize("name", ["csbp_T20_div10", *(pytest.param(n, marks=pytest.mark.full) for n in list(RUNS)[1:])])
def test_each_step_is_that_of_the_reference(x64, reference, name):
    time_steps, z0, beta, lr = RUNS[name]
    rows = reference("single_neuron")[name]
    (w, b), squared_rate = updates(rows[:, 0], rows[:, 1], strengths(z0, beta, len(rows)), lr, time_steps)
    np.testing.assert_allclose(w[:-1], rows[1:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(b[:-1], rows[1:, 1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(squared_rate, rows[:, 2], rtol=0, atol=1e-12)


@pytest.mark.full
@NAMES
def test_free_run_keeps_to_the_reference_inside_its_lyapunov_horizon(x64, reference, name):
    time_steps, z0, beta, lr = RUNS[name]
    w, b, squared_rate = reference("single_neuron")[name].T
    assert np.array_equal(w, b)  # so that the map of w alone determines both
    bounds, reach = error_bounds(w, strengths(z0, beta, len(w)), lr, time_steps)
    # Above 1e-9, or where an error within its bound could flip a spike, nothing is claimed any more.
    lost = np.flatnonzero((bounds > 1e-9) | (2 * bounds > reach))
    horizon = int(lost[0]) if lost.size else len(w)
    free_w, free_rate = trajectory(START, z0, beta, lr, steps=len(w), time_steps=time_steps)
    error = np.abs(free_w - w)
    print(f"{name}: horizon {horizon} of {len(w)}, largest error inside {error[:horizon].max():.1e}", end="; ")
    print(f"bound {bounds[horizon - 1]:.1e}; error at the end {error[-1]:.1e}")
    assert horizon == len(w) if z0 == 0 else horizon >= 20
    assert np.all(error[:horizon] <= bounds[:horizon])
    np.testing.assert_allclose(free_rate[:horizon], squared_rate[:horizon], rtol=0, atol=1e-12)


@functools.partial(jax.jit, static_argnums=1)
def spikes(x, decay, threshold):
    return lif(x, decay, threshold)[0]


def first_spikes(time_steps, threshold):
    return spikes(np.ones((1, time_steps), np.float32), DECAY, threshold)[0].tolist()


def test_membrane_on_the_threshold_is_silent_or_fires():
    """Silent at first, u = 1.2 fires in the second step, and so on in turn; H(0) = 1 fires in every step."""
    assert first_spikes(6, 1.0) == [0, 1, 0, 1, 0, 1]
    assert first_spikes(6, one_neuron.inclusive()) == [1] * 6
    below = np.full((1, 1), np.nextafter(np.float32(1), np.float32(0)))
    assert spikes(below, DECAY, one_neuron.inclusive()).item() == 0  # only the threshold itself has changed sides


@pytest.mark.parametrize("time_steps", [pytest.param(10, marks=pytest.mark.full), 20])
def test_first_step_of_both_conventions(x64, time_steps):
    silent, fires = (
        trajectory(START, Z0, BETA, LR, steps=2, time_steps=time_steps, threshold=threshold)
        for threshold in (1.0, float(one_neuron.inclusive()))
    )
    np.testing.assert_allclose(silent[1][0], (time_steps / 2 / 10) ** 2, rtol=1e-12)
    np.testing.assert_allclose(fires[1][0], (time_steps / 10) ** 2, rtol=1e-12)
    # Fires in every step: du[t]/dh = 1 - 0.2 ds[t-1]/dh, where ds/du = 1, the peak of the triangle.
    slopes = [1.0]
    for _ in range(time_steps - 1):
        slopes.append(1 - DECAY * slopes[-1])
    pull = Z0 * (1 / (1 + math.exp(-1)) - 0.65)
    np.testing.assert_allclose(fires[0][1], START - (2 * time_steps / 10 * sum(slopes) / 10 + pull), rtol=1e-12)
    assert abs(fires[0][1] - silent[0][1]) > 0.1


@pytest.mark.parametrize(("time_steps", "end"), [(10, 0.39998), pytest.param(20, 0.39949, marks=pytest.mark.full)])
def test_without_chaos_the_weight_stops_as_soon_as_the_neuron_is_silent(time_steps, end):
    w, squared_rate = map(np.asarray, trajectory(START, 0.0, 1.0, BP_LR, steps=1000, time_steps=time_steps))
    silent = int(np.argmin(squared_rate))
    assert w[0] == 0.5 and np.all(np.diff(w[: silent + 1]) < 0)
    assert 20 < silent < 150
    assert np.all(w[silent:] == w[silent]) and np.all(squared_rate[silent:] == 0)
    np.testing.assert_allclose(w[-1], end, atol=2e-5)


def test_published_run_wanders_and_settles_where_the_term_alone_rests():
    w, squared_rate = (np.asarray(a) for a in trajectory(START, Z0, BETA, LR, time_steps=20))
    assert w.dtype == np.float32
    assert -7.5 < w.min() < -6 and 4.4 < w.max() < 4.6
    first, *_, last = one_neuron.stretches(one_neuron.irregular(w))
    assert first[0] == 0 and 600 < first[1] < 800  # chaos from the term
    assert 1300 < last[0] < 1400 and 1500 < last[1] < 2200  # the second window, that of the spikes
    assert one_neuron.irregular(w[900:1200]).size == 0
    assert one_neuron.settled(w) < 2200 and squared_rate[-1] == 0
    np.testing.assert_allclose(w[-1], FIXED_POINT / 2, atol=1e-5)  # 0.3095


def term_alone(zs, **options):
    """Visited ``[z, keep]`` under the chaos term alone: a threshold out of reach."""
    return np.asarray(bifurcation(jnp.asarray(zs), jnp.array([START]), time_steps=1, threshold=jnp.inf, **options))[
        :, 0
    ]


def distinct(orbit):
    return len(np.unique(np.round(orbit, 7)))


def test_fixed_point_of_the_term_alone_loses_stability_at_the_flip(x64):
    factor = jax.jit(lambda w, z: growth(w, z, LR, time_steps=1, threshold=jnp.inf))
    np.testing.assert_allclose(factor(FIXED_POINT / 2, FLIP), -1, atol=1e-4)
    np.testing.assert_allclose(one_neuron.FLIP, FLIP, atol=1e-3)
    below, above = term_alone([0.99 * FLIP, 1.01 * FLIP], transient=3000)
    np.testing.assert_allclose(below, FIXED_POINT / 2, atol=1e-9)
    assert distinct(above) == 2 and above.min() < FIXED_POINT / 2 - 0.05 < FIXED_POINT / 2 + 0.05 < above.max()


def test_bifurcation_of_the_term_alone_visits_what_its_scalar_map_visits(x64):
    periods = {4.0: 1, 5.5: 2, 6.8: 4, 10.0: 3}
    visited = term_alone(list(periods), transient=3000)
    for (z, period), orbit in zip(periods.items(), visited, strict=True):
        h = 2 * START
        for _ in range(3000):
            h -= 2 * z * (1 / (1 + math.exp(-h)) - 0.65)
        expected = []
        for _ in range(period):
            expected.append(h / 2)
            h -= 2 * z * (1 / (1 + math.exp(-h)) - 0.65)
        assert distinct(orbit) == period
        np.testing.assert_allclose(orbit[:period], expected, atol=1e-9)
    assert distinct(term_alone([9.0], keep=60)) == 60  # chaos


def test_bifurcation_of_the_whole_loss_finds_coexisting_attractors(x64):
    """Below the flip the fixed point is stable, and silent; with T = 10 a cycle that fires lives on beside it."""
    starts = jnp.linspace(-6.0, 4.0, 32)
    orbits = np.asarray(bifurcation(jnp.array([2.0, 3.5]), starts, transient=3000, time_steps=10))
    resting, firing = (np.array([distinct(orbit) == period for orbit in orbits[1]]) for period in (1, 4))
    assert resting.any() and firing.any() and np.all(resting | firing)
    np.testing.assert_allclose(orbits[1, resting], FIXED_POINT / 2, atol=1e-9)
    assert np.all(2 * orbits[1, firing].max(axis=1) > 1 - DECAY)  # below this h no membrane comes to the threshold
    np.testing.assert_allclose(orbits[0], FIXED_POINT / 2, atol=1e-9)


def test_period_detection_tells_a_cycle_from_noise():
    cycle, noise = np.tile([0.0, 1.0, -2.0], 40), np.random.default_rng(0).uniform(-1, 1, 200)
    w = np.concatenate([cycle, noise, np.full(200, 0.3)])
    ((first, last),) = one_neuron.stretches(one_neuron.irregular(w))
    assert 120 - 48 <= first <= 120 and 300 <= last < 320
    assert 310 < one_neuron.settled(w) <= 320
    assert one_neuron.settled(np.ones(9)) == 0 and one_neuron.stretches(one_neuron.irregular(cycle)) == []


@pytest.mark.full
def test_the_program_writes_figure_data_and_page_of_short_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(one_neuron, "trajectory", functools.partial(trajectory, steps=60))
    monkeypatch.setattr(one_neuron, "bifurcation", functools.partial(bifurcation, transient=5, keep=2))
    save = one_neuron.study.save_figure
    monkeypatch.setattr(one_neuron.study, "save_figure", lambda fig, out, name, dpi: save(fig, out, name, dpi=20))
    short = one_neuron.measure(2)
    monkeypatch.setattr(one_neuron, "measure", lambda time_steps: short)
    one_neuron.main(["--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith(f"Figure: {tmp_path / 'one_neuron.png'}; ")
    page = (tmp_path / "README.md").read_text().splitlines()
    runs = [f"T={time_steps}{part}:" for time_steps in (10, 20) for part in ("", ", H(0)=1")]
    assert [sum(line.startswith(run) for line in page) for run in runs] == [1] * 4  # a sentence on each
    assert (tmp_path / "one_neuron.png").exists() and (tmp_path / "one_neuron.pdf").exists()
    for time_steps in (10, 20):
        with np.load(tmp_path / f"one_neuron_T{time_steps}.npz") as data:
            assert set(data) == set(short) and data["csbp_H0"].shape == (60,)
            np.testing.assert_array_equal(data["visited"], short["visited"])
