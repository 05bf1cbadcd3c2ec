"""Networks of the literature: tangent map of their training step, taps, dropout, options, errors."""

import dataclasses
import functools
from typing import Any, get_args, get_type_hints

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from csbp_jax import learner, losses, models, neurons
from csbp_jax.config import Chaos, Config, ConfigError, Model, Neuron, Optimizer
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.learner import optimizer
from csbp_jax.models import graph, layers
from csbp_jax.surrogate import triangle
from experiments.parity import cases

PLIF = Neuron(decay=0.5, surrogate="arctan", surrogate_param=2.0, detach_reset=True, learn="layer")
SMALL = Model(name="small_conv", input_shape=(4, 4, 2), classes=3, time_steps=3, features=(5, 4))
TANGENT = {
    "tebn": (dataclasses.replace(SMALL, norm="tebn"), "conv1.norm"),
    "bntt": (dataclasses.replace(SMALL, norm="bntt"), "conv1.membrane"),
    "plif": (dataclasses.replace(SMALL, neuron=PLIF, features=(5,)), "conv1.membrane"),
    "plif_per_channel": (
        dataclasses.replace(SMALL, neuron=dataclasses.replace(PLIF, learn="channel")),
        "conv2.membrane_pre",
    ),
    "recurrent": (dataclasses.replace(SMALL, name="recurrent"), "rec1.membrane"),
    **{
        name: (dataclasses.replace(SMALL, neuron=dataclasses.replace(PLIF, name=name, learn="none")), "conv1.membrane")
        for name in get_args(get_type_hints(Neuron)["name"])
    },
    "recurrent_alif": (
        dataclasses.replace(SMALL, name="recurrent", neuron=Neuron(name="alif", reset="soft")),
        "rec1.membrane_pre",
    ),
    "max_pool": (dataclasses.replace(SMALL, name="sew_7b", features=None, neuron=PLIF), "conv1.norm"),
}
FAST = ("plif",)


def make(model, tap):
    """The learner's functions; a 7B-Net is cut to two stages."""
    config = Config(
        model=model,
        chaos=Chaos(z0=(3.0,), taps=(tap,), scale=1.0),
        optimizer=Optimizer(name="sgd", lr=0.1, weight_decay=1e-3, schedule="constant"),
    )
    tx = optimizer.build(config.optimizer, epochs=1, steps_per_epoch=1)
    network = models.build(model)
    if model.name == "sew_7b":
        network = network.copy(stages=(2, 2))
    return learner.make(network, tx, losses.rate_cross_entropy, config, 1)


@pytest.mark.full
@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in TANGENT])
def test_tangent_map_of_a_training_step_equals_central_differences(x64, case):
    model, tap = TANGENT[case]
    init, train_step, _ = make(model, tap)
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 1, (4, model.time_steps, *model.input_shape))
    data = {"x": jnp.asarray(x), "y": jnp.asarray(rng.integers(0, 3, 4))}
    state = to_default_precision(jax.jit(init)(jax.random.key(0)))
    flat, unravel = ravel_pytree((state.params, state.opt_state[1]))

    def step(flat):
        params, moments = unravel(flat)
        opt_state = (state.opt_state[0], moments, *state.opt_state[2:])
        after, _ = train_step(state.replace(params=params, opt_state=opt_state), data)
        return ravel_pytree((after.params, after.opt_state[1]))[0]

    compiled = jax.jit(step)
    start = np.asarray(compiled(flat))  # with moments other than 0
    v = rng.normal(size=start.shape)
    v, h = v / np.linalg.norm(v), 1e-7
    tangent = jax.jit(lambda x, v: jax.jvp(step, (x,), (v,))[1])(start, v)
    reference = (np.asarray(compiled(start + h * v)) - np.asarray(compiled(start - h * v))) / (2 * h)
    assert np.linalg.norm(tangent - v) > 0.1
    assert np.linalg.norm(tangent - reference) / np.linalg.norm(reference) < 1e-6


def small(name, **options):
    """A published network at its full depth and smallest width."""
    return dataclasses.replace(cases.ORIGINALS[name], width=1 / 64, **options)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["cnn6", "resnet19_tebn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cnn7", "vgg9"))]
)
def test_published_networks_with_dropout_need_a_key_in_training_only(name):
    config = small(name)
    model, x = models.build(config), jnp.ones((2, config.time_steps, *config.input_shape))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    jax.eval_shape(lambda v, x: model.apply(v, x, False), variables, x)
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        jax.eval_shape(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]), variables, x)


