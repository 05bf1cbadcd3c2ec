"""Norms and their gradients against their definitions, in training and evaluation, and the conventions of PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from csbp_jax.config import ConfigError
from csbp_jax.models import norms

B, T, H, W, C = 4, 3, 5, 2, 6
KINDS = pytest.mark.parametrize("kind", ["batch", "tdbn", "tebn", "bntt"])


def test_no_norm_is_the_input_without_parameters():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for train in (False, True):
        y, variables = norms.make("none", time_steps=3, groups=2)(name="norm").init_with_output(
            jax.random.key(0), x, train
        )
        assert y is x and not variables


def test_a_norm_without_options_is_that_of_its_name():
    plain = {"batch": norms.BatchNorm(), "tebn": norms.TEBN(time_steps=T), "bntt": norms.BNTT(time_steps=T)}
    assert plain == {kind: norms.make(kind, T)() for kind in plain}


def definition(kind, groups, train, statistics, params, x):
    """``(y, {mean, var})`` of the table in norms.py; the statistics that evaluation would use after this step."""
    h, C = x.reshape(groups, -1, *x.shape[1:]), x.shape[-1]
    axes = (1, *range(3, x.ndim)) if kind == "bntt" else tuple(range(1, x.ndim))
    mean, var = (jnp.expand_dims(statistics[name], (0, *axes)) for name in ("mean", "var"))
    if train:
        mean, var, unbiased = h.mean(axes, keepdims=True), h.var(axes, keepdims=True), h.var(axes, ddof=1)
        new = {"mean": mean.reshape(unbiased.shape), "var": unbiased}
        statistics = {name: 0.9 * old + 0.1 * new[name].mean(0) for name, old in statistics.items()}
    of_steps = (1, -1, *(1,) * (x.ndim - 3))
    y = ((h - mean) / jnp.sqrt(var + (1e-4 if kind == "bntt" else 1e-5))).reshape(x.shape)
    y = params["scale"].reshape(*(of_steps if kind == "bntt" else (1,) * (x.ndim - 1)), C) * y
    y = y * (0.5 * 0.7 if kind == "tdbn" else 1)
    if kind != "bntt":
        y = y + params["bias"].reshape(*(1,) * (x.ndim - 1), C)
    return (y * params["p"].reshape(*of_steps, 1) if kind == "tebn" else y), statistics


FULL = [("tdbn", False), ("tebn", False), *((kind, True) for kind in ("batch", "tdbn", "tebn", "bntt"))]


@pytest.mark.parametrize(
    ("space", "groups", "train", "kind"),
    [
        pytest.param(*case, kind, marks=[pytest.mark.full] * (case[1] == 1 and (kind, case[2]) in FULL))
        for case in [((), 1, True), ((H, W), 2, True), ((H, W), 1, False)]
        for kind in ("batch", "tdbn", "tebn", "bntt")
    ],
)
def test_norms_equal_their_definitions(x64, kind, space, groups, train):
    """Also gradients through the new running statistics, and the derivative of all along a direction."""
    draw = np.random.default_rng(1)
    x, weights = draw.normal(0.5, 2, (B, T, *space, C)), draw.normal(size=(B, T, *space, C))
    norm = norms.make(kind, T, threshold=0.5, alpha=0.7, groups=groups)()
    shapes = jax.eval_shape(lambda: norm.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda leaf: draw.uniform(0.5, 2, leaf.shape), shapes)
    statistics = variables["batch_stats"]

    def ours(params, x):
        y, after = norm.apply({"params": params, "batch_stats": statistics}, x, train, mutable=["batch_stats"])
        return y, after["batch_stats"]

    def everything(normalise):
        def loss(*point):
            y, after = normalise(*point)
            return (jnp.sin(y) * weights).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(after))

        def results(*point):
            direction = jax.tree.map(jnp.cos, point)
            return normalise(*point), jax.jvp(jax.grad(loss, argnums=(0, 1)), point, direction)

        return results

    by_definition = everything(functools.partial(definition, kind, groups, train, statistics))
    both = jax.jit(lambda *point: (everything(ours)(*point), by_definition(*point)))
    assert_trees_all_close(*both(variables["params"], x), rtol=1e-11, atol=1e-11)


@KINDS
def test_a_norm_begins_as_the_plain_one_and_keeps_its_statistics_while_it_is_made(kind):
    x = np.random.default_rng(0).normal(size=(B, T, C)).astype(np.float32)
    variables = jax.jit(lambda x: norms.make(kind, T)().init(jax.random.key(0), x, True))(x)
    variables = jax.device_get(variables)
    assert all(
        (leaf == (name[-1].key != "bias")).all() for name, leaf in jax.tree.leaves_with_path(variables["params"])
    )
    assert (variables["batch_stats"]["mean"] == 0).all() and (variables["batch_stats"]["var"] == 1).all()


@KINDS
def test_statistics_are_float32_for_bfloat16(kind):
    x = np.random.default_rng(0).normal(100, 1, (64, T, C)).astype(jnp.bfloat16)
    norm = norms.make(kind, T)()

    @jax.jit
    def of_both_precisions(x):
        variables = norm.init(jax.random.key(0), x, False)
        narrow, wide = (norm.apply(variables, h, True, mutable=["batch_stats"]) for h in (x, x.astype(jnp.float32)))
        return variables, narrow, wide[0]

    variables, (y, after), wide = of_both_precisions(x)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, after)))
    np.testing.assert_allclose(np.asarray(y).astype(np.float32), wide, atol=0.02)


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
