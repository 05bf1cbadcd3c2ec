"""Spiking transformers: sizes of the published networks, taps on every neuron, attention, thresholds, errors."""

import dataclasses
import functools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models, neurons
from csbp_jax.config import ConfigError, Neuron
from csbp_jax.models import attention, layers
from csbp_jax.models.base import Network
from csbp_jax.models.qkformer import QKFormer
from csbp_jax.neurons.plif import PLIF, Scaled
from csbp_jax.neurons.psn import SlidingPSN
from experiments.parity import cases

# Network, options, its parameters, those that the authors' code registers besides and never calls, and the millions
# that the article prints.
LAYER_NORMS = 4  # two per block, times the channels
PUBLISHED = [
    ("spikformer_cifar", {"embed": 256, "heads": 8}, 4_155_178, 4 * LAYER_NORMS * 256, "4.15"),
    ("spikformer_cifar", {"depth": 2}, 5_765_050, 2 * LAYER_NORMS * 384, "5.76"),
    ("spikformer_cifar", {}, 9_324_730, 4 * LAYER_NORMS * 384, "9.32"),
    ("spikformer_imagenet", {"embed": 384}, 16_816_024, 8 * LAYER_NORMS * 384, "16.81"),
    ("spikformer_imagenet", {"depth": 6}, 23_373_352, 6 * LAYER_NORMS * 512, "23.37"),
    ("spikformer_imagenet", {}, 29_689_384, 8 * LAYER_NORMS * 512, "29.68"),
    ("spikformer_imagenet", {"depth": 10}, 36_005_416, 10 * LAYER_NORMS * 512, "36.01"),
    ("spikformer_imagenet", {"embed": 768}, 66_338_632, 8 * LAYER_NORMS * 768, "66.34"),
    ("spikformer_dvs", {}, 2_566_666, 2 * LAYER_NORMS * 256, "2.57"),
    # With the layer norm and the position embedding of 64 tokens that its code also registers.
    ("spikformer_dvs", {}, 2_566_666, 2 * LAYER_NORMS * 256 + 2 * 256 + 64 * 256, "2.59"),
    ("sdt_cifar", {}, 10_279_588, 2 * 8 * 8, "10.28"),
    ("sdt_imagenet", {"embed": 384}, 16_816_024, 8 * 8 * 8, "16.81"),
    ("sdt_imagenet", {}, 29_689_384, 8 * 8 * 8, "29.68"),
    ("sdt_imagenet", {"embed": 768}, 66_338_632, 8 * 8 * 8, "66.34"),
    ("sdt_dvs", {}, 2_566_666, 2 * 8 * 8, "2.57"),
    ("qkformer_cifar", {}, 6_740_884, 0, "6.74"),
    ("qkformer_imagenet", {"embed": 384, "heads": 6}, 16_473_688, 0, "16.47"),
    ("qkformer_imagenet", {}, 29_079_336, 0, "29.08"),
    ("qkformer_imagenet", {"embed": 768, "heads": 12}, 64_962_760, 0, "64.96"),
    ("qkformer_dvs", {}, 1_504_138, 0, "1.50"),
]
NEURONS = {
    "spikformer_cifar": 5 + 7 * 4,
    "spikformer_imagenet": 5 + 7 * 8,
    "spikformer_dvs": 5 + 7 * 2,
    "sdt_cifar": 4 + 7 * 2 + 1,
    "sdt_imagenet": 4 + 7 * 8 + 1,
    "sdt_dvs": 4 + 7 * 2 + 1,
    "qkformer_cifar": 3 + 6 + 3 + 6 + 3 + 7 * 2,
    "qkformer_imagenet": 4 + 6 + 3 + 6 * 2 + 3 + 7 * 7,
    "qkformer_dvs": 5 + 6 + 3 + 7,
}
SIZES = json.loads((pathlib.Path(__file__).parents[1] / "data" / "parity_sizes.json").read_text())


def shapes_of(model, size=None):
    """Trace a network on one example: ``(Aux, variables)``, as shapes."""
    height, width, channels = model.input_shape if size is None else (size, size, model.input_shape[-1])
    x = jax.ShapeDtypeStruct((1, 1 if channels == 3 else 2, height, width, channels), jnp.float32)
    network = models.build(model)
    (_, aux), variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), x)
    return aux, variables


