"""The study of the gap and the dimension: its step, its singular values and its correlations."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from csbp_jax import dynamics
from csbp_jax.runtime.hardware import float64
from experiments import dimension


@pytest.fixture(autouse=True, scope="module")
def _x64():
    with float64():
        yield


@pytest.fixture(scope="module")
def arrays():
    return {split: dimension.pictures(split) for split in ("train", "test")}


def stacked(*states):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@pytest.mark.full
@pytest.mark.parametrize("net", dimension.NETS)
def test_exponents_and_singular_values_have_the_determinant_of_the_steps(net, arrays):
    states = stacked(*(dimension.start(3, 2.0, strength, *arrays["train"]) for strength in (0.0, 1.0)))
    leaves = (jax.tree.map(lambda _: True, states[0]), (False, False), False, False)
    exponents = dynamics.lyapunov_many(
        dimension.STEP[net], states, [None] * 2, n=172, dynamical_leaves=leaves
    ).exponents
    moved, _ = dimension.run(net, states, 1)
    expected = (dimension.singular_values(net, states) + dimension.singular_values(net, moved)).sum(axis=1) / 2
    np.testing.assert_allclose(exponents.sum(axis=1), expected, rtol=1e-6)


@pytest.mark.full
def test_a_step_is_that_of_the_loss_by_hand(arrays):
    state = dimension.start(5, 0.5, 1.0, *arrays["train"])
    (params, (x, y), z, rate), h = jax.tree.map(np.asarray, state), 1e-6
    assert float(z) == 2.0 and x.shape == (20, 16) and list(np.bincount(y)) == [5] * 4

    def loss(b2):
        s = 1 / (1 + np.exp(-(x @ params["w1"] + params["b1"])))
        logits = s @ params["w2"] + b2
        task = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(20), y])
        term = -(0.65 * np.log(s) + 0.35 * np.log(1 - s)).mean(0).sum()
        return task + z * term + 0.001 * (b2**2).sum()

    base = np.array([0.1, -0.2, 0.3, 0.0])
    moved = dimension.STEP["smooth"]((state[0] | {"b2": jnp.asarray(base)}, *state[1:]))[0]["b2"]
    slopes = [(loss(base + h * e) - loss(base - h * e)) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(moved, base - rate * np.array(slopes), rtol=1e-6)


def test_correlations_are_of_each_draw_that_has_one():
    rows = [{"seed": s, "dimension": d, "gap": (-1) ** s * d**3} for s in range(2) for d in (0.0, 1.0, 4.0)]
    rows += [{"seed": 2, "dimension": 0.0, "gap": gap} for gap in (1.0, 2.0)]
    assert dimension.correlations(pd.DataFrame(rows)) == pytest.approx([1, -1])
