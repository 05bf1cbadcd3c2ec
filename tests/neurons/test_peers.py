"""docs/neurons.md against the numbers of the libraries it speaks of, made by their own code."""

import json
import pathlib
import re
from unittest import mock

import jax
import numpy as np
import pytest

DATA = pathlib.Path(__file__).parents[1] / "data" / "peers.npz"
DOCS = (DATA.parent.parent.parent / "docs" / "neurons.md").read_text()
with np.load(DATA) as arrays:
    REFERENCE = dict(arrays)
with np.load(DATA.with_name("peers_states.npz")) as arrays:
    STATES = dict(arrays)
INFO = json.loads(str(REFERENCE["info"]))
OF_STATES = json.loads(str(STATES["info"]))
FLOAT32_SPIKES = ("snntorch", "sinabs")
FIRES_AT_THRESHOLD = ("spikingjelly", "sinabs")


def page():
    """What the Python of docs/neurons.md defines."""
    names = {"__name__": "neurons"}
    for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(compile(block, "docs/neurons.md", "exec"), names)
    return names


PAGE = page()


def cases(kind, info=INFO):
    """All cases of a kind; the first of each function of the page is run by ``make test``."""
    names = [name for name, _ in info[kind]]
    return pytest.mark.parametrize(
        "n, name, arguments",
        [
            pytest.param(n, *case, id=f"{n}-{case[0]}", marks=[pytest.mark.full] * (case[0] in names[:n]))
            for n, case in enumerate(info[kind])
        ],
    )


def run(name, arguments, x, upstream):
    """``(spikes, state, gradient)`` of the page's function of that name."""

    def loss(x):
        spikes, state = PAGE[name](x, **arguments)
        return (upstream * spikes).sum(), (spikes, state)

    gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(x)
    return (*outputs, gradient)


def assert_close(actual, expected, name):
    tolerance = 1e-6 if name.startswith(FLOAT32_SPIKES) else 1e-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@cases("cases")
def test_spikes_membrane_and_gradient_are_those_of_the_library(x64, n, name, arguments):
    spikes, state, gradient = run(name, arguments, REFERENCE["x"][n], REFERENCE["upstream"])
    np.testing.assert_array_equal(spikes, REFERENCE["spikes"][n])
    assert_close(state, REFERENCE["state"][n], name)
    assert_close(gradient, REFERENCE["gradient"][n], name)
    assert 0.1 < spikes.mean() < 0.9


@cases("cases", OF_STATES)
def test_states_and_the_gradient_of_other_neurons_are_those_of_the_library(x64, n, name, arguments):
    spikes, states, gradient = run(name, arguments, STATES[f"{n}.x"], STATES["upstream"])
    np.testing.assert_array_equal(spikes, STATES[f"{n}.spikes"])
    for state, expected in zip(states, STATES[f"{n}.states"], strict=True):
        assert_close(state, expected, name)
    assert_close(gradient, STATES[f"{n}.gradient"], name)
    assert 0.1 < spikes.mean() < 1.1


@cases("exact")
def test_exactly_at_the_threshold_a_library_fires_as_the_page_says(x64, n, name, arguments):
    x, expected = REFERENCE["exact.x"][n], REFERENCE["exact.spikes"][n]

    def spikes(x):
        return PAGE[name](x, **arguments)[0]

    np.testing.assert_array_equal(jax.jit(spikes)(x), expected)
    lif = PAGE["lif"]
    with mock.patch.dict(PAGE, {"lif": lambda *args, **options: lif(*args, **options | {"at_threshold": "silent"})}):
        silent = jax.jit(lambda x: spikes(x))(x)
    assert np.array_equal(silent, expected) != name.startswith(FIRES_AT_THRESHOLD)


@cases("other")
def test_what_the_page_calls_inexpressible_differs(x64, n, name, arguments):
    arguments = {key: value for key, value in arguments.items() if key != "spike_fn"}
    spikes, _ = jax.jit(lambda x: PAGE[name](x, **arguments))(REFERENCE["other.x"][n])
    assert (np.asarray(spikes) != REFERENCE["other.spikes"][n]).any()


def test_neurons_that_never_have_two_spikes_to_give_are_the_same(x64):
    (name, arguments), x, counts = (
        table[0] for table in (INFO["other"], REFERENCE["other.x"], REFERENCE["other.spikes"])
    )
    single = counts.max(axis=1) <= 1
    arguments = arguments.copy()
    assert arguments.pop("spike_fn") == "MultiSpike" and 0 < single.sum() < len(single)
    spikes = np.asarray(jax.jit(lambda x: PAGE[name](x, **arguments)[0])(x))
    np.testing.assert_array_equal(spikes[single], counts[single])


@pytest.mark.parametrize("name", PAGE["SURROGATES"])
def test_derivative_of_a_surrogate_is_that_of_the_library(x64, name):
    derivative = jax.jit(PAGE["SURROGATES"][name].derivative)(REFERENCE["surrogate.x"])
    rtol = 1e-7 if name.startswith("norse heavi_erfc") else 1e-12  # its root of pi is a float32
    np.testing.assert_allclose(derivative, REFERENCE[f"surrogate.{name}"], rtol=rtol, atol=1e-15)


def test_every_reference_is_used_and_every_version_named():
    labels = {key.removeprefix("surrogate.") for key in REFERENCE if key.startswith("surrogate.")} - {"x"}
    assert labels == set(PAGE["SURROGATES"])
    assert OF_STATES["versions"] == INFO["versions"]
    versions = {name: version for name, version in INFO["versions"].items() if name != "torch"}
    assert all(f"{name} {version}" in DOCS.lower() for name, version in versions.items())
