"""Graphs of NIR as networks: equal to an interpreter on graphs made by hand; test_export.py has exported ones."""

import itertools
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from csbp_jax import chaos
from csbp_jax.config import ConfigError
from csbp_jax.models.graph import Spiking
from csbp_jax.weights import nir_file
from tests.support import nir_interpreter
from tests.support.rows import full_but

DT = 1e-4


def random(*shape, low=-1.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def lif(*shape, seed=0, **fields):
    """A LIF of constants that differ between neurons, at dt = 1e-4."""
    values = {
        "tau": random(*shape, low=2e-4, high=1e-3, seed=seed),
        "r": random(*shape, low=2, high=6, seed=seed + 1),
        "v_leak": np.zeros(shape, np.float32),
        "v_threshold": random(*shape, low=0.3, high=0.9, seed=seed + 2),
        "v_reset": np.zeros(shape, np.float32),
    }
    return nir.LIF(**values | fields)


def conv(out, of, kernel=(3, 3), stride=1, padding=1, dilation=1, groups=1):
    weight, bias = random(out, of // groups, *kernel, seed=out) / 1.5, random(out, seed=of)
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)


def chain(first, *nodes, **edges):
    """A graph of nodes in a row, named n1, n2, ..., and further edges ``source=target``."""
    named = {"in": nir.Input(np.array(first)), **{f"n{i}": node for i, node in enumerate(nodes, start=1)}}
    named["out"] = nir.Output(None)
    names = list(named)
    return nir.NIRGraph(named, [*itertools.pairwise(names), *edges.items()], {"dt": str(DT)}, type_check=False)


def writable(graph, *shape):
    """Return a graph with the shape of its output, which a file holds."""
    nodes = graph.nodes | {"out": nir.Output(np.array(shape))}
    return nir.NIRGraph(nodes, graph.edges, graph.metadata, type_check=False)


def pool(kind, window, stride, padding=(0, 0)):
    return kind(np.array(window), np.array(stride), np.array(padding))


def flatten(*shape):
    return nir.Flatten({"input": np.array(shape)}, 0, -1)


def affine(out, of, seed=0):
    return nir.Affine(random(out, of, seed=seed) * 3 / of**0.5, random(out, seed=seed + 1) / 2)


def integrate_and_fire(*shape):
    return nir.IF(random(*shape, low=2000, high=6000), random(*shape, low=0.3, high=0.9, seed=1))


def integrator(*shape):
    return nir.LI(random(*shape, low=2e-4, high=1e-3), random(*shape, low=1, high=3), np.zeros(shape))


HAND_MADE = {
    "neurons that differ": chain((9,), affine(12, 9), lif(12), affine(5, 12), lif(5, seed=7)),
    "without a leak": chain((9,), affine(12, 9), integrate_and_fire(12), nir.Linear(random(5, 12))),
    "membranes as output": chain((9,), affine(12, 9), lif(12), affine(4, 12), integrator(4)),
    "currents into I": chain((9,), affine(12, 9), lif(12), affine(4, 12), nir.I(random(4, low=1e3, high=1e4))),
    "threshold alone": chain((9,), affine(12, 9), nir.Threshold(random(12, low=0.1, high=0.5)), affine(4, 12)),
    "threshold on a membrane": chain((9,), affine(6, 9), integrator(6), nir.Threshold(random(6, low=0.1, high=0.5))),
    "scaled": chain((9,), nir.Scale(random(9)), affine(12, 9), lif(12)),
    "strides": chain(
        (2, 7, 9), conv(4, 2, stride=(2, 3), padding=(1, 0)), lif(4, 4, 3), flatten(4, 4, 3), affine(3, 48)
    ),
    "dilation and groups": chain((4, 8, 8), conv(6, 4, (3, 2), 1, (2, 1), (2, 1), 2), lif(6, 8, 9)),
    "same": chain((2, 5, 6), conv(3, 2, (2, 3), 1, "same"), lif(3, 5, 6), flatten(3, 5, 6), lif(90)),
    "valid": chain((2, 5, 6), conv(3, 2, (2, 3), 1, "valid"), lif(3, 4, 4)),
    "average pool": chain((2, 7, 7), conv(3, 2), lif(3, 7, 7), pool(nir.AvgPool2d, (2, 3), (2, 2)), lif(3, 3, 3)),
    "sum pool": chain(
        (2, 6, 6), conv(3, 2), lif(3, 6, 6), pool(nir.SumPool2d, (2, 2), (2, 2)), flatten(3, 3, 3), affine(5, 27)
    ),
    "a sum of layers": chain((9,), affine(9, 9), lif(9), affine(9, 9, 3), lif(9, seed=5), affine(3, 9), n2="n4"),
    "a sum with a flattened image": chain((2, 3, 3), flatten(2, 3, 3), affine(18, 18), lif(18), affine(4, 18), n1="n4"),
}


def check_against_the_interpreter(graph, shape):
    network, variables = nir_file.from_graph(graph)
    x = random(10, *shape, low=0, high=2, seed=3)
    outputs = nir_interpreter.run(graph, x, DT)
    spiking = tuple(n for n, node in graph.nodes.items() if isinstance(node, nir.LIF | nir.IF | nir.Threshold))
    images = jnp.asarray(np.moveaxis(x, 1, -1) if len(shape) == 3 else x)[None]
    y, aux = jax.jit(lambda v, x: network.apply(v, x, inspect=spiking))(variables, images)
    for name, spikes in aux.spikes.items():
        actual = np.moveaxis(spikes[0], -1, 1) if spikes.ndim == 5 else spikes[0]
        np.testing.assert_array_equal(actual, outputs[name], err_msg=name)
        assert 0.02 < outputs[name].mean() < 0.98
    actual = np.moveaxis(y[0], -1, 1) if y.ndim == 5 else y[0]
    np.testing.assert_allclose(actual, outputs["out"], rtol=1e-4, atol=1e-5)


SOME = ("neurons that differ", "membranes as output", "scaled", "strides", "same", "sum pool", "a sum of layers")


@pytest.mark.parametrize("name", full_but(SOME, HAND_MADE))
def test_a_graph_made_by_hand_equals_the_interpreter(name):
    graph = HAND_MADE[name]
    check_against_the_interpreter(graph, tuple(graph.nodes["in"].input_type["input"]))


def test_recurrent_spikes_arrive_one_step_later():
    graph = chain((9,), affine(12, 9), lif(12), affine(3, 12))
    graph.nodes["back"] = nir.Linear(random(12, 12, seed=4))
    graph.edges += [("n2", "back"), ("back", "n2")]
    check_against_the_interpreter(graph, (9,))


def test_a_still_input_is_repeated_and_the_network_can_be_trained(tmp_path):
    graph = HAND_MADE["neurons that differ"]
    graph = nir.NIRGraph(dict(graph.nodes), graph.edges, graph.metadata | {"time_steps": "6"}, type_check=False)
    nir.write(tmp_path / "g.nir", writable(graph, 5))
    network: Any
    network, variables = nir_file.load(tmp_path / "g.nir")
    x = jnp.asarray(random(4, 1, 9, low=0, high=2))
    drawn = jax.jit(network.init)(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, drawn, variables)
    np.testing.assert_array_equal(variables["params"]["n1"]["dense"]["kernel"], graph.nodes["n1"].weight.T)

    @jax.jit
    def loss(variables, x):
        y, aux = network.apply(variables, x, True, tap=chaos.term, taps=("n2.membrane", "n3.dense"))
        return (y.mean(1) ** 2).sum() + aux.terms["n2.membrane"], y

    (_, y), gradient = jax.value_and_grad(loss, has_aux=True)(variables, x)
    assert y.shape == (4, 6, 5)
    np.testing.assert_array_equal(y, loss(variables, jnp.repeat(x, 6, axis=1))[1])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["params"]["n1"]))


