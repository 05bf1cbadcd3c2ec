"""Synaptic operations against a count over every connection; without inspection, programs contain nothing of it."""

import functools
from typing import get_args

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import learner, losses, models
from csbp_jax.config import Chaos, Config, Model, Neuron
from csbp_jax.config.schema import ModelName
from csbp_jax.evaluation.synaptic_ops import count_synops
from csbp_jax.learner import objective, optimizer
from csbp_jax.models import layers
from csbp_jax.models.base import Network
from csbp_jax.models.taps import Aux, Probe, apply_taps
from csbp_jax.neurons import LIF
from csbp_jax.xla import winograd
from tests.support.rows import full


def network(name, shape, features, **options):
    config = Model(name=name, input_shape=shape, classes=3, time_steps=3, features=features, **options)
    model = models.build(config)
    return model, random_variables(model, jax.ShapeDtypeStruct((1, 1, *shape), jnp.float32))


def random_variables(model, *arguments):
    """Draw kernels with NumPy, which compiles nothing, and give norms their initial values."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("kernel", "feedback"):
            fan_in = leaf.size // leaf.shape[-1]
            return (random.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    x, *rest = arguments
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, *rest), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def count(apply, variables, x, **options):
    """Count in one compiled program; eagerly, each operation would be compiled by itself."""
    return jax.device_get(jax.jit(functools.partial(count_synops, apply, **options))(variables, x))


def conv_by_hand(x, kernel, stride=1):
    """Count over one frame [H, W, C]: every output, every kernel tap inside the frame, every pair of channels."""
    k, (height, width, _) = kernel.shape[0], x.shape
    n = 0
    for i in range(0, height, stride):
        for j in range(0, width, stride):
            for a in range(k):
                for b in range(k):
                    row, column = i + a - k // 2, j + b - k // 2
                    if 0 <= row < height and 0 <= column < width:
                        n += int(((x[row, column] != 0)[:, None] & (kernel[a, b] != 0)).sum())
    return n


def dense_by_hand(x, kernel):
    return sum(int((kernel[i] != 0).sum()) for i in range(len(x)) if x[i] != 0)


@pytest.mark.parametrize("inexact", [False, *full([True])], ids=["plain", "in Winograd's form"])
def test_a_convolutional_network_counted_by_hand(monkeypatch, inexact):
    """Counts are exact also where the network's own convolutions are not."""
    if inexact:
        monkeypatch.setattr(jax, "device_count", lambda: 1)
        monkeypatch.setattr(winograd, "pays", lambda shape, features: True)
    model, variables = network("small_conv", (5, 7, 2), (3, 4), neuron=Neuron(threshold=0.4))
    kernel = np.array(variables["params"]["conv2"]["conv"]["kernel"])
    kernel[1, :, 0] = 0
    variables["params"]["conv2"]["conv"]["kernel"] = kernel
    x = np.random.default_rng(2).poisson(0.7, (2, 3, 5, 7, 2)).astype(np.float32)
    (logits, aux), counts = count(model.apply, variables, x, inspect=("conv1", "conv2"))
    assert set(counts) == {"conv1.conv", "conv2.conv", "readout"} and logits.shape == (2, 3, 3)
    kernels = {name: np.asarray(variables["params"][name]["conv"]["kernel"]) for name in ("conv1", "conv2")}
    readout = np.asarray(variables["params"]["readout"]["kernel"])
    seen = {"conv1": np.asarray(x), "conv2": np.asarray(aux.spikes["conv1"])}
    flat = np.asarray(aux.spikes["conv2"]).reshape(2, 3, -1)
    for b in range(2):
        for t in range(3):
            for name in ("conv1", "conv2"):
                assert counts[f"{name}.conv"].effective[b, t] == conv_by_hand(seen[name][b, t], kernels[name])
            assert counts["readout"].effective[b, t] == dense_by_hand(flat[b, t], readout) > 0
    assert not counts["conv1.conv"].spiking.any() and counts["conv2.conv"].spiking.all()
    assert counts["conv2.conv"].dense[0] == conv_by_hand(np.ones((5, 7, 3)), np.ones((3, 3, 3, 4))) < 5 * 7 * 9 * 3 * 4
    assert counts["readout"].dense.tolist() == 3 * [flat.shape[-1] * 3]


def test_spikes_stay_spikes_behind_maximum_pooling_only():
    x = np.random.default_rng(2).random((2, 1, 4, 4, 2)).astype(np.float32)
    for pool, options in (("average", {}), ("max", {"pool": "max"})):
        model, variables = network("small_conv", (4, 4, 2), (3, 4), neuron=Neuron(threshold=0.4), **options)
        (_, aux), counts = count(model.apply, variables, x, inspect=("conv1",))
        windows = np.asarray(aux.spikes["conv1"]).reshape(2, 3, 2, 2, 2, 2, 3)
        pooled = windows.max((3, 5)) if pool == "max" else windows.mean((3, 5))
        assert 0 < pooled.mean() < 1
        kernel = np.asarray(variables["params"]["conv2"]["conv"]["kernel"])
        by_hand = [[conv_by_hand(frame, kernel) for frame in example] for example in pooled]
        assert counts["conv2.conv"].effective.tolist() == by_hand
        assert counts["conv2.conv"].spiking.all() == (pool == "max")


