"""Inspection of a run: its numbers follow from the spikes and do not depend on the batch size."""

import dataclasses
import io
import json
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from csbp_jax import data, models
from csbp_jax.cli import main
from csbp_jax.config import Neuron, replaced
from csbp_jax.evaluation import inspection, synaptic_ops
from csbp_jax.reporting import plots_inspection, terminal
from csbp_jax.reporting.plots import empty_figure
from csbp_jax.runs import restore


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("inspected") / ("run-of-a-long-name-" * 4))


@pytest.fixture
def no_figures(monkeypatch):
    """Skip the drawing, which takes most of the time."""
    monkeypatch.setattr(plots_inspection, "draw", lambda *arguments: None)


@pytest.fixture(scope="module")
def inspected(run):
    text = io.StringIO()
    result = inspection.inspect(run, examples=30, console=terminal.Console(file=text, width=120))
    return result, text.getvalue()


def test_numbers_follow_from_the_spikes(run, inspected):
    result, _ = inspected
    restored = restore.restore(run)
    test: Any = data.load(restored.config)["test"]
    rows = np.linspace(0, len(test) - 1, 30).round().astype(int)
    count = jax.jit(lambda v, x: synaptic_ops.count_synops(restored.apply, v, x, inspect=("conv1", "conv2")))
    (_, aux), synops = jax.device_get(count(restored.variables, test.x[rows]))
    assert set(result["layers"]) == {"conv1", "conv2"} and result["examples"] == 30
    for layer, row in result["layers"].items():
        spikes = aux.spikes[layer].reshape(30, 3, -1)
        assert row["neurons"] == spikes.shape[-1]
        assert row["rate"] == pytest.approx(spikes.mean(), rel=1e-6)
        assert row["silent"] == (spikes.sum((0, 1)) == 0).mean()
        assert row["always_firing"] == (spikes.sum((0, 1)) == 90).mean()
        sums = spikes.sum((1, 2))
        expected = {"mean": pytest.approx(sums.mean(dtype=float)), "min": sums.min(), "max": sums.max()}
        assert row["spikes_per_example"] == expected
    for name, row in result["synapses"].items():
        effective = synops[name].effective.sum() / 30
        assert row["acs"] + row["macs"] == pytest.approx(effective) and effective <= row["dense"]
    # The digits are grey values, and the spikes between the layers are averaged over 2x2.
    assert result["synapses"]["conv1.conv"]["acs"] == 0 < result["synapses"]["conv1.conv"]["macs"]
    assert result["synapses"]["readout"]["macs"] == 0 < result["synapses"]["readout"]["acs"]
    assert result["energy_nj"] == pytest.approx((4.6 * result["macs"] + 0.9 * result["acs"]) / 1000)
    assert result["dense"] == sum(row["dense"] for row in result["synapses"].values())


@pytest.mark.full
def test_numbers_do_not_depend_on_the_batch_size(run, inspected, no_figures, tmp_path):
    """30 examples in batches of 16: the last is padded."""
    restored = restore.restore(run)
    smaller = restored._replace(folder=tmp_path, config=restored.config.replace(eval_batch_size=16))
    again = inspection.inspect(smaller, examples=30, console=terminal.Console(file=io.StringIO()))
    assert (again["layers"], again["synapses"]) == (inspected[0]["layers"], inspected[0]["synapses"])


@pytest.mark.full
def test_integers_of_ilif_are_spikes(run, tmp_path, monkeypatch):
    restored = restore.restore(run)
    config = replaced(replaced(restored.config, "model.neuron.name", "ilif"), "model.neuron.levels", 2)
    network: Any = models.build(config.model)
    restored = restored._replace(folder=tmp_path, config=config, apply=network.apply)
    drawn: list[Any] = []
    monkeypatch.setattr(
        plots_inspection, "draw", lambda folder, result, x, layers, neurons: drawn.append((layers, neurons))
    )
    result = inspection.inspect(restored, examples=30, console=terminal.Console(file=io.StringIO()))
    ((layers, neurons),) = drawn
    assert set(neurons.values()) == {None} and max(layers[name]["spikes"].max() for name in layers) == 2
    for name, row in result["layers"].items():
        assert row["always_firing"] == layers[name]["always"].mean() <= (layers[name]["rates"] >= 1).mean()
    # Integers reach the read-out, and averages over 2x2 reach conv2.
    assert result["synapses"]["readout"]["macs"] == 0 < result["synapses"]["readout"]["acs"]


