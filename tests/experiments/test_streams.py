"""The study of CNN7 on streams: its growths against the package's, and the rules of its plan."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics, learner
from experiments import streams
from tests.support import small_net


def a_run(exponent=0.1, steps=streams.STEPS, norm=1.0):
    return {"norm": [1.0] * (steps - 1) + [norm], "loss": [2.0] * steps} | dict.fromkeys(
        ("exponent", "growth"), [5.0] * streams.WARMUP + [exponent] * (steps - streams.WARMUP)
    )


def cells(fixed, stream):
    return {"fixed batch": {"plain": [a_run(x) for x in fixed]}, "stream": {"plain": [a_run(x) for x in stream]}}


@functools.cache
def with_loss():
    """The step of the small net, one function object, so that its programs are compiled once."""
    return streams.with_loss(small_net.recipe())


def test_growths_of_both_kinds_are_those_of_the_package(x64, monkeypatch):
    monkeypatch.setattr(streams, "DELTA", 1e-8)
    recipe = small_net.recipe()
    state, batches = small_net.first_state(recipe), [small_net.batch(seed) for seed in range(6)]
    step = with_loss()
    run = streams.follow(step, state, batches, 4)
    history = dynamics.lyapunov(step, (state, jnp.zeros(())), batches[:4], 1, dynamical_leaves=_leaves(state))[2]
    np.testing.assert_allclose(run["exponent"], history[:, 0], rtol=1e-4)
    # The nearby run starts in the direction of the tangent, so that at a small distance it grows as fast.
    np.testing.assert_allclose(run["growth"], run["exponent"], atol=1e-4)
    for batch in batches:
        state, metrics = small_net.train_step(recipe, state, batch)
    assert run["loss"][-1] == pytest.approx(float(metrics["task_loss"]), rel=1e-4)
    assert len(run["norm"]) == len(run["loss"]) == 6


def _leaves(state):
    return learner.dynamical_leaves(state), False


def test_a_run_ends_when_it_runs_away(x64):
    state = small_net.first_state(small_net.recipe())
    state = state.replace(hparams=state.hparams | {"lr": jnp.asarray(1e6, state.hparams["lr"].dtype)})
    run = streams.follow(with_loss(), state, [small_net.batch()] * 9, 0)
    assert len(run["norm"]) < 9 and streams.ran_away(run)
    assert np.isnan(streams.exponents([run], "exponent")).all() and streams.sign(np.array([np.nan])) == "runs away"


def test_a_state_that_is_not_finite_has_run_away():
    assert streams.ran_away(a_run(steps=100, norm=None)) and not streams.ran_away(a_run())
    assert not streams.ran_away(a_run(steps=200, norm=2e3)) and streams.ran_away(a_run(steps=200, norm=2e3), 400)


def test_exponents_leave_out_the_first_steps():
    np.testing.assert_allclose(streams.exponents([a_run(0.25)], "exponent"), [0.25])


@pytest.mark.parametrize(
    "fixed, stream, expected",
    [
        ((0.1, 0.11, 0.12, 0.1), (0.2, 0.3, 0.2, 0.3), "the same"),
        ((-0.1, -0.11, -0.12, -0.1), (0.2, 0.3, 0.2, 0.3), "different"),
        ((0.1, -0.1, 0.1, -0.1), (0.2, 0.3, 0.2, 0.3), "not decided"),
        ((0.1, 0.1, 0.1, 0.1), (0.2,), "not decided"),
    ],
)
def test_verdict_from_the_signs_of_both_maps(fixed, stream, expected):
    assert streams.verdict(cells(fixed, stream), "plain") == expected


def test_verdict_from_runs_that_run_away():
    maps, away = cells([0.1, 0.11, 0.12, 0.1], [0.1] * 4), a_run(steps=100, norm=2e3)
    maps["fixed batch"]["plain"][0] = away
    assert streams.verdict(maps, "plain") == "not decided"
    maps["fixed batch"]["plain"][1:3] = [away] * 2
    assert streams.verdict(maps, "plain") == "different"
    maps["stream"]["plain"] = [away] * 4
    assert streams.verdict(maps, "plain") == "not decided"


def test_the_network_is_the_released_one_in_small():
    config = streams.smaller()
    assert (config.model.name, config.batch_size, config.model.time_steps) == ("cnn7", 32, 10)
    assert config.chaos.z0 == (15.0, 15.0) and (config.optimizer.lr, config.optimizer.momentum) == (0.1, 0.9)


def test_an_interrupted_study_shows_the_starts_that_are_complete():
    maps = {name: {condition: [a_run()] * 3 for condition in streams.CONDITIONS} for name in streams.MAPS}
    maps["stream"]["drift"] = [a_run()] * 2
    lines = streams.page({"maps": maps}).splitlines()
    assert "| fixed batch | CSBP | 0 of 2 | 1 to 1 times | 2 [2, 2] | 0.1 [0.1, 0.1] | + |" in lines[2]
    assert "| plain | + | + | + | the same |" in lines
    assert "| stream: CSBP - drift | 0 [0, 0], n = 2 | 1 |" in lines[-1]