def test_an_integer_of_ilif_is_counted_as_its_spikes():
    neuron = Neuron(name="ilif", levels=3, decay=0.5)
    model, variables = network("dense", (6,), (5, 4), neuron=neuron)
    x = 40 * np.random.default_rng(2).random((2, 1, 6)).astype(np.float32)
    (_, aux), counts = count(model.apply, variables, x, inspect=("fc1",), levels=3)
    _, as_products = count(model.apply, variables, x)
    n = np.asarray(aux.spikes["fc1"]).astype(int)
    assert n.max() > 1 and (n <= 3).all()
    assert counts["fc2.dense"].effective.tolist() == (4 * n.sum(2)).tolist() and counts["fc2.dense"].spiking.all()
    assert as_products["fc2.dense"].effective.tolist() == (4 * (n > 0).sum(2)).tolist()
    assert not as_products["fc2.dense"].spiking.all() and not counts["fc1.dense"].spiking.any()


@pytest.mark.parametrize(("size", "stride"), [((7, 6), 2), *full([((2, 2), 1), ((2, 3), 2), ((1, 2), 1)])])
def test_strides_and_small_inputs_count_existing_connections(size, stride):
    """Also for inputs smaller than the kernel, which are convolved tap by tap on CPUs."""
    model = layers.ConvNormLIF(4, stride=stride, name="a")
    x = (np.random.default_rng(0).random((1, 1, *size, 2)) < 0.7).astype(np.float32)
    arguments = (x, False, lambda h: (h, h[:, -1]), Probe(lambda h: h))
    variables = random_variables(model, *arguments)
    _, counts = count(lambda v, x: model.apply(v, *arguments), variables, x)
    (of_conv,) = counts.values()
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    assert of_conv.effective.item() == conv_by_hand(np.asarray(x[0, 0]), kernel, stride) and of_conv.spiking.item()
    assert of_conv.dense.item() == conv_by_hand(np.ones((*size, 2)), np.ones(kernel.shape), stride)


@pytest.mark.parametrize("name", ["recurrent", *full(["dense"])])
def test_a_dense_network_counted_by_hand(name):
    """A still input passes its first synapse once; feedback is spikes of the previous time step."""
    model, variables = network(name, (6,), (5, 4), neuron=Neuron(threshold=0.2))
    x = (np.random.default_rng(3).normal(size=(2, 1, 6)) * [1, 0, 1, 1, 0, 1]).astype(np.float32)
    first = {"dense": "fc1", "recurrent": "rec1"}[name]
    (_, aux), counts = count(model.apply, variables, x, inspect=(first,))
    weights, spikes = variables["params"], np.asarray(aux.spikes[first])
    assert (
        counts[f"{first}.dense"].effective.tolist() == [[4 * 5], [4 * 5]] and not counts[f"{first}.dense"].spiking.any()
    )
    second = counts[f"{first[:-1]}2.dense"]
    for b in range(2):
        for t in range(3):
            by_hand = dense_by_hand(spikes[b, t], np.asarray(weights[f"{first[:-1]}2"]["dense"]["kernel"]))
            assert second.effective[b, t] == by_hand
    assert second.spiking.all() and second.effective.sum() > 0
    if name == "recurrent":
        back = counts["rec1.feedback"].effective
        assert back.tolist() == [[0, *(5 * spikes[b, :2].sum(1)).astype(int).tolist()] for b in range(2)]
        assert back.sum() > 0 and counts["rec1.feedback"].dense.tolist() == [25, 25, 25]


@pytest.mark.full
def test_a_network_that_recomputes_in_training_is_counted_as_any_other():
    x = np.random.default_rng(2).random((2, 1, 6)).astype(np.float32)
    counts = []
    for remat in (False, True):
        model, variables = network("dense", (6,), (5, 4), remat=remat)
        counts.append(count(model.apply, variables, x)[1])
    chex.assert_trees_all_equal(*counts)


# One network per family of layers; the others are slow.
TRACED = ("dense", "recurrent", "small_conv", "cnn6")


