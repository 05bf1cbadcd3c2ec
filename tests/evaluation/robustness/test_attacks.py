"""Attacks: within bounds, with the known result on a linear model, and equal to NumPy; surrogates of an attacker."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, models, surrogate
from csbp_jax.config import Model, Neuron
from csbp_jax.evaluation.robustness import battery, pgd, square
from csbp_jax.evaluation.robustness.programs import Programs
from csbp_jax.neurons import LIF

RNG = np.random.default_rng(0)
X = RNG.random((30, 1, 6, 5, 1)).astype(np.float32)
W = RNG.normal(size=(30, 2)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 30)


def linear(x):
    """A linear model of two classes."""
    return jnp.matmul(x.reshape(len(x), -1), W)


def silent(variables, x):
    """A network of ten classes without a spike."""
    return jnp.zeros((len(x), 1, 10)), None


Y = np.asarray(linear(X)).argmax(-1)


def worst_margin(eps):
    """The smallest margin of the linear model in the box, which has each pixel at an end of its interval."""
    direction = np.asarray(W[:, 0] - W[:, 1]) * np.where(np.asarray(Y) == 0, 1, -1)[:, None]
    x = np.asarray(X).reshape(30, -1)
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    return (np.where(direction > 0, low, high) * direction).sum(1)


attack_pgd = jax.jit(lambda keys, x, y, eps: pgd.attack(linear, keys, x, y, eps))
attack_square = jax.jit(lambda keys, x, y, eps, side: square.attack(linear, keys, x, y, eps, side))
SIDES = square.sides(400, 6, 5)


@pytest.mark.parametrize("eps", [0.01, pytest.param(0.1, marks=pytest.mark.full)])
def test_pgd_reaches_the_worst_case_of_a_linear_model(eps):
    x, fooled = attack_pgd(KEYS, X, Y, eps)
    assert np.abs(x - X).max() <= eps + 1e-6 and x.min() >= 0 and x.max() <= 1
    assert np.array_equal(fooled, worst_margin(eps) < 0) and 0 < fooled.mean() <= 1
    margins = np.asarray(square.margin(linear(x), Y))
    assert np.allclose(margins[~np.asarray(fooled)], worst_margin(eps)[~np.asarray(fooled)], atol=1e-4)
    assert (margins[np.asarray(fooled)] < 0).all()


def test_pgd_follows_its_equations():
    """In NumPy, on a smooth function, from the start of the same key."""
    eps, steps = 0.02, 5
    z = lambda x: jnp.stack([jnp.sin(9 * x).sum((1, 2, 3, 4)) + 50, (x**2).sum((1, 2, 3, 4))], -1)  # noqa: E731
    x, fooled = jax.jit(lambda x: pgd.attack(z, KEYS[:3], x, jnp.zeros(3, int), eps, steps))(X[:3])
    u = np.stack([jax.random.uniform(key, X.shape[1:], X.dtype, -1, 1) for key in KEYS[:3]])
    low, high = np.maximum(X[:3] - np.float32(eps), 0), np.minimum(X[:3] + np.float32(eps), 1)
    expected = np.clip(X[:3] + np.float32(eps) * u, low, high)
    for _ in range(steps):
        # The loss falls with z[0] - z[1].
        expected = np.clip(expected - 2.5 * eps / steps * np.sign(9 * np.cos(9 * expected) - 2 * expected), low, high)
    assert not fooled.any() and np.allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize("eps", [0.01, pytest.param(0.1, marks=pytest.mark.full)])
def test_the_square_attack_stays_in_its_bounds_and_nears_the_worst_case(eps):
    x, margins, fooled, queries = map(np.asarray, attack_square(KEYS, X, Y, eps, SIDES))
    assert np.abs(x - X).max() <= eps + 1e-6 and x.min() >= 0 and x.max() <= 1
    assert np.allclose(margins, square.margin(linear(x), Y), atol=1e-5)
    worst = worst_margin(eps)
    assert np.array_equal(fooled, margins < 0)
    assert (margins >= worst - 1e-4).all() and (fooled <= (worst < 0)).all()
    clean = np.asarray(square.margin(linear(X), Y))
    assert np.mean((clean - margins)[~fooled] / (clean - worst)[~fooled]) > 0.8
    assert ((queries == 400) == ~fooled).mean() > 0.9 and queries.min() >= 1


@pytest.mark.full
def test_more_queries_never_raise_the_margin():
    margins = [np.asarray(attack_square(KEYS, X, Y, 0.02, SIDES[:n])[1]) for n in (1, 2, 40, 400)]
    assert all((later <= earlier + 1e-6).all() for earlier, later in itertools.pairwise(margins))
    assert margins[-1].mean() < margins[0].mean()


def test_a_tie_of_logits_is_decided_as_by_the_prediction():
    """With a read-out that is silent under every query, where all of them are equal."""
    programs = Programs(configs.load("digits"), silent, None, events=False)
    batch = {"x": jnp.full((10, 1, 8, 8, 1), 0.5), "y": jnp.arange(10), "index": jnp.arange(10, dtype=jnp.uint32)}
    key = jax.random.key(0)
    network = battery.Network(programs, key, variant=0, queries=5)
    attacked, variables = battery.PERTURBATIONS["square"].change(key, batch, {}, 25.5, network)
    assert np.abs(attacked["x"] - batch["x"]).max() == pytest.approx(0.1)
    resists = programs.predict(variables, key, attacked)
    assert np.array_equal(resists, programs.predict({}, key, batch)) and resists.sum() == 1


def test_the_first_query_is_of_stripes():
    x, *_, queries = attack_square(KEYS, X / 2 + 0.25, Y, 0.1, SIDES[:1])
    change = np.asarray(x - (X / 2 + 0.25))
    assert np.allclose(np.abs(change), 0.1, atol=1e-6) and (queries == 1).all()
    assert np.allclose(change, change[:, :, :1], atol=1e-6) and (change[0] != change[1]).any()


def test_sides_of_squares_fall_as_in_the_paper():
    sides = square.sides(10_000, 100, 100)
    for query, halvings in ((5, 0), (30, 1), (100, 2), (500, 3), (1500, 4), (3000, 5), (5000, 6), (7000, 7), (9000, 8)):
        assert sides[query] == round(np.sqrt(0.8 / 2**halvings) * 100)
    small = square.sides(500, 8, 8)
    assert small[0] == 7 and small[-1] == 1 and (np.diff(small) <= 0).all()
    assert square.sides(3, 28, 4).max() == 4


@pytest.mark.full
@pytest.mark.parametrize(
    "neuron",
    [Neuron(), Neuron(scale_input=True), Neuron(name="clif"), Neuron(learn="channel"), Neuron(name="sliding_psn")],
    ids=["lif", "scaled", "clif", "plif", "psn"],
)
def test_a_surrogate_of_the_attacker_changes_gradients_and_no_spike(neuron):
    config = Model(name="dense", input_shape=(6,), classes=3, time_steps=3, features=(8,), neuron=neuron)
    net = models.build(config)
    x = 3 * jnp.asarray(RNG.normal(size=(5, 1, 6)), jnp.float32)
    variables = jax.jit(net.init)(jax.random.key(0), x)

    @jax.jit
    def run(x, weights):
        options = {"neuron": pgd.with_surrogate(net.neuron, pgd.chosen(weights))}
        score = lambda x: (net.apply(variables, x, **options)[0] ** 2).sum()  # noqa: E731
        return net.apply(variables, x, **options)[0], jax.grad(score)(x)

    own, gradients = jax.jit(net.apply)(variables, x)[0], []
    for weights in np.eye(len(pgd.SURROGATES), dtype=np.float32):
        logits, gradient = run(x, weights)
        assert np.allclose(logits, own, atol=1e-6)
        gradients.append(np.asarray(gradient))
    assert not np.allclose(gradients[0], gradients[1]) and not np.allclose(gradients[1], gradients[2])


def test_the_chosen_surrogate_is_the_one_with_weight_1():
    u, wide = np.linspace(-2, 2, 21, dtype=np.float32), np.linspace(-400, 400, 400_001, dtype=np.float32)

    @jax.jit
    def derivatives(weights, u, wide):
        of_each = [surrogate.derivative(u) for surrogate in pgd.SURROGATES.values()]
        of_chosen = [pgd.chosen(of_one).derivative(u) for of_one in weights]
        return of_each, of_chosen, [surrogate.derivative(wide) for surrogate in pgd.SURROGATES.values()]

    of_each, of_chosen, on_wide = derivatives(np.eye(len(pgd.SURROGATES), dtype=np.float32), u, wide)
    assert np.allclose(of_chosen, of_each, atol=1e-7)
    areas = [np.trapezoid(values, dx=0.002) for values in on_wide]
    assert np.allclose(areas, 1, atol=2e-3)


def test_neurons_without_a_surrogate_are_left_alone():
    spike = surrogate.arctan()
    assert pgd.with_surrogate(lambda x, state=None: (x, x), spike) is None and pgd.with_surrogate(None, spike) is None
    assert pgd.with_surrogate(models.neuron(Neuron(name="ilif")), spike) is None
    assert pgd.with_surrogate(LIF(0.5), spike) == dataclasses.replace(LIF(0.5), spike=spike)
