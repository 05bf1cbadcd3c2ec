"""Export of a run's network: read back from the file, it gives the same outputs."""

import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.export
import nir
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from csbp_jax import configs, data, models, neurons
from csbp_jax.cli import main
from csbp_jax.config import ConfigError, Model, Neuron, from_json
from csbp_jax.export import arrays, metadata, nir_graph, stablehlo
from csbp_jax.models import layers
from csbp_jax.models.base import Network
from csbp_jax.runs import published, restore
from csbp_jax.weights import nir_file
from tests.support import nir_interpreter
from tests.support.older_checkpoints import forget_run
from tests.support.rows import full_but
from tests.support.run_copies import edited


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "run")


@pytest.fixture(scope="module")
def restored(run):
    return restore.restore(run)


def exported(run, form, capsys, *options):
    assert main.main(["export", str(run), "--to", form, *options]) == 0
    return pathlib.Path(capsys.readouterr().out.strip())


def check_metadata(texts, restored):
    assert texts["producer"].startswith("csbp_jax 0.") and (texts["run"], texts["weights_of"]) == ("run", "last")
    assert json.loads(texts["classes"]) == list("0123456789")
    assert from_json(json.loads(texts["config"])) == restored.config


def test_arrays_are_read_back_unchanged(run, restored, capsys):
    with safe_open(exported(run, "safetensors", capsys), "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_metadata(file.metadata(), restored)
    with np.load(exported(run, "npz", capsys)) as file:
        check_metadata(
            {name.removeprefix("about/"): str(file[name]) for name in file if name.startswith("about/")}, restored
        )
        other = dict(file)
    for read in (tensors, other):
        assert read["params/conv1/conv/kernel"].shape == (3, 3, 1, 4)
        back = arrays.nested(read)
        jax.tree.map(np.testing.assert_array_equal, back, restored.variables)  # also compares the structures


def test_a_name_that_is_not_utf8_is_escaped_in_the_metadata(restored, tmp_path):
    renamed = restored._replace(folder=tmp_path / "caf\udce9")
    arrays.safetensors(renamed, metadata(renamed), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert file.metadata()["run"] == r"caf\udce9"


def test_weights_of_the_chosen_epoch(run, capsys, tmp_path):
    chosen = exported(run, "npz", capsys, "--weights-of", "chosen", "--out", str(tmp_path / "deep" / "a.npz"))
    assert chosen == tmp_path / "deep" / "a.npz"
    expected = restore.restore(run, "chosen").variables["params"]["readout"]["kernel"]
    with np.load(chosen) as file:
        np.testing.assert_array_equal(file["params/readout/kernel"], expected)
        assert str(file["about/weights_of"]) == "chosen"


def test_stablehlo_gives_the_same_logits_for_any_batch(run, restored, capsys):
    file = exported(run, "stablehlo", capsys)
    function = jax.export.deserialize(bytearray(file.read_bytes()))
    assert function.platforms == ("cpu", "cuda", "tpu")
    apply = jax.jit(restored.apply)
    test: Any = data.load(restored.config)["test"]
    for x in (test.x[:7], test.x[:2]):
        repeated = np.repeat(x, 3, axis=1)
        logits = apply(restored.variables, x)[0]
        np.testing.assert_allclose(function.call(repeated), logits, rtol=1e-6, atol=1e-6)  # sums in another order
    check_metadata(json.loads(file.with_name("last.stablehlo.json").read_text()), restored)


def firing_run(model, build=models.build):
    """Return a run of this network and an input, with random variables such that its layers fire."""
    network: Any = build(model)
    random = np.random.default_rng(0)
    x = random.random((1, model.time_steps, *model.input_shape), np.float32) * 2
    ranges = {"scale": (1, 2), "bias": (0.2, 0.9), "mean": (-0.2, 0.2), "var": (0.5, 1.5), "w": (-1, 1), "p": (1, 1)}

    def drawn(path, leaf):
        low, high = ranges.get(path[-1].key, (-1, 1))
        fan_in = leaf.size // leaf.shape[-1] if leaf.ndim > 1 else 1
        gain = (3 / fan_in) ** 0.5 if fan_in > 1 else 1
        return (gain * random.uniform(low, high, leaf.shape)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(network.init, jax.random.key(0), x))
    config = dataclasses.replace(configs.load("digits"), model=model)
    return restore.RestoredRun(pathlib.Path("firing"), config, network.apply, variables, "last", 1, "", []), x


@pytest.mark.parametrize("name", full_but(["sliding_psn"], ["psn", "masked_psn", "sliding_psn"]))
def test_stablehlo_of_parallel_neurons_takes_any_batch(name):
    restored, x = firing_run(Model(name="dense", features=(4,), neuron=Neuron(name=name)))
    function = stablehlo.exported(restored)
    for batch in (np.concatenate([x, x / 2, -x]), x):
        logits = jax.jit(restored.apply)(restored.variables, batch)[0]
        np.testing.assert_allclose(function.call(batch), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("neuron", [Neuron(decay=0.5, learn="layer"), Neuron(name="sliding_psn")])
def test_parameters_without_axes_are_read_back_with_their_shape(neuron, tmp_path):
    restored, _ = firing_run(Model(features=(4, 4), neuron=neuron))
    variables, file = restored.variables, tmp_path / published.WEIGHTS
    arrays.safetensors(restored, {}, file)
    written = load(file.read_bytes())
    shapes = {name: leaf.shape for name, leaf in arrays.flat(variables).items()}
    assert () in shapes.values() and {name: leaf.shape for name, leaf in written.items()} == shapes
    read = published.read_variables(tmp_path, variables)
    jax.tree.map(functools.partial(np.testing.assert_array_equal, strict=True), read, variables)


def compare(restored, x, tmp_path):
    """Check spikes of every layer and logits of the written graph, in an interpreter and as a network read back."""
    nir_graph.write(restored, metadata(restored), tmp_path / "graph.nir")
    read = nir.read(tmp_path / "graph.nir")
    spiking = tuple(name for name, node in read.nodes.items() if isinstance(node, nir.LIF | nir.IF | nir.Threshold))
    logits, aux = jax.jit(lambda v, x: restored.apply(v, x, inspect=spiking))(restored.variables, x)
    assert set(spiking) == set(aux.rates)
    for b in range(len(x)):
        example = np.moveaxis(x[b], -1, 1) if x.ndim == 5 else x[b]
        outputs = nir_interpreter.run(read, example, float(read.metadata["dt"]))
        for layer, spikes in aux.spikes.items():
            expected = np.moveaxis(spikes[b], -1, 1) if spikes.ndim == 5 else spikes[b]
            np.testing.assert_array_equal(outputs[layer], expected, err_msg=layer)
        np.testing.assert_allclose(outputs["output"], logits[b], rtol=1e-5, atol=1e-6)
    network, variables = nir_file.load(tmp_path / "graph.nir")
    again, aux_again = jax.jit(lambda v, x: network.apply(v, x, inspect=spiking))(variables, x)
    jax.tree.map(np.testing.assert_array_equal, aux_again.spikes, aux.spikes)
    # A vote is a product with 1/votes in the graph, and a mean in the network.
    np.testing.assert_allclose(again, logits, rtol=1e-6, atol=1e-6)
    return read, aux


def test_the_graph_of_a_run_gives_equal_spikes(restored, tmp_path):
    test: Any = data.load(restored.config)["test"]
    x = np.repeat(test.x[:20], 3, axis=1)
    read, aux = compare(restored, x, tmp_path)
    assert min(aux.rates.values()) > 0.02
    check_metadata(read.metadata, restored)
    assert read.metadata["dt"] == "0.0001" and "chaos term and its strength" in read.metadata["notes"]
    assert list(read.nodes["conv2_conv"].input_type["input"]) == [4, 4, 4]


EXPRESSIBLE = {
    "lif": Model(name="dense", features=(16, 12)),
    "no memory": Model(name="dense", features=(16, 12), neuron=Neuron(decay=0.0)),
    "if": Model(name="dense", features=(16, 12), neuron=Neuron(decay=1.0, threshold=0.7)),
    "scaled input": Model(name="dense", features=(16, 12), neuron=Neuron(0.75, 0.2, scale_input=True)),
    "no norm": Model(name="dense", features=(16, 12), norm="none", neuron=Neuron(threshold=0.4)),
    "plif of each channel": Model(features=(6, 8), neuron=Neuron(decay=0.5, learn="channel")),
    "no reset": Model(name="dense", features=(16, 12), neuron=Neuron(reset="none")),
    "recomputed in training": Model(name="dense", features=(16, 12), remat=True),
    "recurrent": Model(name="recurrent", features=(12, 10), time_steps=8),
    "recurrent, no reset, no leak": Model(
        name="recurrent", features=(12,), time_steps=6, neuron=Neuron(decay=1.0, reset="none")
    ),
}
SOME = ("if", "plif of each channel", "recurrent")
LARGE = {
    "pools, votes": Model(name="vgg9", width=0.04, input_shape=(8, 8, 2), norm="batch"),
    "strides, tdbn": Model(name="vggsnn_wo_ap", width=0.04, input_shape=(16, 16, 2), norm="tdbn"),
    "sums of currents": Model(name="resnet19_tet", width=0.04, input_shape=(8, 8, 2), time_steps=2),
    "norms on shortcuts": Model(name="resnet19_tebn", width=0.04, input_shape=(8, 8, 2), time_steps=2),
}


@pytest.mark.parametrize(
    "name", [*full_but(SOME, EXPRESSIBLE), *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_every_expressible_network_round_trips_with_equal_spikes(name, tmp_path):
    restored, x = firing_run((EXPRESSIBLE | LARGE)[name])
    read, aux = compare(restored, x, tmp_path)
    assert sum(float(rate) > 0.02 for rate in aux.rates.values()) > len(aux.rates) / 2
    if name == "if":
        assert read.metadata["dt"] == "1.0" and isinstance(read.nodes["fc1"], nir.IF)


class Own(Network):
    """A network of a user: a factor of a threshold, and a layer with another neuron than the first."""

    factor: float = 0.5
    other: Any = neurons.LIF(0.9, 0.3)
    readout: str = "readout"
    shared: bool = False

    def body(self, x, train, run):
        x = run(
            layers.Spike(self.time_steps, threshold=self.factor, name="spike1"), run(layers.Linear(6, name="fc"), x)
        )
        fc2 = layers.Dense(6, norm=self.make_norm(), time_steps=self.time_steps, name="fc2")
        for _ in range(2 if self.shared else 1):
            x = run(lambda x, train, neuron, probe: fc2(x, train, self.other, probe), x)
        return nn.Dense(self.classes, name=self.readout)(x)


def own_run(**options):
    model = Model(name="dense", input_shape=(6,), time_steps=8, classes=3)
    return firing_run(model, lambda model: Own(3, 8, neurons.LIF(0.5, 0.4), norm="none", **options))


@pytest.mark.parametrize("reset", [pytest.param("hard", marks=pytest.mark.full), "none"])
def test_factors_of_thresholds_and_neurons_that_do_not_leak_beside_others(reset, tmp_path):
    restored, x = own_run(other=neurons.LIF(1.0, 0.7, reset=reset))
    read, aux = compare(restored, x, tmp_path)
    assert (read.nodes["spike1"].v_threshold == 0.2).all() and min(aux.rates.values()) > 0.02
    assert read.metadata["dt"] == "0.0001"


@pytest.mark.parametrize("features", [(2, 2, 2, 2), (4,) * 5])
def test_tiny_networks_have_as_many_numbers_as_layers(features):
    model = Model(name="dense", features=features, time_steps=1, input_shape=features[:1], classes=3)
    graph = nir_graph.build(firing_run(model)[0], {})
    assert [target for source, target in graph.edges if source == "fc1"] == ["fc2_dense"]


class Pixelwise(Network):
    """A network of a user: a dense layer that mixes the channels of an image, and a norm alone."""

    layer: Any = layers.Dense
    flattened: bool = False

    def body(self, x, train, run):
        x = run(self.spiking(layers.ConvNormLIF)(4, name="conv1"), x)
        x = run(self.spiking(self.layer)(6, name="mix"), x)
        x = run(layers.Norm(self.make_norm(), name="norm"), layers.flat(x) if self.flattened else x)
        return nn.Dense(self.classes, name="readout")(x if self.flattened else layers.space_mean(x))


@pytest.mark.full
@pytest.mark.parametrize("options", [{"norm": "none"}, {"flattened": True}])
def test_a_layer_that_acts_on_channels_is_a_convolution_of_one_pixel_or_a_matrix(options, tmp_path):
    restored, x = firing_run(Model(), lambda model: Pixelwise(10, 4, neurons.LIF(0.5, 0.4), **options))
    read, aux = compare(restored, x, tmp_path)
    assert read.nodes["mix_conv"].weight.shape == (6, 4, 1, 1) and min(aux.rates.values()) > 0.02


class Twice:
    """A neuron of a user."""

    def __call__(self, x, membrane=None):
        return neurons.lif(2 * x)


SMALL = functools.partial(Model, features=(4, 4))
TAKEN = "NIR's graph has a node of this name already"
INEXPRESSIBLE: dict[str, Any] = {
    "conv1: its neuron fires at its threshold": lambda: firing_run(SMALL(neuron=Neuron(at_threshold="fire"))),
    "conv1: its neuron (PSN) is not one of LIF, IF and PLIF": lambda: firing_run(SMALL(neuron=Neuron(name="psn"))),
    "conv1: its neuron (ALIF) is not one of LIF, IF and PLIF": lambda: firing_run(SMALL(neuron=Neuron(name="alif"))),
    "conv1: its neuron (Twice) is not one of LIF, IF and PLIF": lambda: firing_run(
        SMALL(), lambda model: models.build(model).clone(neuron=Twice())
    ),
    "model.read_out: NIR has no read-outs over time": lambda: firing_run(SMALL(read_out="max")),
    "conv1: its soft reset subtracts the threshold": lambda: firing_run(SMALL(neuron=Neuron(reset="soft"))),
    "conv1: its norm (BNTT) has other factors at each time step": lambda: firing_run(SMALL(norm="bntt")),
    "fc1: each of its connections has a delay of its own": lambda: firing_run(SMALL(name="dense", max_delay=2)),
    "block2_conv1: its input is not a sum of layers": lambda: firing_run(
        Model(name="sew_7b", width=0.04, input_shape=(128, 128, 2))
    ),
    "mix: its matrix product is along the last of several axes": lambda: firing_run(
        Model(), lambda model: Pixelwise(10, 4, neurons.LIF(0.5), layer=layers.Recurrent)
    ),
    "fc2: is called twice": lambda: own_run(shared=True),
    f"output: {TAKEN}": lambda: own_run(readout="output"),
    f"input: {TAKEN}": lambda: own_run(readout="input"),
    f"fc2_dense: {TAKEN}": lambda: own_run(readout="fc2_dense"),
}


DEEP = "block2_conv1: its input is not a sum of layers"


@pytest.mark.parametrize("message", full_but(INEXPRESSIBLE.keys() - {DEEP}, INEXPRESSIBLE))
def test_networks_that_nir_cannot_express_are_refused_in_one_line(message):
    with pytest.raises(ConfigError) as caught:
        nir_graph.build(INEXPRESSIBLE[message]()[0], {})
    text = str(caught.value)
    assert text.startswith(message) and text.endswith("export it as stablehlo") and "\n" not in text


def test_factors_that_change_with_time_are_refused():
    restored, _ = firing_run(Model(features=(4, 4), norm="tebn"))
    nir_graph.build(restored, {})
    restored.variables["params"]["conv2"]["norm"]["p"] += np.array([0, 0, 0.1, 0], np.float32)
    with pytest.raises(ConfigError, match=r"conv2: its norm \(TEBN\) has another factor at each time step"):
        nir_graph.build(restored, {})


def test_mixed_precision_is_noted():
    restored, _ = firing_run(Model(features=(4, 4), precision="bfloat16"))
    assert "The run had bfloat16 products and spikes" in nir_graph.build(restored, {}).metadata["notes"]


def test_a_refused_export_does_not_change_the_old_file(run, capsys, tmp_path):
    file = tmp_path / "old.nir"
    file.write_text("old")
    changed = edited(run, tmp_path / "run", model__neuron__reset="soft")
    forget_run(changed / "checkpoints")
    assert main.main(["export", str(changed), "--to", "nir", "--out", str(file)]) == 2
    assert "soft reset" in capsys.readouterr().err and file.read_text() == "old"
    assert not list(tmp_path.glob("*.part"))