@pytest.mark.parametrize(
    ("name", "options", "parameters", "uncalled", "printed"),
    [pytest.param(*row, marks=pytest.mark.slow if row[1] and "imagenet" in row[0] else ()) for row in PUBLISHED],
)
def test_parameters_are_those_that_the_article_counts(name, options, parameters, uncalled, printed):
    if options:
        _, variables = shapes_of(dataclasses.replace(cases.ORIGINALS[name], **options))
        counted = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    else:
        counted = SIZES[name]["parameters"]  # test_parity.py compares it with the network's
    assert counted == parameters
    # The articles round some numbers and cut others; "2.59" alone has what is never called.
    count = parameters + uncalled if printed == "2.59" else parameters
    assert float(printed) in (round(count / 1e6, 2), math.floor(count / 1e4) / 100)


def documented():
    """The rows of docs/weights.md on numbers of parameters: ``(network, options, count, printed millions)``."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    for name, options, count, printed in re.findall(
        r"^\| `(\w+)` \|(.*?)\| ([\d,]+) \| ([\d.]+).*\|$", text, re.MULTILINE
    ):
        fields = {field: int(value) for field, value in re.findall(r"--model\.(\w+) (\d+)", options)}
        fields |= {"classes": 100} if "100 classes" in options else {}
        yield name, fields, int(count.replace(",", "")), float(printed)
    sentence = text.partition("The counts of the convolutional networks")[2].partition("For PLIF")[0]
    for name, count, printed in re.findall(r"`(\w+)` ([\d,]+)\s+\(([\d.]+)\)", sentence):
        yield name, {}, int(count.replace(",", "")), float(printed)


@pytest.mark.slow
def test_the_documented_numbers_of_parameters_are_those_of_the_networks():
    rows = list(documented())
    assert len(rows) == 17
    for name, options, count, printed in rows:
        _, variables = shapes_of(dataclasses.replace(cases.ORIGINALS[name], **options))
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count, name
        assert printed in (round(count / 1e6, 2), math.floor(count / 1e4) / 100), name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name.endswith("dvs") else pytest.mark.full) for name in NEURONS]
)
def test_every_neuron_can_be_tapped(name):
    aux, variables = shapes_of(cases.ORIGINALS[name], size=32)
    spiking = [tap.removesuffix(".membrane") for tap in aux.names if tap.endswith(".membrane")]
    assert len(set(spiking)) == len(spiking) == len(aux.rates) == NEURONS[name]
    assert set(variables["params"]) <= {tap.partition(".")[0] for tap in aux.names}


def spikes(*shape):
    return (np.random.default_rng(0).random(shape) < 0.4).astype(np.float32)


def test_attention_is_q_times_k_transposed_times_v_of_each_head():
    q, k, v = spikes(3, 2, 4, 3, 5, 6)
    expected = np.zeros((2, 4, 15, 6))
    for b, t, h in np.ndindex(2, 4, 2):
        head = [x[b, t].reshape(15, 6)[:, 3 * h : 3 * h + 3] for x in (q, k, v)]
        expected[b, t, :, 3 * h : 3 * h + 3] = head[0] @ head[1].T @ head[2]
    for dtype in (jnp.float32, jnp.bfloat16):
        arrays = [x.astype(dtype) for x in (q, k, v)]
        out = jax.jit(functools.partial(attention.self_attention, heads=2))(*arrays)
        assert out.dtype == jnp.float32
        np.testing.assert_array_equal(out.reshape(expected.shape), expected)


def test_the_stem_of_a_qkformer_adds_the_spikes_of_its_branches():
    class Stem(QKFormer):
        def body(self, x, train, run):
            return self.first_patches(x, 8, run)

    x = np.random.default_rng(0).normal(size=(4, 2, 8, 8, 3)).astype(np.float32)
    (spikes, _), _ = jax.jit(lambda x: Stem(time_steps=2).init_with_output(jax.random.key(1), x, True))(x)
    assert np.unique(spikes).tolist() == [0, 1, 2]


def test_the_threshold_of_any_neuron_can_be_scaled():
    def custom(x, membrane=None):
        return x, x[:, -1]

    custom.threshold = 0.8  # type: ignore[attr-defined]  # as an object of a user's own class may have one
    lif, scaled = neurons.LIF(0.5, 0.8), Scaled(neurons.LIF(0.5, 0.8), 0.5)
    assert layers.scale_threshold(lif, 1.0) is lif and layers.scale_threshold(custom, 0.5) is custom
    for neuron in (lif, scaled, PLIF(threshold=0.8), neurons.ALIF(threshold=0.8), neurons.CuBaLIF(threshold=0.8)):
        assert layers.scale_threshold(neuron, 0.5).threshold == 0.4
    assert layers.scale_threshold(scaled, 0.5).gain == 0.5
    assert [attention.thresholds_of(f"block1_{layer}") for layer in ("attention", "q")] == [0.5, 1.0]


@pytest.mark.parametrize(("neuron", "current"), [(PLIF(decay=0.5), 1.5), (SlidingPSN(order=1), 0.75)])
def test_a_layer_scales_the_threshold_of_a_neuron_with_parameters(neuron, current):
    class Both(Network):
        def body(self, x, train, run):
            return run(layers.Spike(threshold=0.5, name="half"), x) - run(layers.Spike(name="full"), x)

    network = Both(neuron=neuron)
    (difference, _), _ = jax.jit(network.init_with_output)(jax.random.key(0), np.full((1, 1, 1), current, np.float32))
    assert difference.item() == 1  # its membrane is 0.75


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spikformer_cifar", {"heads": 2, "depth": 1}),
        ("qkformer_cifar", {"heads": 2, "depth": 3}),
        ("sdt_cifar", {"depth": 1}),
    ],
)
def test_every_neuron_of_a_transformer_may_have_parameters(name, options):
    neuron = Neuron(decay=0.5, learn="layer")
    aux, variables = shapes_of(dataclasses.replace(cases.ORIGINALS[name], embed=32, neuron=neuron, **options), size=16)
    assert {layer for layer, params in variables["params"].items() if "neuron" in params} == set(aux.rates)


@functools.cache
def small(name, **options):
    """A published network with few channels, its variables as in the parity cases, and an input."""
    config = dataclasses.replace(cases.CASES[name].model, time_steps=2)
    config = dataclasses.replace(config, neuron=dataclasses.replace(config.neuron, **options))
    network = models.build(config)
    x = jnp.asarray(cases.batch(dataclasses.replace(cases.CASES[name], model=config), 0)["x"], jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), x)

    def draw(path, leaf):
        drawn = cases.draw(jax.tree_util.keystr(path[1:], simple=True, separator="/"), leaf.shape)
        return jnp.asarray(drawn, jnp.float32)

    return network, jax.tree_util.tree_map_with_path(draw, shapes), x


def logits_of(name, select, **options):
    network, variables, x = small(name, **options)
    return np.asarray(jax.jit(lambda v, x: network.apply(v, x)[0])(variables, x[select]))


@pytest.mark.slow
def test_the_logits_of_an_example_do_not_depend_on_the_others_of_its_batch():
    together = logits_of("qkformer_dvs", slice(None))
    assert np.ptp(together, 0).max() > 0.01
    alone = [logits_of("qkformer_dvs", slice(n, n + 1)) for n in range(len(together))]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_ties_decide_the_logits_of_a_transformer():
    fire, silent = (logits_of("qkformer_dvs", slice(None), at_threshold=tie) for tie in ("fire", "silent"))
    assert np.abs(fire - silent).max() > 0.01


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spikformer_cifar", {"embed": 100}, "model.embed: 100 is not possible; allowed are multiples of 8 and of 12"),
        ("sdt_cifar", {"embed": 100}, "model.embed: 100 is not possible; allowed are multiples of 8"),
        ("qkformer_cifar", {"embed": 40}, "model.embed: 40 is not possible; allowed are multiples of 8 and of 32"),
        ("qkformer_imagenet", {"depth": 3}, "model.depth: 3 is not possible; allowed is above 3 in this network"),
        ("sdt_cifar", {"heads": 4}, "model.heads: sdt_cifar has no such option; leave it at None"),
        ("qkformer_cifar", {"patch": 4}, "model.patch: qkformer_cifar has no such option; leave it at None"),
        ("spikformer_cifar", {"width": 0.5}, "model.width: spikformer_cifar has no such option; leave it at None"),
    ],
)
def test_impossible_sizes_are_errors(name, options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        shapes_of(dataclasses.replace(cases.ORIGINALS[name], **options), size=32)


@pytest.mark.slow
def test_the_weights_of_blocks_begin_as_in_the_originals():
    def params_of(name):
        network = models.build(dataclasses.replace(cases.CASES[name].model, depth=1, embed=96, heads=None))
        init = jax.jit(lambda x: network.init(jax.random.key(0), x)["params"])
        return init(jnp.zeros((1, 3, 16, 16, network_channels(name))))

    def network_channels(name):
        return cases.CASES[name].model.input_shape[-1]

    cifar, dvs = params_of("spikformer_cifar"), params_of("spikformer_dvs")
    assert abs(cifar["block1_mlp1"]["dense"]["kernel"].std() - 0.02) < 5e-4
    assert not cifar["block1_q"]["dense"]["bias"].any() and not cifar["readout"]["dense"]["bias"].any()
    bound = 1 / math.sqrt(96)
    for kind, parameter in dvs["block1_mlp1"]["dense"].items():
        assert 0.95 * bound < abs(parameter).max() <= bound, kind
    assert "bias" not in dvs["block1_q"]["dense"] and abs(dvs["readout"]["dense"]["kernel"].std() - 0.02) < 2e-3
