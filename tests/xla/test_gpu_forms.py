"""Convolutions of members on GPUs: one call each, with the values of JAX's rule."""

import re
from typing import Any

import jax
import numpy as np
import pytest

from csbp_jax.xla import gpu_convolution
from csbp_jax.xla.convolution import convolution
from csbp_jax.xla.platform import traced_for

DIMENSIONS = jax.lax.conv_dimension_numbers((2, 7, 7, 4), (3, 3, 4, 6), ("NHWC", "HWIO", "NHWC"))
OPTIONS: dict[str, Any] = {"dimension_numbers": DIMENSIONS}
MEMBERS = 3


def convolve(x, kernel, groups=1):
    return convolution(x, kernel, (2, 2), [(1, 1), (1, 1)], feature_group_count=groups, **OPTIONS)


def arrays(groups=1):
    rng = np.random.default_rng(0)
    return rng.normal(size=(MEMBERS, 2, 7, 7, 4)), rng.normal(size=(MEMBERS, 3, 3, 4 // groups, 6))


def gradients(groups):
    """Values, gradients, and derivatives of the gradients along a direction."""

    def loss(x, kernel):
        return (convolve(x, kernel, groups) ** 3).sum()

    def all_of(x, kernel):
        gradient = jax.grad(loss, (0, 1))
        return convolve(x, kernel, groups), *jax.jvp(gradient, (x, kernel), (x[::-1], kernel[::-1]))

    return all_of


@pytest.fixture
def no_least(monkeypatch):
    """Takes small convolutions for large ones."""
    monkeypatch.setattr(gpu_convolution, "LEAST", 0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_values_gradients_and_their_tangents_are_those_of_jaxs_rule(x64, no_least, groups, axes):
    given = [a if axis == 0 else a[0] for a, axis in zip(arrays(groups), axes, strict=True)]
    expected = jax.jit(jax.vmap(gradients(groups), in_axes=axes))(*given)
    with traced_for("gpu"), gpu_convolution.each_member_alone(True):
        actual = jax.jit(jax.vmap(gradients(groups), in_axes=axes))(*given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), actual, expected)


def groups_of(function, axes, given):
    """The numbers of groups of the convolutions that are called on a GPU."""
    with traced_for("gpu"), gpu_convolution.each_member_alone(True):
        text = jax.jit(jax.vmap(function, in_axes=axes)).trace(*given).lower(lowering_platforms=("cuda",)).as_text()
    return re.findall(r"feature_group_count = (\d+)", text)


@pytest.mark.parametrize(("axes", "calls"), [((0, 0), MEMBERS), ((None, 0), 1), ((0, None), 1)])
def test_a_mapped_convolution_is_one_without_groups_for_each_member(no_least, axes, calls):
    given = [a.astype(np.float32) if axis == 0 else a[0] for a, axis in zip(arrays(), axes, strict=True)]
    assert groups_of(convolve, axes, given) == ["1"] * calls


def test_a_small_convolution_is_one_call_in_groups():
    assert groups_of(convolve, (0, 0), arrays()) == [str(MEMBERS)]
