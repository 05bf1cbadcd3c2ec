"""The adaptive LIF of Baronig et al. and of Bittar and Garner against values in float64 from plain loops over time.

The values (tests/data/adlif.npz) agree with the authors' own modules; their layout is ``[T, B, N]``.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import neurons, surrogate
from csbp_jax.surrogate import Surrogate

VALUES = dict(np.load(pathlib.Path(__file__).parent.parent / "data" / "adlif.npz"))


def scaled_exponential(x, height, slope):
    """``c k/2 exp(-k |x|)``, the surrogate of Baronig et al."""
    return height * slope / 2 * jnp.exp(-slope * jnp.abs(x))


def batch_first(name):
    return np.moveaxis(VALUES[name], 0, 1)


def current_of(weights, bias=0.0):
    return batch_first("x") @ weights.T + bias


def baronig(constants):
    return neurons.AdLIF(
        decay=jnp.exp(-1 / constants["tau_u"]),
        adaptation_decay=jnp.exp(-1 / constants["tau_w"]),
        coupling=constants["a"],
        adaptation=constants["b"],
        spike=Surrogate(scaled_exponential, (0.4, 5.0)),
        detach_reset=True,
    ), None


def bittar(constants):
    u, w, s = (VALUES[f"bittar.{name}"] for name in ("u0", "w0", "s0"))
    first = constants["beta"] * w + constants["a"] * u + constants["b"] * s
    return neurons.AdLIF(
        decay=constants["alpha"],
        adaptation_decay=constants["beta"],
        coupling=constants["a"],
        adaptation=constants["b"],
        spike=surrogate.rectangle(1.0),
        form="bittar",
        reset="soft",
        detach_reset=False,
    ), neurons.AdaptiveState(u - s, first)


SOURCES = {
    "se_ff": (baronig, "baronig", ("W", "bias", "tau_u", "tau_w", "a", "b"), "u_before_reset"),
    "bg_adlif": (bittar, "bittar", ("W", "alpha", "beta", "a", "b"), "u"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_spikes_membranes_and_gradients_are_the_published_ones(x64, name):
    build, source, names, of_membrane = SOURCES[name]
    constants = {constant: VALUES[f"{source}.{constant}"] for constant in names}

    @jax.numpy_rank_promotion("allow")
    def loss(constants):
        neuron, state = build(constants)
        outputs = neuron.trace(current_of(constants["W"], constants.get("bias", 0.0)), state)
        return (batch_first("R") * outputs[0]).sum(), outputs

    gradient, (spikes, state, u) = jax.jit(jax.grad(loss, has_aux=True))(constants)
    assert (spikes == batch_first(f"{name}.spikes")).all() and 0.05 < spikes.mean() < 0.95
    np.testing.assert_allclose(u, batch_first(f"{name}.{of_membrane}"), rtol=1e-12, atol=1e-12)
    for constant in names:
        expected = VALUES[f"{name}.grad_{constant}"]
        np.testing.assert_allclose(gradient[constant], expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())
    if name == "se_ff":
        last = VALUES["se_ff.u"][-1], VALUES["se_ff.w"][-1]
        np.testing.assert_allclose(tuple(state), last, rtol=1e-12, atol=1e-12)


def test_spikes_are_the_same_in_float32():
    for build, source, names, _ in SOURCES.values():
        constants = {constant: np.float32(VALUES[f"{source}.{constant}"]) for constant in names}
        neuron, state = build(constants)
        current = current_of(constants["W"], constants.get("bias", np.float32(0))).astype(np.float32)
        spikes, _ = jax.jit(lambda neuron, current, state: neuron(current, state))(neuron, current, state)
        name = "se_ff" if source == "baronig" else "bg_adlif"
        assert (np.asarray(spikes) == batch_first(f"{name}.spikes")).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"form": "runge"}, "AdLIF: form is 'runge', but must be one of symplectic, euler, bittar"),
        ({"form": "bittar", "adaptation_scale": 60.0}, "AdLIF: the form bittar has no adaptation_scale"),
        ({"adaptation": -1.0}, "AdLIF: adaptation is -1.0, but must be 0 or more"),
        ({"adaptation_decay": 1.5}, "AdLIF: adaptation_decay is 1.5, but must be from 0 to 1"),
    ],
)
def test_impossible_constants_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        neurons.AdLIF(**options)(jnp.ones((1, 2, 3)))