def test_the_time_step_is_that_of_the_metadata_or_the_argument(tmp_path):
    graph = chain((3,), affine(3, 3), lif(3))
    del graph.metadata["dt"]
    with pytest.raises(ConfigError, match="no time step in its metadata; pass dt"):
        nir_file.from_graph(graph)
    network, _ = nir_file.from_graph(graph, dt=2e-4)
    neuron, tau = network.graph.nodes[1].operation, graph.nodes["n2"].tau.astype(np.float64)
    assert isinstance(neuron, Spiking)
    np.testing.assert_array_equal(neuron.decay, (1 - 2e-4 / tau).astype(np.float32))
    for dt in (0.0, float("nan")):
        with pytest.raises(ConfigError, match=r"dt: .* is not possible"):
            nir_file.from_graph(graph, dt=dt)


def test_constants_of_one_number_are_not_spread_over_an_image():
    one = np.ones(1, np.float32)
    network, _ = nir_file.from_graph(chain((1, 2**31, 2**31), nir.Scale(one), nir.IF(one, one)))
    operations: Any = [node.operation for node in network.graph.nodes]
    scale, neuron, _ = operations
    assert np.shape(scale.factor) == np.shape(neuron.gain) == np.shape(neuron.threshold) == ()
    x = jnp.full((1, 2, 3, 3, 1), 0.7)
    few, variables = nir_file.from_graph(chain((1, 3, 3), nir.Scale(2 * one), nir.LIF(DT * 2 * one, one, 0 * one, one)))
    spikes = few.apply(variables, x)[0]
    np.testing.assert_array_equal(spikes, jnp.stack([0 * x[:, 0], 1 + 0 * x[:, 0]], axis=1))


zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
REFUSED = {
    "n1: its v_leak is not 0": chain((3,), lif(3, v_leak=ones)),
    "n1: its v_reset is not 0": chain((3,), lif(3, v_reset=-ones)),
    "n1: its threshold, 0, is not above 0": chain((3,), lif(3, v_threshold=zeros)),
    "n1: its tau, 1e-05 s, is below the time step, 0.0001 s": chain((3,), lif(3, tau=1e-5 * ones)),
    "n1: its r is empty or not finite": chain((3,), lif(3, r=np.nan * ones)),
    "n1: its threshold is empty or not finite in float32": chain((3,), lif(3, v_threshold=np.full(3, 1e300))),
    "n1: its weight is empty or not finite in float32": chain((3,), nir.Linear(np.full((2, 3), 1e300))),
    "n1: nodes of the kind CubaLIF cannot be read": chain((3,), nir.CubaLIF(ones, ones, ones, zeros, ones)),
    "n1: nodes of the kind Delay cannot be read": chain((3,), nir.Delay(ones)),
    "n1: nodes of the kind NIRGraph cannot be read": chain((3,), chain((3,), lif(3))),
    "n1: nodes of the kind Conv1d": chain((3,), nir.Conv1d(None, random(2, 2, 3), 1, 0, 1, 1, random(2))),
    "n1: its v_leak has the shape (4,), but its input (3,)": chain((3,), lif(4)),
    "n1: its weight of shape (2, 4) does not fit an input of shape (3,)": chain((3,), affine(2, 4)),
    "n1: its weight of shape (4, 3, 3, 3), groups 1, does not fit": chain((2, 5, 5), conv(4, 3)),
    "n1: an input of shape (2, 2, 2) is too small": chain((2, 2, 2), conv(4, 2, padding=0)),
    "n1: its padding 'same' with a stride of (2, 2)": chain((2, 5, 5), conv(4, 2, stride=2, padding="same")),
    "n1: its padding is not 0": chain((2, 5, 5), pool(nir.AvgPool2d, (2, 2), (2, 2), (1, 1))),
    "n1: its window (6, 6) with a stride of (1, 1)": chain((2, 5, 5), pool(nir.AvgPool2d, (6, 6), (1, 1))),
    "n1: it flattens axes 1 to -1 of (2, 3, 3)": chain((2, 3, 3), nir.Flatten(np.array((2, 3, 3)), 1, -1)),
    "in: its shape is [2, 3], but must be": chain((2, 3), lif(2, 3)),
    "n2: its sources have different shapes: (2,), (3,)": chain((3,), affine(2, 3), lif(2), **{"in": "n2"}),
    "a loop, ": chain((3,), lif(3), affine(3, 3), lif(3), n3="n1"),
    "an edge names the node 'gone', which does not exist": chain((3,), lif(3), gone="n1"),
    "2 nodes of the kind Input, but there must be exactly one": chain((3,), nir.Input(np.array([3])), lif(3)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_graph_that_cannot_be_expressed_is_refused_by_its_node(message):
    with pytest.raises(ConfigError) as caught:
        nir_file.from_graph(REFUSED[message])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_node_without_a_source_is_refused():
    graph = chain((3,), lif(3), affine(3, 3))
    graph.edges.remove(("n1", "n2"))
    with pytest.raises(ConfigError, match="n2: it has no source"):
        nir_file.from_graph(graph)


def refused(path, message):
    with pytest.raises(ConfigError) as caught:
        nir_file.load(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_and_hostile_files_are_one_line(tmp_path):
    path = tmp_path / "g.nir"
    refused(path, "there is no such file")
    path.write_bytes(b"no HDF5")
    refused(path, "cannot be read (Unable to synchronously open file")
    nir.write(path, lif(3))
    refused(path, "cannot be read as a graph of NIR (")
    graph = writable(chain((9,), affine(12, 9), lif(12)), 12)
    nir.write(path, graph)
    with h5py.File(path, "a") as file:
        file["node/metadata/dt"][()] = "soon"
    refused(path, "dt: 'soon' in its metadata is no number")
    nir.write(path, graph)
    with h5py.File(path, "a") as file:
        del file["node/nodes/n1/bias"]
        file.create_dataset("node/nodes/n1/bias", (2**40,), "f4", chunks=(1024,), compression="gzip")
    refused(path, "n1/bias: states 4,398,046,511,104 bytes, and holds 0")
    (tmp_path / "secret").write_bytes(bytes(48))
    with h5py.File(path, "a") as file:
        del file["node/nodes/n1/bias"]
        file.create_dataset("node/nodes/n1/bias", (12,), "f4", external=[(str(tmp_path / "secret"), 0, 48)])
    refused(path, "n1/bias: its values are in another file")


LINKS = {
    "other file": lambda _: h5py.ExternalLink("other.nir", "/node/nodes/n1/bias"),
    "soft": lambda _: h5py.SoftLink("/node/nodes/n2/tau"),
    "hard": lambda file: file["node/nodes/n2/tau"],
    "root": lambda file: file["/"],
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_are_refused(tmp_path, kind):
    path, graph = tmp_path / "g.nir", writable(chain((9,), affine(12, 9), lif(12)), 12)
    for file in (path, tmp_path / "other.nir"):
        nir.write(file, graph)
    with h5py.File(path, "a") as content:
        del content["node/nodes/n1/bias"]
        content["node/nodes/n1/bias"] = LINKS[kind](content)
    refused(path, "is in another file, or has another name in this one")


@pytest.mark.full
def test_files_of_other_contents_are_read_or_refused(tmp_path):
    """Each dataset is removed or replaced in turn; and the file is cut short."""
    path, changed = tmp_path / "g.nir", tmp_path / "changed.nir"
    graph = writable(HAND_MADE["sum pool"], 5)
    graph.nodes["n1"].input_shape = (6, 6)
    graph.metadata = graph.metadata | {"time_steps": "4"}
    nir.write(path, graph)
    intact, names = path.read_bytes(), []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    others = (None, "text", -1, 2**62, np.ones((1, 2, 3, 4, 5)))  # five, of which every third pair takes all
    outcomes = {"read": 0, "refused": 0}

    def outcome(content):
        changed.write_bytes(content)
        try:
            nir_file.load(changed)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1
            return "refused"
        return "read"

    for name, other in list(itertools.product(names, others))[::3]:
        changed.write_bytes(intact)
        with h5py.File(changed, "a") as file:
            del file[name]
            if other is not None:
                file[name] = other
        outcomes[outcome(changed.read_bytes())] += 1
    assert outcomes["refused"] > 50 and outcomes["read"]
    assert {outcome(intact[:size]) for size in range(0, len(intact), len(intact) // 20)} == {"refused"}
    assert outcome(intact) == "read"