def test_numbers_are_printed_drawn_and_written(run, inspected):
    result, text = inspected
    assert json.loads((run / "inspect.json").read_text()) == result
    assert text.startswith(f"{run.name}: 30 examples of the test split, weights of the last epoch (2)\n")
    assert result["example"]["number"] == 0 and set(result["example"]) == {"number", "class", "predicted"}
    names = {"raster", "membranes", "rates", "spikes", "operations"}
    drawn = {path.stem: path.stat().st_size for path in (run / "figures" / "inspect").glob("*.png")}
    assert set(drawn) == names and min(drawn.values()) > 5000
    for word in (
        "conv2",
        "readout",
        "always firing",
        "J per example, at 4.6 pJ",
        "averages or sums of spikes",
        str(run / "inspect.json"),
    ):
        assert word in text


@pytest.mark.full
def test_a_single_layer(run, no_figures, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    assert main.main(["inspect", str(copy), "--layer", "conv2", "--examples", "3", "--split", "train"]) == 0
    result = json.loads((copy / "inspect.json").read_text())
    assert list(result["layers"]) == ["conv2"] and result["examples"] == 3 and "conv1.conv" in result["synapses"]
    assert "conv2" in capsys.readouterr().out


@pytest.mark.full
def test_a_neuron_without_trace_has_all_but_membranes(run, tmp_path):
    restored = restore.restore(run)._replace(folder=tmp_path)
    cell: Any = models.neuron(restored.config.model.neuron)
    network: Any = models.build(restored.config.model, lambda x, state=None: cell(x, state))
    text, rates = io.StringIO(), {}
    for name, seen in (("function", restored._replace(apply=network.apply)), ("traced", restored)):
        console = terminal.Console(file=text, width=120)
        result = inspection.inspect(seen, layers=("conv2",), examples=3, console=console)
        rates[name] = result["layers"]["conv2"]["rate"]
        drawn = {path.name for path in (tmp_path / "figures" / "inspect").iterdir()}
        assert "raster.png" in drawn and ("membranes.png" in drawn) == (name == "traced")
    assert rates["function"] == pytest.approx(rates["traced"], rel=1e-3) and rates["traced"] > 0
    assert text.getvalue().count("membranes    not of conv2, whose neuron has no method trace (docs/own.md)\n") == 1


def test_resets_are_drawn_at_their_time_step():
    """The drawn path goes up to u and, after a spike, down by the reset rule of the neuron."""
    u, spikes = np.array([[0.5], [1.5], [0.2]]), np.array([[0], [1], [0]])
    resets: dict[Any, float] = {"hard": 0.0, "soft": 0.25, "none": 1.5}
    for reset, after in resets.items():
        axes = empty_figure(2, 2).subplots()
        neuron = dataclasses.replace(Neuron(), threshold=1.25, reset=reset)
        plots_inspection._membranes(axes, {"membranes": u, "spikes": spikes, "shape": (1,)}, neuron)
        path, mark = (np.asarray(line.get_xydata()) for line in axes.lines[:2])
        assert path.tolist() == [[0, 0], [1, 0.5], [1, 0.5], [2, 1.5], [2, after], [3, 0.2], [3, 0.2]]
        assert mark.tolist() == [[2, 1.5]] and np.asarray(axes.lines[2].get_ydata())[0] == 1.25


def test_membranes_are_those_of_named_neurons():
    u = np.random.default_rng(0).random((2, 12))
    axes = empty_figure(2, 2).subplots()
    activity = {"membranes": u, "spikes": np.zeros_like(u), "shape": (2, 2, 3)}
    plots_inspection._membranes(axes, activity, Neuron())
    legend: Any = axes.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 4
    for name, line in zip(names, axes.lines[::2], strict=False):
        row, column, channel = map(int, re.findall(r"\d", name))
        assert np.asarray(line.get_ydata())[1::2].tolist() == u.reshape(2, 2, 2, 3)[:, row, column, channel].tolist()


def test_operations_of_all_sizes_are_seen():
    synapses = {
        "conv1.conv": {"acs": 0.0, "macs": 3e8, "dense": 4e8},
        "readout": {"acs": 120.5, "macs": 0.0, "dense": 900},
    }
    result = {"run": "run", "examples": 7, "energy_nj": 12.5, "synapses": synapses}
    figure = plots_inspection.operations_figure(result)
    (axes,) = figure.axes
    accumulates, multiplies, dense = (np.asarray(line.get_xdata()).tolist() for line in axes.lines)
    assert (accumulates, multiplies, dense) == ([120.5], [3e8], [4e8, 900])
    figure.draw_without_rendering()
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([(120.5, 1), (3e8, 0)]))[:, 0]
    assert 0.05 < low < high < 0.95  # a tiny number is not at the edge
    assert [text.get_text() for text in axes.texts] == ["120", "300,000,000"]
    assert figure.get_suptitle() == "run: mean of 7 examples, 12.5 nJ per example"
    assert "averages or sums of spikes" in axes.get_xlabel()
