"""Networks that ship with the package: as accurate as stated, and used where no run has their name."""

import json
import pathlib

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax import configs
from csbp_jax.cli import main
from csbp_jax.config import ConfigError, as_current, to_json
from csbp_jax.evaluation import evaluate
from csbp_jax.export import export
from csbp_jax.runs import Run, restore
from csbp_jax.training.plugins import Own
from csbp_jax.weights import shipped
from tests.support.checkout import ROOT

DRAWINGS = ROOT / "examples" / "drawings"


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stated_numbers(name):
    return json.loads(shipped.folder(name).joinpath("accuracy.json").read_text())


@pytest.mark.full
@pytest.mark.parametrize("name", ["digits", pytest.param("digits_events", marks=pytest.mark.slow)])
def test_the_committed_accuracy_is_that_of_the_committed_weights(name, tmp_path, capsys):
    stated = stated_numbers(name)
    result = evaluate.evaluate_run(name)
    assert result["count"] == stated["test"]["count"] == 359
    assert result["accuracy"] == stated["test"]["accuracy"]
    assert result["nll"] == pytest.approx(stated["test"]["nll"], rel=0.01)
    assert not result["data_changed"] and result["epoch"] == stated["epoch"]
    assert (tmp_path / "shipped" / name / "evaluation-test-last.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["shipped"]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_network_is_small_and_of_the_preset_of_its_name(name):
    sizes = {path.name: path.stat().st_size for path in shipped.folder(name).iterdir()}
    assert set(sizes) == {"model.safetensors", "config.json", "accuracy.json", "card.md"}
    assert sum(sizes.values()) < (300_000 if name.startswith("digits") else 2_000_000)
    content = json.loads(shipped.folder(name).joinpath("config.json").read_text())
    stored = as_current(content["config"])
    restored = json.loads(json.dumps(to_json(restore.restore(name).config)))
    assert {**restored, **stored} | {part: restored[part] | stored[part] for part in ("data", "loss")} == restored
    assert restore.restore(name).config.model == configs.load(name).model


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_card_states_the_measured_numbers(name):
    card, stated = shipped.folder(name).joinpath("card.md").read_text(), stated_numbers(name)
    for split in ("validation", "test"):
        assert f"| {split} | {stated[split]['count']} | {stated[split]['accuracy']:.2%} |" in card
    assert stated["commit"] in card and "dirty" not in stated["commit"]
    _, variables, _ = csbp_jax.load(name)
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(variables)):,} numbers" in card


def test_a_run_of_that_path_wins(tmp_path):
    (tmp_path / "digits").mkdir()  # a directory, but no run
    assert shipped.find("digits") == "digits"
    assert shipped.notice("digits") == "digits: the network that ships with csbp_jax (there is no run ./digits)"
    config = shipped.folder("digits").joinpath("config.json").read_bytes()
    (tmp_path / "digits" / "config.json").write_bytes(config)
    assert shipped.find("digits") is None
    assert shipped.notice("digits") == "digits: the run in this directory, not the network that ships with csbp_jax"
    with pytest.raises(ConfigError, match=r"^digits: has no checkpoint yet"):
        restore.restore("digits")


@pytest.mark.parametrize("run", ["./digits", "runs/digits", pathlib.Path("runs/digits")])
def test_other_paths_name_runs_only(run):
    assert shipped.find(run) is None and shipped.notice(run) is None
    with pytest.raises(ConfigError, match=r"digits: there is no such directory"):
        restore.restore(run)


def test_what_did_not_ship_is_one_line():
    with pytest.raises(ConfigError, match=r"digits: has no own parts, but given are"):
        restore.restore("digits", own=Own(loss=lambda logits, y: 0.0))
    with pytest.raises(ConfigError, match=r"^digits: there is no such directory"):
        Run.read("digits")


def test_the_commands_take_the_name(tmp_path, capsys):
    files = [str(DRAWINGS / f"{digit}.png") for digit in (3, 7)]
    assert main.main(["predict", "digits", *files]) == 0
    printed = capsys.readouterr()
    assert [line.split(",")[1] for line in printed.out.splitlines()] == ["label", "3", "7"]
    assert printed.err == f"csbp_jax: {shipped.notice('digits')}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_recording_is_predicted(capsys):
    assert main.main(["predict", "digits_events", str(DRAWINGS / "7.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split(",")[1] == "7"


@pytest.mark.slow
def test_inspect_takes_the_name(tmp_path):
    assert main.main(["inspect", "digits", "--examples", "4"]) == 0
    assert (tmp_path / "shipped" / "digits" / "figures" / "inspect" / "raster.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shipped"]


def test_an_exported_network_has_the_shipped_weights():
    from safetensors.numpy import load

    file = export("digits")
    assert file == pathlib.Path("shipped/digits/export/last.safetensors")
    original = shipped.folder("digits").joinpath("model.safetensors")
    exported, stored = load(file.read_bytes()), load(original.read_bytes())
    assert exported.keys() == stored.keys()
    assert all(np.array_equal(exported[name], stored[name]) for name in stored)


def test_a_drawing_is_averaged_over_blocks():
    """As the data set was: 32x32 pixels, black or white, to 8x8 counts of 0 to 16."""
    from csbp_jax.data import digits

    pixels = np.random.default_rng(0).integers(0, 2, (32, 32, 1)) * 255
    averaged = digits.from_picture(pixels.astype(np.uint8))
    counts = pixels.reshape(8, 4, 8, 4).sum((1, 3)) // 255
    assert averaged.shape == (8, 8, 1) and averaged.dtype == np.float32
    assert np.abs(averaged[..., 0] - counts / 16).max() < 1e-6
