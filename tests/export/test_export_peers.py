"""NIR graphs of networks of this package give equal spikes in snnTorch and norse, in an environment of their own."""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

import jax
import nir
import numpy as np
import pytest
from test_export import EXPRESSIBLE, LARGE, firing_run

from csbp_jax.config import Model, Neuron
from csbp_jax.export import nir_graph
from tests.support.checkout import environment

PACKAGES = ("torch", "snntorch==1.0.0", "norse==1.1.0", "nirtorch==2.6", "nir==1.0.8")
SCRIPT = pathlib.Path(__file__).parents[1] / "support" / "nir_in_peers.py"
CASES = {
    "lif": EXPRESSIBLE["lif"],
    "if": EXPRESSIBLE["if"],
    "plif": Model(name="dense", features=(32, 32), time_steps=12, neuron=Neuron(decay=0.5, learn="layer")),
    "recurrent_plif": Model(name="recurrent", features=(32,), time_steps=12, neuron=Neuron(decay=0.5, learn="layer")),
    "plif_channels": EXPRESSIBLE["plif of each channel"],
    "conv": Model(features=(6, 8)),
    "conv_plif": Model(features=(6, 8), neuron=Neuron(decay=0.5, learn="layer")),
    "votes": LARGE["pools, votes"],
    "sums": LARGE["sums of currents"],
}
SNNTORCH = ("lif", "plif", "conv", "conv_plif", "votes", "sums")
NORSE = ("if", "plif", "recurrent_plif")


@pytest.fixture(scope="module")
def peer():
    """The Python of an environment with the other libraries."""
    with tempfile.TemporaryDirectory() as folder:
        yield environment(folder, *PACKAGES) / "python"


def compared(peer, library, names, folder):
    for name in names:
        restored, x = firing_run(CASES[name])
        nir_graph.write(restored, {}, folder / f"{name}.nir")
        read = nir.read(folder / f"{name}.nir")
        spiking = tuple(layer for layer, node in read.nodes.items() if isinstance(node, nir.LIF | nir.IF))
        _, aux = jax.jit(lambda v, x, run=restored, on=spiking: run.apply(v, x, inspect=on))(restored.variables, x)
        first: dict[str, Any] = {}
        for layer, spikes in aux.spikes.items():
            first[layer] = np.asarray(spikes[0] if spikes.ndim == 3 else np.moveaxis(spikes[0], -1, 1))
        np.savez(folder / f"{name}.npz", x=np.moveaxis(x[0], -1, 1), **first)
    done = subprocess.run([peer, SCRIPT, library, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["name"] for row in rows] == sorted(names)
    assert min(row["spikes"] for row in rows) > 20, rows
    return {row["name"]: row["different"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("library, names", [("snntorch", SNNTORCH), ("norse", NORSE)])
def test_spikes_are_equal_in_norse_if_the_resistance_is_1(peer, library, names, tmp_path):
    assert compared(peer, library, names, tmp_path) == dict.fromkeys(names, 0)


@pytest.mark.slow
@pytest.mark.parametrize("library, name", [("snntorch", "plif_channels"), ("norse", "lif")])
def test_snntorch_reads_the_constants_of_a_single_channel_and_norse_no_resistance(peer, library, name, tmp_path):
    """If this fails, the library has learnt to read them, and docs/using.md must be changed."""
    assert compared(peer, library, (name,), tmp_path)[name] > 0