def test_dropout_is_drawn_from_the_key_and_in_training_only():
    model = models.build(Model("small_conv", (4, 4, 2), features=(8,), time_steps=2, dropout=0.5))
    x = np.random.default_rng(1).normal(size=(2, 2, 4, 4, 2)).astype(np.float32)
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x))(x)

    @jax.jit
    def train(variables, key):
        (logits, _), _ = model.apply(variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"])
        return logits

    first, again, other = (train(variables, jax.random.key(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    # Without a key: an error where one is needed.
    jax.eval_shape(lambda variables: model.apply(variables, x, False), variables)


DROPPED = {"sew_7b": "block2_conv2", "sew_resnet18": "stage4_block2_conv2", "resnet19_tet": "stage3_block2_conv2"}


@pytest.mark.full
@pytest.mark.parametrize("name", [n if n == "sew_7b" else pytest.param(n, marks=pytest.mark.slow) for n in DROPPED])
def test_a_dropped_block_passes_on_its_shortcut(name, monkeypatch):
    """Dropped in nearly every example, the last block equals one whose last norm outputs 0."""
    plain = models.build(small(name, time_steps=2, input_shape=(16, 16, 2)))
    plain = plain.copy(stages=(3, 3)) if name == "sew_7b" else plain
    plain = plain.copy(width=1 / 8 if name != "sew_7b" else 1.0)
    x = jax.random.normal(jax.random.key(1), (2, 2, 16, 16, 2)) + 1
    shapes = jax.eval_shape(lambda x: plain.init(jax.random.key(0), x), x)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: cases.draw(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape), shapes
    )
    zeros = jax.tree.map(jnp.zeros_like, variables["params"][DROPPED[name]]["norm"])
    layer = variables["params"][DROPPED[name]] | {"norm": zeros}
    silent = variables | {"params": variables["params"] | {DROPPED[name]: layer}}

    def logits(model, variables):
        @jax.jit
        def train(variables):
            rngs = {"dropout": jax.random.key(0)}
            return model.apply(variables, x, True, rngs=rngs, mutable=["batch_stats"])[0][0]

        return train(variables)

    expected = logits(plain, silent)
    monkeypatch.setattr(layers, "drop_path_rates", lambda rate, blocks: (0.0,) * (blocks - 1) + (rate,))
    dropped = logits(plain.copy(drop_path=1 - 1e-7), variables)
    np.testing.assert_allclose(dropped, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(dropped - logits(plain, variables)).max() > 1e-3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model("cnn7", dropout=0.1, features=(3,)), "model.features: cnn7 has no such option; leave it at None"),
        (Model("small_conv", width=0.5), "model.width: small_conv has no such option; leave it at None"),
        (Model("vgg9", drop_path=0.5), "model.drop_path: vgg9 has no such option; leave it at None"),
        (Model("sew_resnet18", dropout=0.5), "model.dropout: sew_resnet18 has no such option; leave it at None"),
        (Model("resnet19_tet", connect="and"), "model.connect: resnet19_tet has no such option; leave it at None"),
        (Model("cnn7", (9,)), r"model.input_shape: \(9,\) is not possible; cnn7 takes \(height, width, channels\)"),
    ],
)
def test_an_option_that_a_network_lacks_is_an_error(model, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        models.build(model)


def test_a_traced_neuron_replaces_learned_ones():
    model = models.build(dataclasses.replace(SMALL, neuron=PLIF))
    x = np.random.default_rng(1).normal(size=(4, 3, 4, 4, 2)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    @jax.jit
    @jax.vmap
    def rates(threshold):
        result: Any = model.apply(variables, x, neuron=neurons.LIF(0.25, threshold))
        return result[1].rates["conv1"]

    low, high = rates(jnp.array([0.5, 50.0]))
    assert low > high == 0


@pytest.mark.parametrize(
    ("norm", "count"), [(None, 2 * 16 * 16), pytest.param("tebn", 3 * 2 * 16 * 16, marks=pytest.mark.slow)]
)
def test_a_sew_stem_normalises_a_static_image_once_and_one_with_tebn_at_each_step(x64, norm, count):
    x = np.random.default_rng(1).normal(size=(2, 1, 32, 32, 3))
    model = models.build(small("sew_resnet18", time_steps=3, norm=norm)).copy(blocks=(1,))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)
    apply = functools.partial(model.apply, tap=jnp.var, taps=("stem.conv",), mutable=["batch_stats"])

    @jax.jit
    def stem(variables, x):  # XLA removes the rest of the network
        (_, aux), after = apply(variables, x, True)
        return aux.terms["stem.conv"], after["batch_stats"]["stem"]["norm"]["var"][0]

    biased, running = stem(variables, x)
    np.testing.assert_allclose(running, 0.9 + 0.1 * biased * count / (count - 1), rtol=1e-12)


@pytest.mark.parametrize(("norm", "first"), [(None, 0.4), ("bntt", 0.4), ("tdbn", 1.0)])
def test_the_norms_of_ms_resnet_begin_at_the_threshold_and_end_a_block_at_zero(norm, first):
    """The output of tdBN has the threshold as a factor already."""
    network = models.build(small("ms_resnet18", time_steps=2, norm=norm, neuron=Neuron(threshold=0.4)))
    for last, expected in ((False, first), (True, 0.0)):
        layer = network.current(network.initial_scale(last)).keywords["norm"](name="norm")
        variables = jax.jit(lambda norm=layer: norm.init(jax.random.key(0), jnp.zeros((1, 2, 3)), False))()
        np.testing.assert_allclose(variables["params"]["scale"], expected)


@pytest.mark.parametrize("name", ["ms_resnet18", "max_resnet18", "plif_mnist"])
def test_the_newer_networks_work_without_a_norm(name):
    model = models.build(small(name, time_steps=2, norm="none"))
    x = jax.ShapeDtypeStruct((1, 1, *cases.ORIGINALS[name].input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
    assert set(variables) == {"params"} and not any("norm" in layer for layer in variables["params"].values())


def test_dropout_of_plif_networks_is_drawn_per_example_and_the_same_at_all_time_steps():
    def pass_on(x, membrane=None):
        return x, x[:, -1]

    model = models.build(small("plif_mnist", time_steps=3, input_shape=(8, 8, 2), dropout=0.5))
    x = np.broadcast_to(np.random.default_rng(0).normal(size=(8, 8, 2)).astype(np.float32), (2, 3, 8, 8, 2))

    @jax.jit
    def readout(key):
        (_, aux), _ = model.init_with_output(
            {"params": jax.random.key(0), "dropout": key}, x, True, neuron=pass_on, tap=lambda h: h, taps=("fc1.dense",)
        )
        return aux.terms["fc1.dense"]

    first, second = (np.asarray(readout(jax.random.key(seed))) for seed in (0, 1))
    np.testing.assert_allclose(first, np.broadcast_to(first[:, :1], first.shape), rtol=1e-5, atol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 0.01 and np.abs(first - second).max() > 0.01


def test_a_graph_is_its_operations_one_after_the_other(x64):
    draw, one = np.random.default_rng(0).normal, np.array(1.0)
    kernel, bias, x = draw(size=(3, 3, 2, 4)), draw(size=4), draw(size=(2, 5, 6, 7, 2))
    synapse = graph.Synapse(kernel, bias, padding=((1, 1), (1, 1)))
    nodes = graph.Node("conv", ("x",), synapse), graph.Node("lif", ("conv",), graph.Spiking(one / 2, one, one, "hard"))
    network = graph.GraphNetwork(graph=graph.Graph("x", x.shape[2:], nodes), spike=triangle())

    @jax.jit
    def actual_and_expected(x):
        spikes = network.apply(graph.variables(network.graph), x)[0]
        names = ("NHWC", "HWIO", "NHWC")
        images, weights = x.reshape(-1, 6, 7, 2), jnp.asarray(kernel)
        h = jax.lax.conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=names)
        h = (h + bias.reshape(1, 1, 1, 4)).reshape(2, 5, 6, 7, 4)
        return spikes, neurons.lif(h, decay=0.5)[0]

    np.testing.assert_array_equal(*actual_and_expected(x))
    with pytest.raises(ConfigError, match=r"x: has shape \(2, 5, 7, 6, 2\), but must be \[B, T, 6, 7, 2\]"):
        jax.eval_shape(lambda x: network.apply(graph.variables(network.graph), x), np.swapaxes(x, 2, 3))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_a_resnet_has_as_many_layers_as_its_name_says(depth):
    """A stem, the convolutions of its blocks, and a read-out."""
    network: Any = models.build(cases.ORIGINALS[f"sew_resnet{depth}"])
    assert 1 + (3 if network.bottleneck else 2) * sum(network.blocks) + 1 == depth
