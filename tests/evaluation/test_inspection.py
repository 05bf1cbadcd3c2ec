"""Numbers of an inspection follow from the spikes themselves, whatever the batches."""

import dataclasses
import io
import json
import shutil

import jax
import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.cli import main
from csbp_jax.config import Neuron
from csbp_jax.evaluation import inspection, restore, synaptic_ops
from csbp_jax.reporting import plots_inspection, terminal
from csbp_jax.reporting.plots import empty_figure


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("inspected") / "run")


@pytest.fixture(scope="module")
def inspected(run):
    text = io.StringIO()
    result = inspection.inspect(run, examples=30, console=terminal.Console(file=text, width=120))
    return result, text.getvalue()


def test_it_is_what_the_spikes_say(run, inspected):
    result, _ = inspected
    opened = restore.restore(run)
    test = data.load(opened.config)["test"]
    rows = np.linspace(0, len(test) - 1, 30).round().astype(int)
    look = jax.jit(lambda v, x: synaptic_ops.count_operations(opened.apply, v, x, inspect=("conv1", "conv2")))
    (_, aux), counts = jax.device_get(look(opened.variables, test.x[rows]))
    assert set(result["layers"]) == {"conv1", "conv2"} and result["examples"] == 30
    for layer, told in result["layers"].items():
        spikes = aux.spikes[layer].reshape(30, 3, -1)
        assert told["neurons"] == spikes.shape[-1]
        assert told["rate"] == pytest.approx(spikes.mean(), rel=1e-6)
        assert told["silent"] == (spikes.sum((0, 1)) == 0).mean()
        assert told["always_firing"] == (spikes.sum((0, 1)) == 90).mean()
        sums = spikes.sum((1, 2))
        expected = {"mean": pytest.approx(sums.mean(dtype=float)), "min": sums.min(), "max": sums.max()}
        assert told["spikes_per_example"] == expected
    for name, told in result["synapses"].items():
        all_of_them = counts[name].operations.sum() / 30
        assert told["acs"] + told["macs"] == pytest.approx(all_of_them) and all_of_them <= told["dense"]
    # The digits are grey values, and the spikes between the layers are averaged over 2x2.
    assert result["synapses"]["conv1.conv"]["acs"] == 0 < result["synapses"]["conv1.conv"]["macs"]
    assert result["synapses"]["readout"]["macs"] == 0 < result["synapses"]["readout"]["acs"]
    assert result["energy_nj"] == pytest.approx((4.6 * result["macs"] + 0.9 * result["acs"]) / 1000)
    assert result["dense"] == sum(told["dense"] for told in result["synapses"].values())


def test_batches_change_nothing(run, inspected, tmp_path):
    """30 examples in batches of 16: the last is padded."""
    copy = shutil.copytree(run, tmp_path / "run")
    about = json.loads((copy / "config.json").read_text())
    about["config"]["eval_batch_size"] = 16
    (copy / "config.json").write_text(json.dumps(about))
    again = inspection.inspect(copy, examples=30, console=terminal.Console(file=io.StringIO()))
    assert (again["layers"], again["synapses"]) == (inspected[0]["layers"], inspected[0]["synapses"])


def test_it_is_shown_drawn_and_kept(run, inspected):
    result, text = inspected
    assert json.loads((run / "inspect.json").read_text()) == result
    names = {"raster", "membranes", "rates", "spikes", "operations"}
    drawn = {path.stem: path.stat().st_size for path in (run / "figures" / "inspect").glob("*.png")}
    assert set(drawn) == names and min(drawn.values()) > 5000
    for word in ("conv2", "readout", "always firing", "nJ an example", str(run / "inspect.json")):
        assert word in text


def test_one_layer(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    assert main.main(["inspect", str(copy), "--layer", "conv2", "--examples", "3", "--split", "train"]) == 0
    told = json.loads((copy / "inspect.json").read_text())
    assert list(told["layers"]) == ["conv2"] and told["examples"] == 3 and "conv1.conv" in told["synapses"]
    assert "conv2" in capsys.readouterr().out


def test_resets_are_drawn_where_they_happen(run, tmp_path):
    """The drawn path goes up to u and, after a spike, down by the rule of the neuron."""
    u, spikes = np.array([[0.5], [1.5], [0.2]]), np.array([[0], [1], [0]])
    for reset, after in (("hard", 0.0), ("soft", 0.25), ("none", 1.5)):
        axes = empty_figure(2, 2).subplots()
        neuron = dataclasses.replace(Neuron(), threshold=1.25, reset=reset)
        plots_inspection._membranes(axes, {"membranes": u, "spikes": spikes}, neuron)
        path, mark = axes.lines[0].get_xydata(), axes.lines[1].get_xydata()
        assert path.tolist() == [[0, 0], [1, 0.5], [1, 0.5], [2, 1.5], [2, after], [3, 0.2], [3, 0.2]]
        assert mark.tolist() == [[2, 1.5]] and axes.lines[2].get_ydata()[0] == 1.25


WRONG = {
    "inspect": "RUN: missing; write csbp_jax inspect RUN, its folder",
    "inspect {run} --layer conv9": "inspect: this network has no conv9; it has conv1, conv2",
    "inspect {run} --examples 0": "--examples: '0' is not possible; allowed is a positive whole number",
    "inspect {run} --split some": "--split: 'some' is not possible; allowed are test, validation, train",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_told_in_one_line(line, run, capsys):
    assert main.main([word.format(run=run) for word in line.split()]) == 2
    told = capsys.readouterr().err
    assert told.startswith("csbp_jax: ") and told.count("\n") == 1 and WRONG[line] in told