@pytest.mark.parametrize(
    "name, precision",
    [
        *(pytest.param(n, "float32", marks=[] if n in TRACED else pytest.mark.slow) for n in get_args(ModelName)),
        pytest.param("cnn6", "bfloat16", marks=pytest.mark.full),
        pytest.param("resnet19_tet", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_every_synapse_of_every_network_is_counted(name, precision):
    """By tracing alone."""
    shape = (128, 128, 2) if name.startswith("sew") and name.endswith("7b") else (48, 48, 2)
    model = models.build(Model(name=name, input_shape=shape, classes=3, time_steps=2, precision=precision))
    x = jax.ShapeDtypeStruct((3, 2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    _, counts = jax.eval_shape(functools.partial(count_synops, model.apply), variables, x)
    kernels = {
        ".".join(str(part.key) for part in path if part.key != "kernel")
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key in ("kernel", "feedback")
    }
    assert set(counts) == kernels and len(kernels) >= 2
    assert all(count.effective_parts.shape[:2] == count.spiking.shape == (3, 2) for count in counts.values())


def test_counts_beyond_int32_are_exact():
    """A convolution of 256 to 256 channels at 64x64 has more connections than int32 holds."""
    conv = nn.Conv(256, (3, 3), use_bias=False)
    x, true = np.ones((1, 1, 64, 64, 256), np.float32), 256 * 256 * (3 * 64 - 2) ** 2
    counts = count(lambda v, x: (conv.apply(v, x), None), {"params": {"kernel": np.ones((3, 3, 256, 256))}}, x)[1]
    (of_conv,) = counts.values()
    assert of_conv.effective.tolist() == [[true]] and of_conv.dense.tolist() == [true]


def test_a_synapse_called_twice_counts_twice():
    class Shared(Network):
        def body(self, x, train, run):
            layer = layers.Dense(6, norm=self.make_norm(), time_steps=2, name="fc1")
            return nn.Dense(self.classes, name="readout")(run(layer, run(layer, x)))

    model = Shared(classes=3, time_steps=2, neuron=LIF(0.5, 0.1), norm="none")
    x = np.random.default_rng(0).random((2, 1, 6), np.float32)
    variables = random_variables(model, jax.ShapeDtypeStruct(x.shape, jnp.float32))
    of_shared = count(model.apply, variables, x)[1]["fc1.dense"]
    # The still input passes once; the spikes of the first call, which are accumulates, at both time steps.
    assert of_shared.dense.tolist() == [36, 36, 36] and of_shared.spiking.tolist() == 2 * [[False, True, True]]
    assert of_shared.effective.shape == (2, 3) and (of_shared.effective[:, 0] == 36).all()


def lowered(config, steps=("train", "eval")):
    """Return the programs of training and evaluation steps, before compilation."""
    model = models.build(config.model)
    tx, loss = optimizer.build(config.optimizer, 1, 1), losses.build(config.loss)
    init, train_step, eval_step = learner.make(model, tx, loss, config, 1)
    state = jax.eval_shape(init, jax.random.key(0))
    batch = {"x": jnp.zeros((2, 1, 4, 4, 1)), "y": jnp.zeros(2, jnp.int32), "mask": jnp.ones(2, bool)}
    functions = {"train": train_step, "eval": eval_step}
    return [jax.jit(functions[step]).lower(state, batch).as_text() for step in steps]


def run_neuron_without_inspection(layer, tensors, current, neuron, probe):
    """``taps.run_neuron`` without support for inspection."""
    spikes, membrane = neuron(current)
    aux = apply_taps(layer, {**tensors, "membrane": membrane}, probe)
    return spikes, Aux(aux.terms, {layer: jnp.mean(spikes, dtype=jnp.float32)}, names=aux.names)


@pytest.mark.full
def test_inspection_that_is_not_requested_costs_nothing(monkeypatch):
    model = Model(input_shape=(4, 4, 1), classes=3, time_steps=2, features=(2,))
    config = Config(model=model, chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",)))
    programs = lowered(config)
    monkeypatch.setattr(layers, "run_neuron", run_neuron_without_inspection)
    assert lowered(config) == programs

    # The comparison detects inspection, which adds the membranes as outputs.
    monkeypatch.undo()
    monkeypatch.setattr(objective, "neuron_override", lambda state: {"inspect": ("conv1",)})
    assert lowered(config, ("train",)) != programs[:1]


@pytest.mark.full
def test_neurobench_counts_the_same(reference):
    """The count of the same network by NeuroBench's code (tools/make_operations_reference.py)."""
    expected = reference("operations")
    model, variables = network("small_conv", (8, 6, 2), (6, 5))
    variables["params"]["readout"]["kernel"] = expected["readout"]
    for name in ("conv1", "conv2"):
        variables["params"][name]["conv"]["kernel"] = expected[name]
        norm = variables["batch_stats"][name]["norm"]
        norm["var"] = np.full_like(norm["var"], 1 - 1e-5)  # so that the norm divides by exactly 1
    _, counts = count(model.apply, variables, expected["x"])
    spiking = sum((c.effective * c.spiking).sum(1) for c in counts.values())
    assert spiking.tolist() == expected["effective_acs"].tolist()
    assert (sum(c.effective.sum(1) for c in counts.values()) - spiking).tolist() == expected["effective_macs"].tolist()
    assert [sum(c.dense.sum() for c in counts.values()) for _ in expected["x"]] == expected["dense"].tolist()
    assert counts["conv1.conv"].spiking[:, 1].all() and not counts["conv1.conv"].spiking.all()
