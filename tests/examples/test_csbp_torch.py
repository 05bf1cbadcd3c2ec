"""The chaos term for PyTorch equals ours, in an environment of its own; so do five training steps with its hook."""

import functools
import itertools
import json
import pathlib
import subprocess
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import peers
from csbp_jax import chaos, controls
from experiments import study
from experiments.parity import cases, ours
from tests.support.checkout import ROOT, environment

pytestmark = pytest.mark.slow

PACKAGES = tuple(dict.fromkeys([*peers.REQUIREMENTS["spikingjelly"], *peers.REQUIREMENTS["snntorch"]]))


@pytest.fixture(scope="module")
def python():
    """The Python of an environment with PyTorch, SpikingJelly and snnTorch, but without JAX."""
    with tempfile.TemporaryDirectory() as folder:
        yield environment(folder, *PACKAGES) / "python"


def in_torch(python, part, folder, **arrays):
    """Results of a part of tests/support/in_torch.py."""
    np.savez(folder / f"{part}.npz", **arrays)
    done = subprocess.run(
        [python, ROOT / "tests" / "support" / "in_torch.py", part, folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / f"{part}_torch.npz"))


def test_terms_and_gradients(python, tmp_path):
    with study.float64():
        h = 12 * np.random.default_rng(0).standard_normal((4, 3, 5))
        h[0, 0] = 0, -10, 9.9, 1e4, -1e4
        cuts: Any = (None, (-10.0, 9.9))
        reductions: Any = ("mean", "sum", "neuron")
        combinations = list(itertools.product(controls.TERMS, (0.2, 0.5, 0.5004, 0.65), (1.0, 10.0), cuts, reductions))
        results = in_torch(python, "terms", tmp_path, h=h, options=json.dumps(combinations))
        assert len(results) == 2 * len(combinations)
        for number, (name, target, scale, cut, reduce) in enumerate(combinations):
            term: Any = functools.partial(controls.TERMS[name], cut=cut, reduce=reduce)
            value, gradient = jax.value_and_grad(term)(h, target, scale)
            message = f"{name} {target} {scale} {cut} {reduce}"
            np.testing.assert_allclose(results[f"{number}/value"], value, rtol=1e-12, err_msg=message)
            near_zero = 1e-12 * float(np.abs(gradient).max())
            np.testing.assert_allclose(
                results[f"{number}/gradient"], gradient, rtol=1e-12, atol=near_zero, err_msg=message
            )


def test_strength(python, tmp_path):
    with study.float64():
        expected = [[float(chaos.strength(step, 15.0, 0.9, every)) for step in range(9)] for every in (1, 3)]
    np.testing.assert_allclose(in_torch(python, "strengths", tmp_path)["z"], expected, rtol=1e-12)


def test_mpgd(python, tmp_path):
    """Both get the uniform numbers that ours draws from its keys. After 40 steps chaos makes rounding visible."""
    with study.float64():
        rng, steps = np.random.default_rng(1), 30
        weights = {"a": jnp.asarray(rng.standard_normal((6, 7))), "b": jnp.asarray(rng.standard_normal(9))}
        force = controls.mpgd(lambda step: 1.0, multiplicative=0.3, gamma=0.6, beta=0.2)
        state = force.init(weights)
        pairs = jax.tree.map(lambda w: jnp.zeros((2, *w.shape)), weights)
        expected, uniforms = [], []
        for step in range(steps):
            key = jax.random.key(step)
            zeros = jax.tree.map(jnp.zeros_like, weights)
            numbers, state = force.update(zeros, state, weights, step=jnp.asarray(step), key=key)
            expected.append(numbers)
            keys = optax.tree.split_key_like(key, pairs)
            uniforms.append(jax.tree.map(lambda k, p: jax.random.uniform(k, p.shape, p.dtype), keys, pairs))
    arrays: dict[str, Any] = {f"w_{name}": w for name, w in weights.items()}
    arrays |= {f"uniform_{name}": np.stack([u[name] for u in uniforms]) for name in weights}
    results = in_torch(python, "mpgd", tmp_path, **arrays)
    for name in weights:
        of_ours = np.stack([numbers[name] for numbers in expected])
        np.testing.assert_allclose(results[name], of_ours, rtol=1e-12, err_msg=name)


def test_forces(python, tmp_path):
    """Noise and MPGD add their size times the numbers to the gradients; ``rms`` is the size of a gradient."""
    results = in_torch(python, "forces", tmp_path)
    names = [name for name in results if not name.endswith("expected")]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(results[name], results[f"{name} expected"], rtol=1e-12, err_msg=name)


def test_five_steps_of_a_network(python, tmp_path):
    """Loss and all weights of the case cnn7_tebn: PyTorch with the hook, and this package."""
    results = in_torch(python, "steps", tmp_path)
    values, weights = ours.train(cases.CASES["cnn7_tebn"])
    losses = np.stack([values["task_loss"], values["chaos_loss"]], axis=1)
    np.testing.assert_allclose(results.pop("losses"), losses, rtol=1e-10)
    assert {name.removeprefix("weights/") for name in results} == set(weights)
    for name, expected in weights.items():
        np.testing.assert_allclose(results[f"weights/{name}"], expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_membranes_of_other_libraries(python, tmp_path):
    results = in_torch(python, "membranes", tmp_path)
    names = [name for name in results if not name.endswith("expected")]
    assert len(names) == 8
    for name in names:
        np.testing.assert_allclose(results[name], results[f"{name} expected"], rtol=1e-12, err_msg=name)


def test_refusals(python, tmp_path):
    messages = {name: str(text) for name, text in in_torch(python, "refusals", tmp_path).items()}
    accepted = [name for name, text in messages.items() if text == "accepted"]
    assert not accepted
    assert "all values are 0 or 1" in messages["spikes"]
    assert "no such module; there are 0, 1, 2" in messages["no such module"]


def test_examples_of_docstrings(python):
    line = [python, "-m", "doctest", ROOT / "examples" / "torch" / "csbp_torch.py"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ["spikingjelly", "snntorch"])
def test_examples(python, library):
    """They train to far better than chance, without the term and with it."""
    script = pathlib.Path(ROOT, "examples", "torch", f"with_{library}.py")
    done = subprocess.run([python, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    accuracies = [float(word.rstrip("%,")) for word in done.stdout.split() if "%" in word]
    assert len(accuracies) == 2 and min(accuracies) > 90, done.stdout
