"""Task losses against reference values and numpy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_shape, assert_trees_all_close

from csbp_jax import losses
from csbp_jax.config import Loss

B, T, C = 8, 5, 10
LOSSES = {
    "rate": losses.rate_cross_entropy,
    "tet": lambda logits, labels, where=None: losses.tet(logits, labels, lam=0.05, where=where),
    "mse": losses.rate_mse,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (B, T, C)).astype(np.float32)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, C, B)


@pytest.fixture
def probabilities():
    return np.random.default_rng(2).dirichlet(np.ones(C), B).astype(np.float32)


@functools.cache
def value_and_grad(loss):
    return jax.jit(jax.value_and_grad(loss))


def value(loss, *arguments):
    return value_and_grad(loss)(*arguments)[0]


def numpy_cross_entropy(logits, probabilities):
    """Over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -(np.asarray(probabilities, np.float64) * log_p).sum(-1)


@pytest.mark.parametrize("lam", [0.0, 0.05, 0.001])
def test_tet_value_and_gradient_equal_reference(x64, reference, lam):
    data = reference("tet")
    logits = np.moveaxis(data["logits"], 0, 1)
    value, gradient = value_and_grad(losses.tet)(logits, data["labels"], lam)
    assert_trees_all_close(value, data[f"loss_{lam}"], rtol=1e-12)
    expected = np.moveaxis(data[f"grad_{lam}"], 0, 1)
    assert_trees_all_close(gradient, expected, atol=1e-12 * np.abs(expected).max(), rtol=0)


@every_loss
def test_integer_labels_equal_one_hot_probabilities(loss, logits, labels):
    by_integer = value_and_grad(loss)(logits, labels)
    by_probability = value_and_grad(loss)(logits, np.eye(C, dtype=np.float32)[labels])
    assert_shape(by_integer[0], ())
    assert_trees_all_close(by_integer, by_probability, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
@every_loss
def test_where_equals_the_loss_of_the_subset(loss, soft, logits, labels, probabilities):
    target = probabilities if soft else labels
    where = np.arange(B) % 3 != 1
    value, gradient = value_and_grad(loss)(logits, target, where=where)
    expected, expected_gradient = value_and_grad(loss)(logits[where], target[where])
    assert_trees_all_close(value, expected, rtol=1e-6)
    gradient = np.asarray(gradient)
    assert_trees_all_close(gradient[where], expected_gradient, rtol=1e-5, atol=1e-8)
    assert not gradient[~where].any()
    assert abs(value - value_and_grad(loss)(logits, target)[0]) > 1e-3


def test_soft_labels_give_the_cross_entropy_with_a_distribution(logits, probabilities):
    rate = numpy_cross_entropy(np.mean(logits, axis=1), probabilities).mean()
    per_step = numpy_cross_entropy(logits, np.repeat(np.asarray(probabilities)[:, None], T, axis=1)).mean()
    assert_trees_all_close(float(value(losses.rate_cross_entropy, logits, probabilities)), rate, rtol=1e-5)
    assert_trees_all_close(float(value(losses.tet, logits, probabilities, 0.0)), per_step, rtol=1e-5)


@pytest.mark.parametrize("target", [1.0, -2.0])
def test_tet_of_lam_one_is_the_squared_distance_of_the_logits_to_the_target(logits, labels, target):
    expected = np.mean((np.float64(logits) - target) ** 2)
    assert_trees_all_close(float(value(losses.tet, logits, labels, 1.0, target)), expected, rtol=1e-5)


@pytest.mark.parametrize("votes", [1, 2])
def test_rate_mse_equals_numpy(x64, logits, votes):
    classes, labels = C // votes, np.random.default_rng(1).integers(0, C // votes, B)
    rates = np.asarray(logits, np.float64).mean(1).reshape(B, classes, votes).mean(2)
    expected = ((rates - np.eye(classes)[labels]) ** 2).mean()
    actual = jax.jit(losses.rate_mse, static_argnums=2)(logits.astype(np.float64), labels, votes)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_values_of_another_shape_are_refused(name):
    """Reshaped, those of [C, B] or [B * C] would be other values of other examples."""
    loss, values = losses.build(Loss(task="value", name=name)), np.arange(6, dtype=np.float32).reshape(2, 3)
    compiled = jax.jit(loss)
    assert compiled(values[:, None], values) == compiled(values[:, None, :1], values[:, 0]) == 0
    for wrong in (values.T, values.ravel(), values[:1], values[0]):
        with pytest.raises(ValueError, match=r"targets are .* but must be \(2, 3\)"):
            loss(jnp.asarray(values[:, None]), jnp.asarray(wrong))


def test_labels_may_be_integers_in_either_loss():
    labels = np.array([[1, 0, 1], [0, 0, 1]], np.int32)
    logits = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 4, 3)
    for name in ("rate", "tet"):
        loss = jax.jit(losses.build(Loss(task="labels", name=name)))
        assert loss(logits, labels) == loss(logits, labels.astype(np.float32))


