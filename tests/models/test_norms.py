"""Norms against their definitions in numpy, in training and evaluation, and the conventions of PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.models import norms

B, T, H, W, C = 3, 4, 5, 2, 6
SHAPES = pytest.mark.parametrize("space", [(), (H, W)], ids=["dense", "conv"])
KINDS = pytest.mark.parametrize("kind", ["batch", "tdbn", "tebn", "bntt"])


def test_no_norm_is_the_input_without_parameters():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    for train in (False, True):
        y, variables = norms.make("none", time_steps=3, groups=2)(name="norm").init_with_output(
            jax.random.key(0), x, train
        )
        assert y is x and not variables


def test_a_norm_without_options_is_that_of_its_name():
    plain = {"batch": norms.BatchNorm(), "tebn": norms.TEBN(time_steps=T), "bntt": norms.BNTT(time_steps=T)}
    assert plain == {kind: norms.make(kind, T)() for kind in plain}


def random_variables(variables, seed=0):
    """Positive, all different."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 2, leaf.shape), variables)


def definition(kind, x, params, statistics, train):
    """``(y, mean, var)`` of the table in norms.py: the statistics that evaluation would use after this step."""
    epsilon, rows = {"bntt": 1e-4}.get(kind, 1e-5), []
    axes = (0, *range(2, x.ndim - 1)) if kind == "bntt" else tuple(range(x.ndim - 1))
    kept = [n for axis, n in enumerate(x.shape) if axis not in axes]
    mean, var = statistics["mean"], statistics["var"]
    here_mean, here_var = (x.mean(axes), x.var(axes)) if train else (mean, var)
    if train:
        mean, var = 0.9 * mean + 0.1 * here_mean, 0.9 * var + 0.1 * x.var(axes, ddof=1)
    for t in range(x.shape[1]):

        def step(a, t=t):
            return a[t] if kind == "bntt" else a

        xhat = (x[:, t] - step(here_mean)) / np.sqrt(step(here_var) + epsilon)
        y = step(params["scale"]) * xhat * (0.5 * 0.7 if kind == "tdbn" else 1)
        y = y + (0 if kind == "bntt" else params["bias"])
        rows.append(y * (params["p"][t] if kind == "tebn" else 1))
    assert mean.shape == tuple(kept)
    return np.stack(rows, 1), mean, var


@KINDS
@SHAPES
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_norms_equal_their_definitions(x64, kind, space, train):
    x = np.random.default_rng(1).normal(0.5, 2, (B, T, *space, C))
    norm = norms.make(kind, T, threshold=0.5, alpha=0.7)()
    variables = random_variables(jax.eval_shape(lambda: norm.init(jax.random.key(0), x, False)))
    y, after = jax.jit(lambda v, x: norm.apply(v, x, train, mutable=["batch_stats"]))(variables, x)
    params, statistics = (jax.tree.map(np.asarray, variables[k]) for k in ("params", "batch_stats"))
    expected = definition(kind, x, params, statistics, train)
    for actual, wanted in zip((y, after["batch_stats"]["mean"], after["batch_stats"]["var"]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


@KINDS
def test_a_norm_begins_as_the_plain_one_and_keeps_its_statistics_while_it_is_made(kind):
    x = jax.random.normal(jax.random.key(0), (B, T, C))
    variables = jax.jit(lambda x: norms.make(kind, T)().init(jax.random.key(0), x, True))(x)
    assert all(
        (leaf == (name[-1].key != "bias")).all() for name, leaf in jax.tree.leaves_with_path(variables["params"])
    )
    assert (variables["batch_stats"]["mean"] == 0).all() and (variables["batch_stats"]["var"] == 1).all()


@KINDS
def test_statistics_are_float32_for_bfloat16(kind):
    x = 100 + jax.random.normal(jax.random.key(0), (64, T, C), jnp.bfloat16)
    norm = norms.make(kind, T)()
    variables = norm.init(jax.random.key(0), x, False)
    y, after = norm.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, after)))
    wide, _ = norm.apply(variables, x.astype(jnp.float32), True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.astype(jnp.float32), wide, atol=0.02)


@pytest.mark.parametrize("kind", ["tebn", "bntt"])
def test_another_number_of_time_steps_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"model.norm: {kind} has parameters of 4 time steps.*, but the input has 3"):
        norms.make(kind, 4)().init(jax.random.key(0), jnp.ones((B, 3, C)), False)


def test_one_value_has_no_unbiased_variance_and_divides_by_nothing():
    norm = norms.make("bntt", T)()

    @jax.jit
    def statistics_after(x):
        return norm.apply(norm.init(jax.random.key(0), x, False), x, True, mutable=["batch_stats"])[1]

    after = statistics_after(np.ones((1, T, C), np.float32))
    np.testing.assert_allclose(after["batch_stats"]["var"], 0.9)
