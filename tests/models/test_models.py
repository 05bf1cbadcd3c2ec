"""Layers and networks: shapes, taps, inspection, static input, norm over batch and time."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import chaos, models, neurons, surrogate
from csbp_jax.config import ConfigError, Model, Neuron
from csbp_jax.models import layers
from csbp_jax.models.basic import Dense
from csbp_jax.neurons import psn
from csbp_jax.neurons.plif import PLIF, Scaled

B, T = 6, 3
MODELS = {
    "small_conv": Model(name="small_conv", input_shape=(8, 8, 2), classes=5, time_steps=T, features=(4, 6)),
    "dense": Model(name="dense", input_shape=(8, 8, 2), classes=5, time_steps=T, features=(7, 6)),
    "recurrent": Model(name="recurrent", input_shape=(8, 8, 2), classes=5, time_steps=T, features=(7, 6)),
}
NAMES = pytest.mark.parametrize("name", MODELS)


@functools.cache
def setup(name):
    model = models.build(MODELS[name])
    x = np.random.default_rng(1).normal(size=(B, T, 8, 8, 2)).astype(np.float32)
    return model, jax.jit(lambda x: model.init(jax.random.key(0), x))(x), x


def first_layer(name):
    return {"small_conv": "conv1", "dense": "fc1", "recurrent": "rec1"}[name]


@NAMES
def test_logits_and_rates(name):
    model, variables, x = setup(name)
    logits, aux = jax.jit(lambda v, x: model.apply(v, x, False))(variables, x)
    chex.assert_shape(logits, (B, T, 5))
    assert len(aux.rates) == 2 and all(0 <= float(rate) <= 1 for rate in aux.rates.values())
    assert aux.terms == aux.spikes == aux.membranes == {}


@pytest.mark.parametrize("name", ["small_conv", "recurrent", pytest.param("dense", marks=pytest.mark.slow)])
def test_a_static_input_equals_its_repetition(name):
    model, variables, x = setup(name)
    x = x[:, :1]
    apply = jax.jit(lambda x: model.apply(variables, x, True, mutable=["batch_stats"]))
    (still, _), (repeated, _) = apply(x), apply(np.repeat(x, T, axis=1))
    chex.assert_trees_all_close(still, repeated, atol=1e-5)


@NAMES
def test_norm_takes_its_statistics_over_batch_and_time(name):
    model, variables, x = setup(name)
    layer = first_layer(name)
    tap = f"{layer}.{'conv' if name == 'small_conv' else 'dense'}"
    options = {"tap": lambda h: h, "taps": (tap,), "mutable": ["batch_stats"]}
    (_, aux), mutated = jax.jit(lambda v, x: model.apply(v, x, True, **options))(variables, x)
    h = np.asarray(aux.terms[tap])
    axes = tuple(range(h.ndim - 1))
    running = mutated["batch_stats"][layer]["norm"]
    np.testing.assert_allclose(running["mean"], 0.1 * h.mean(axes), atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * h.var(axes, ddof=1), rtol=1e-4)


@NAMES
def test_every_named_tensor_can_be_tapped(name):
    model, variables, x = setup(name)
    _, aux = jax.eval_shape(lambda v, x: model.apply(v, x, False), variables, x)
    assert len(aux.names) == 8
    _, tapped = jax.jit(lambda x: model.apply(variables, x, False, taps=aux.names))(x)
    assert set(tapped.terms) == set(aux.names)
    chex.assert_tree_all_finite(tapped.terms)


@pytest.mark.parametrize("name", ["small_conv", "dense"])
def test_terms_are_computed_from_the_tensors_that_they_name(name):
    model, variables, x = setup(name)
    layer = first_layer(name)
    taps = (f"{layer}.norm", f"{layer}.membrane", f"{layer}.membrane_pre")
    logits, aux = jax.jit(lambda v, x: model.apply(v, x, False, taps=taps, inspect=(layer,)))(variables, x)
    pre = np.asarray(aux.membranes[layer])
    chex.assert_equal_shape([pre, aux.spikes[layer]])
    np.testing.assert_array_equal(aux.spikes[layer], pre > 1)
    after = np.where(pre > 1, 0, pre)
    current = pre - 0.25 * np.concatenate([np.zeros_like(pre[:, :1]), after[:, :-1]], axis=1)
    tensors = {"membrane_pre": pre, "membrane": after[:, -1], "norm": current}
    expected = jax.jit(lambda tensors: jax.tree.map(chaos.term, tensors))(tensors)
    for tensor, term in expected.items():
        np.testing.assert_allclose(aux.terms[f"{layer}.{tensor}"], term, rtol=1e-5)
    np.testing.assert_allclose(aux.rates[layer], np.mean(aux.spikes[layer]), rtol=1e-6)
    plain, _ = jax.jit(lambda v, x: model.apply(v, x, False))(variables, x)
    chex.assert_trees_all_equal(logits, plain)


def test_a_layer_that_is_called_twice_has_the_terms_and_rates_of_both_calls():
    class Twice(Dense):
        def body(self, x, train, run):
            layer = self.spiking(layers.Dense)(x.shape[-1], name="fc1")
            return nn.Dense(self.classes, name="readout")(run(layer, run(layer, x)))

    network: Any = Twice(classes=3, time_steps=4, norm="none")
    x = np.random.default_rng(1).normal(0, 3, (2, 4, 6)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def recorded(values, value):
        values.append(value)
        return value

    @jax.jit
    def run(variables, x):
        terms: list[Any] = []
        outputs: list[Any] = []
        _, aux = network.apply(
            variables,
            x,
            taps=("fc1.dense",),
            tap=lambda h: recorded(terms, chaos.term(h)),
            neuron=lambda h: recorded(outputs, network.neuron(h)),
        )
        return aux, terms, outputs

    aux, terms, outputs = run(variables, x)
    assert len(terms) == len(outputs) == 2
    np.testing.assert_allclose(aux.terms["fc1.dense"], sum(terms), rtol=1e-6)
    np.testing.assert_allclose(aux.rates["fc1"], np.mean([np.asarray(spikes) for spikes, _ in outputs]), rtol=1e-6)
    with pytest.raises(ConfigError, match=r"stream: not possible .* layer fc1 is called more than once; apply it to"):
        jax.eval_shape(lambda variables, x: models.stream(network, variables, x), variables, x)


@pytest.mark.parametrize(
    "name", ["small_conv", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dense", "recurrent"))]
)
def test_unused_outputs_add_nothing_to_the_program(name):
    model, variables, x = setup(name)

    def memory(**options):
        compiled = jax.jit(lambda v, x: model.apply(v, x, False, **options)[0]).lower(variables, x).compile()
        text, analysis = compiled.as_text(), compiled.memory_analysis()
        assert text and analysis
        return text.count("fusion("), analysis.temp_size_in_bytes

    # With nothing read from aux, the compiled program is that of the logits alone, tapped or not.
    assert memory() == memory(taps=(f"{first_layer(name)}.norm",))


def test_a_tapped_float16_layer_is_an_error():
    model, variables, x = setup("dense")
    half = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float16), (variables, x))
    jax.eval_shape(lambda v, x: model.apply(v, x, False), *half)
    with pytest.raises(TypeError, match="fc1 computes in float16 and is tapped; use bfloat16 or float32"):
        jax.eval_shape(lambda v, x: model.apply(v, x, False, taps=("fc1.membrane",)), *half)


def test_unknown_names_are_errors_that_list_the_known_ones():
    model, variables, x = setup("dense")
    with pytest.raises(ConfigError, match=r"chaos.taps.*no fc1.conv; it has fc1.dense, fc1.norm, fc1.membrane"):
        jax.eval_shape(lambda v, x: model.apply(v, x, False, taps=("fc1.conv",)), variables, x)
    with pytest.raises(ConfigError, match=r"inspect.*no fc9; it has fc1, fc2"):
        jax.eval_shape(lambda v, x: model.apply(v, x, False, inspect=("fc9",)), variables, x)


def test_any_neuron_function_can_be_used_but_only_one_with_trace_gives_membranes_at_every_step():
    model, variables, x = setup("dense")

    def relu(x, membrane=None):
        return jax.nn.relu(x), x[:, -1]

    def apply(taps):
        return lambda v, x: model.apply(v, x, False, neuron=relu, taps=taps, inspect=("fc1",))

    logits, aux = jax.jit(apply(("fc1.membrane",)))(variables, x)
    chex.assert_tree_all_finite((logits, aux.terms))
    np.testing.assert_allclose(aux.spikes["fc1"].mean(), aux.rates["fc1"], rtol=1e-6)
    assert set(aux.spikes) == {"fc1"} and aux.membranes == {}
    with pytest.raises(ConfigError, match="has no method trace"):
        jax.eval_shape(apply(("fc1.membrane_pre",)), variables, x)


SHARED: dict[str, Any] = {
    "decay": 0.4,
    "threshold": 0.7,
    "reset": "soft",
    "detach_reset": True,
    "at_threshold": "fire",
}
NEURONS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (neurons.LIF, {}, SHARED),
    (neurons.CuBaLIF, {"name": "cuba"}, SHARED | {"synapse_decay": 0.3}),
    (neurons.ALIF, {"name": "alif"}, SHARED | {"adaptation": 0.1, "adaptation_decay": 0.6}),
    (
        neurons.AdLIF,
        {"name": "adlif"},
        SHARED
        | {"adaptation": 0.1, "adaptation_decay": 0.6, "coupling": 0.2, "form": "euler", "adaptation_scale": 9.0},
    ),
    (neurons.CLIF, {"name": "clif"}, SHARED | {"reset": None}),
    (neurons.ILIF, {"name": "ilif"}, SHARED | {"reset": None, "levels": 7}),
    (psn.PSN, {"name": "psn"}, {"threshold": 0.7, "at_threshold": "fire", "time_steps": 5}),
    (psn.MaskedPSN, {"name": "masked_psn"}, {"threshold": 0.7, "at_threshold": "fire", "time_steps": 5, "order": 3}),
    (psn.SlidingPSN, {"name": "sliding_psn"}, {"threshold": 0.7, "at_threshold": "fire", "order": 3}),
    (PLIF, {"learn": "layer"}, SHARED | {"per_channel": False}),
    (PLIF, {"learn": "channel"}, SHARED | {"per_channel": True}),
]


@pytest.mark.parametrize(("kind", "fields", "expected"), NEURONS)
def test_the_config_names_the_neuron_and_its_constants(kind, fields, expected):
    others: dict[str, Any] = {"synapse_decay": 0.3, "adaptation": 0.1, "adaptation_decay": 0.6, "levels": 7, "order": 3}
    others |= {"coupling": 0.2, "form": "euler", "adaptation_scale": 9.0}
    config = Neuron(**SHARED, **others, **fields, surrogate="arctan", surrogate_param=3.0)
    neuron: Any = models.neuron(config, time_steps=5)
    assert type(neuron) is kind
    assert {name: getattr(neuron, name, None) for name in expected} == expected
    assert kind is neurons.ILIF or neuron.spike == surrogate.arctan(3.0)


def test_the_config_scales_the_input_and_lets_neurons_fire_at_their_threshold():
    x = np.array([[2, 0, 1.5, 2]], np.float32)
    lif = models.neuron(Neuron(decay=0.5, scale_input=True, at_threshold="fire"))
    plif = models.neuron(Neuron(decay=0.5, learn="layer", at_threshold="fire"))
    assert isinstance(lif, Scaled) and isinstance(plif, PLIF) and lif.threshold == 1.0
    strict = models.neuron(Neuron(decay=0.5, scale_input=True))
    assert isinstance(strict, Scaled)

    @jax.jit
    def spikes(x):
        return lif(x)[0], plif.init_with_output(jax.random.key(0), 1)[0](x)[0], strict(x)[0]

    assert [s.tolist() for s in spikes(x)] == [[[1, 0, 0, 1]], [[1, 0, 0, 1]], [[0, 0, 0, 1]]]
