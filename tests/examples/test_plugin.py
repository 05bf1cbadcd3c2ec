"""The examples: three added lines, which add z times the gradient of the chaos term and nothing else."""

import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close
from flax import nnx

STEP = 3


def tap_jax(net, x):
    return x @ net["hidden"]


def tap_nnx(net, x):
    from examples.with_nnx import lif

    return net.second(lif(net.first(x)))


def tap_spyx(net, x):
    return x @ net.layers[0].kernel[...]


def tap_equinox(net, x):
    return x @ net.hidden.weight.T + net.hidden.bias


# Name -> (function that makes the net, its tapped tensor written independently of the example).
EXAMPLES = {
    "with_jax": (lambda module: module.init(jax.random.key(0)), tap_jax),
    "with_nnx": (lambda module: module.Net(nnx.Rngs(0)), tap_nnx),
    "with_spyx": (lambda module: module.init(0), tap_spyx),
    "with_equinox": (lambda module: module.Net(jax.random.key(0)), tap_equinox),
}


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    """``(module, net, gradient of its loss, tap)``."""
    if request.param == "with_spyx":
        pytest.importorskip("spyx")  # not available for Python 3.13
    module = importlib.import_module(f"examples.{request.param}")
    make, tap = EXAMPLES[request.param]
    net = make(module)
    return module, net, gradient(module.loss, net), tap


@pytest.fixture(autouse=True)
def rank_promotion():
    """Allow rank promotion, which other libraries rely on."""
    with jax.numpy_rank_promotion("allow"):
        yield


def without_the_lines(module):
    """The names of the example without the marked lines."""
    source = re.sub(r"(?m)^.*# CSBP \d/3.*\n", "", inspect.getsource(module))
    names = {"__name__": module.__name__}
    exec(compile(source, module.__file__, "exec"), names)
    return names


def gradient(function, net):
    """``(*arguments) -> leaves``: gradient of ``function(net, *arguments)`` in the net's parameters, in float64."""
    definition, state = nnx.split(net) if isinstance(net, nnx.Module) else (None, net)

    @jax.jit
    @jax.grad
    def run(state, *arguments):
        return function(nnx.merge(definition, state) if definition else state, *arguments)

    return lambda *arguments: jax.tree.leaves(run(jax.tree.map(np.float64, state), *arguments))


def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(0, 1, (5, 4, 64))), jnp.asarray(rng.integers(0, 10, 5))


def assert_close(actual, expected):
    largest = max(np.abs(leaf).max() for leaf in expected)
    assert largest > 1e-6
    assert_trees_all_close(actual, expected, rtol=0, atol=1e-12 * largest)


def test_there_are_three_marked_lines(example):
    assert re.findall(r"# CSBP (\d)/3", inspect.getsource(example[0])) == ["1", "2", "3"]


def test_at_strength_0_the_gradient_is_that_of_the_net_without_the_lines(x64, example):
    module, net, gradient_of_loss, _ = example
    plain = gradient(without_the_lines(module)["loss"], net)
    assert_close(gradient_of_loss(*batch(), STEP, 0.0), plain(*batch(), STEP, 7.0))


def test_the_lines_add_the_annealed_gradient_of_the_chaos_loss(x64, example):
    _, net, gradient_of_loss, tap = example

    def chaos_loss(net, x):
        u = tap(net, x) / 10
        return -(0.65 * jax.nn.log_sigmoid(u) + 0.35 * jax.nn.log_sigmoid(-u)).mean((0, 1)).sum()

    with_term, without = (gradient_of_loss(*batch(), STEP, z0) for z0 in (5.0, 0.0))
    expected = [5.0 * 0.98**STEP * leaf for leaf in gradient(chaos_loss, net)(batch()[0])]
    assert_close([a - b for a, b in zip(with_term, without, strict=True)], expected)


def test_a_few_steps_learn_and_the_annealing_compiles_once(example, monkeypatch):
    module, loss, traced = example[0], example[0].loss, []

    def traced_loss(*arguments):
        traced.append(arguments)
        return loss(*arguments)

    monkeypatch.setattr(module, "loss", traced_loss)
    assert module.train(0.1, epochs=2) > 0.5
    assert len(traced) == 1