def test_the_config_selects_the_loss(logits, labels):
    configs = Loss("rate"), Loss("tet", lam=0.2), Loss("mse")

    @jax.jit
    def selected_and_expected(logits, labels):
        selected = [losses.build(config)(logits, labels) for config in configs]
        return selected, [
            losses.rate_cross_entropy(logits, labels),
            losses.tet(logits, labels, 0.2),
            losses.rate_mse(logits, labels),
        ]

    selected, expected = selected_and_expected(logits, labels)
    assert selected == expected and len(set(map(float, expected))) == 3


@pytest.mark.parametrize("labels", [np.zeros(3, np.float32), np.zeros(3, bool), np.zeros((3, 3), int)])
@every_loss
def test_labels_that_are_neither_classes_nor_probabilities_are_refused(loss, labels):
    """As many examples as classes: shapes alone would not show it."""
    with pytest.raises(ValueError, match=rf"labels are {labels.dtype} .*must be integers \[B\] or probabilities"):
        loss(jnp.zeros((3, 2, 3)), labels)


@pytest.mark.parametrize(
    "labels",
    [np.zeros((B, 1), np.float32), np.zeros((1, C), np.float32), np.zeros((B, C + 1), np.float32), np.zeros(1, int)],
    ids=lambda labels: f"{labels.dtype} {labels.shape}",
)
@every_loss
def test_labels_are_not_broadcast(loss, labels, logits):
    """Nor while a function is traced, as shapes are known then."""
    for compute in (loss, jax.jit(loss)):
        with pytest.raises(ValueError, match=rf"must be integers \[B\] or .* with B {B} and C {C}"):
            compute(logits, labels)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("wrong", [-1, C, 99])
@every_loss
def test_classes_out_of_range_are_refused(loss, wrong, as_array, logits, labels):
    labels[3] = wrong
    labels = as_array(labels)
    where = jnp.asarray(np.arange(B) != 3)
    for compute in (loss, jax.grad(loss)):  # by a gradient, logits are traced and labels are not
        with pytest.raises(ValueError, match=rf"labels has {wrong}, but must be from 0 to {C - 1}"):
            compute(logits, labels)
    jax.eval_shape(loss, logits, labels)  # not known there
    jax.eval_shape(lambda logits: loss(logits, labels, where=where), logits)  # does not count


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (np.full(B, T + 1), f"lengths has {T + 1}, but must be from 1 to {T}"),
        (np.arange(B) % T, f"lengths has 0, but must be from 1 to {T}"),
        (np.array([2]), r"lengths is \(1,\), but must be "),
    ],
)
def test_lengths_that_sequences_cannot_have_are_refused(lengths, words, logits, labels):
    values = logits[:, 0]
    cases: tuple[tuple[Any, Any], ...] = (
        (Loss(name="rate"), labels),
        (Loss(name="tet"), labels),
        (Loss(name="mse"), labels),
        (Loss(task="value", name="mse"), values),
        (Loss(task="labels", name="rate"), values > 0),
        (Loss(task="labels", name="tet"), values > 0),
        (Loss(per="step"), np.zeros((B, T), int)),
    )
    for config, targets in cases:
        with pytest.raises(ValueError, match=words):
            losses.build(config)(logits, targets, lengths=lengths)


def test_a_mask_of_another_shape_is_refused(logits, labels):
    for where in (np.ones(1, bool), np.ones((B, 1), bool)):
        with pytest.raises(ValueError, match=r"where is .* but must be \(8,\)"):
            losses.rate_cross_entropy(logits, labels, jnp.asarray(where))


def test_labels_of_one_example_are_not_those_of_all(logits):
    loss = losses.build(Loss(task="labels", name="tet"))
    with pytest.raises(ValueError, match="must be of 8 examples"):
        loss(logits, jnp.zeros((1, C)))


def test_a_class_that_is_not_there_is_not_smoothed():
    with pytest.raises(ValueError, match="labels has 4, but must be from 0 to 3"):
        losses.smoothed(jnp.array([0, 4]), 4, 0.5)
