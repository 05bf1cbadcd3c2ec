"""Networks on the Hugging Face hub: pushed and loaded by its real client, against a server on this machine."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.export import export, model_card
from csbp_jax.export import hub as publication
from csbp_jax.runs import hub, restore
from csbp_jax.runtime import seals
from tests.support import hub_server

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

# Of a call within the client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")
MODEL = "hf://user/net"


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("pushed") / "run")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub, and a client that knows it, with an empty cache; commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with hub_server.serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", running.url),
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server has no such storage
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """A published folder of the run."""
    path = tmp_path_factory.mktemp("published") / "network"
    publication.write_folder(run, path, "user/net")
    return path


def pushed(server, folder):
    """Commit a folder's files to user/net, without the client."""
    server.repositories.setdefault("user/net", {"main": {}})
    server.private.setdefault("user/net", False)
    return server.commit("user/net", {file.name: file.read_bytes() for file in folder.iterdir()})


def test_push_and_load(server, run, capsys):
    assert main.main(["push", str(run), "user/net"]) == 0, capsys.readouterr().err
    address = capsys.readouterr().out.strip()
    assert re.fullmatch("hf://user/net@[0-9a-f]{40}", address)
    assert set(server.repositories["user/net"]["main"]) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "result.json",
    }
    assert any(request.startswith("PUT /upload/") for request in server.requests) and not server.private["user/net"]
    expected = restore.restore(run)
    for name in (MODEL, address, pathlib.Path(MODEL)):
        restored = restore.restore(name)
        jax.tree.map(np.testing.assert_array_equal, restored.variables, expected.variables)
        assert restored[1:3:2] == expected[1:3:2] and restored.folder == pathlib.Path("hub/user/net")
        assert (restored.weights_of, restored.epoch, restored.data, restored.classes) == expected[4:8]
    apply, variables, config = csbp_jax.load(MODEL)
    x = np.zeros((1, 1, 8, 8, 1), np.float32)
    logits = jax.jit(apply)(variables, x)[0]
    np.testing.assert_array_equal(logits, jax.jit(expected.apply)(expected.variables, x)[0])
    assert config == expected.config and not list(pathlib.Path().glob("hub"))


def test_a_second_push_is_a_second_revision(server, run):
    first = publication.push(run, "user/net", private=True)
    second = publication.push(run, MODEL, weights_of="chosen")
    assert first != second and server.private["user/net"]
    assert restore.restore(first).weights_of == "last" and restore.restore(second).weights_of == "chosen"
    assert export(MODEL, "npz") == pathlib.Path("hub/user/net/export/chosen.npz")
    with pytest.raises(
        ConfigError, match="hf://user/net: has only the weights of the chosen epoch, not those of 'ema'"
    ):
        restore.restore(MODEL, "ema")


def test_a_second_push_leaves_no_file_of_the_first_run(server, run, tmp_path):
    first = shutil.copytree(run, tmp_path / "first")
    (first / "experiment.py").write_text("")
    publication.push(first, "user/net")
    server.commit("user/net", {"LICENSE": b"MIT", ".gitattributes": b""})
    (first / "experiment.py").unlink()
    (first / "result.json").unlink()
    before = len(server.repositories["user/net"])
    for _ in range(2):  # the second finds nothing to delete
        publication.push(first, "user/net", weights_of="chosen")
    assert len(server.repositories["user/net"]) == before + 2
    expected = {"README.md", "config.json", "model.safetensors", "LICENSE", ".gitattributes"}
    assert set(server.repositories["user/net"]["main"]) == expected


def test_commands_take_a_network_on_the_hub(server, folder, tmp_path, capsys):
    pushed(server, folder)
    np.save("a.npy", np.zeros((8, 8), np.uint8))
    assert main.main(["predict", MODEL, "a.npy"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.startswith("file,label,probability\na.npy,")
    assert main.main(["export", MODEL, "--to", "npz"]) == 0
    assert capsys.readouterr().out.strip() == "hub/user/net/export/last.npz"
    assert main.main(["compare", MODEL]) == 2
    assert "evaluate, predict, inspect, robustness and export take a network on the hub" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "hub", "cache"}


@pytest.mark.slow
def test_measurements_of_a_network_on_the_hub(server, folder, capsys):
    pushed(server, folder)
    assert main.main(["evaluate", MODEL]) == 0, capsys.readouterr().err
    measured = json.loads(pathlib.Path("hub/user/net/evaluation-test-last.json").read_text())
    assert measured["accuracy"] == json.loads((folder / "result.json").read_text())["last"]["test_accuracy"]
    assert not measured["data_changed"]
    assert main.main(["inspect", MODEL, "--examples", "2"]) == 0, capsys.readouterr().err
    assert pathlib.Path("hub/user/net/inspect.json").exists()


def test_only_three_files_are_downloaded_once_and_offline_the_cache_serves(server, folder, monkeypatch):
    pushed(server, folder)
    restore.restore(MODEL)
    downloads = [request for request in server.requests if request.startswith("GET")]
    assert sorted(request.rpartition("/")[2] for request in downloads) == ["config.json", "model.safetensors"]
    restore.restore(MODEL)
    assert [request for request in server.requests if request.startswith("GET")] == downloads
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    count = len(server.requests)
    restore.restore(MODEL)
    with pytest.raises(ConfigError, match=r"hf://user/other: config.json is not in the cache, and the hub cannot be"):
        restore.restore("hf://user/other")
    assert len(server.requests) == count


def test_the_folder_loads_from_disk(folder, run):
    restored, expected = restore.restore(folder), restore.restore(run)
    jax.tree.map(np.testing.assert_array_equal, restored.variables, expected.variables)
    assert restored.config == expected.config and restored.folder == folder
    copied, original = (seals.parse((path / "config.json").read_bytes()) for path in (folder, run))
    assert copied == original | {key: copied[key] for key in ("weights_of", "epoch", "producer")}
    assert (copied["weights_of"], copied["epoch"]) == ("last", 2)


def card_of(folder):
    text = (folder / "README.md").read_text()
    return huggingface_hub.ModelCard(text), text


def test_the_card_has_what_was_measured(folder, run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    card, text = card_of(folder)
    (measured,) = card.data.eval_results
    assert (measured.metric_value, measured.dataset_split) == (result["last"]["test_accuracy"], "test")
    assert card.data.library_name == "csbp_jax" and card.data.license is None
    for kind, label in (("last", "weights of the last epoch"), ("chosen", "weights of the chosen epoch")):
        assert f"| {label} | {result[kind]['epoch']} | {result[kind]['test_accuracy']:.2%} | " in text
    parameters = sum(leaf.size for leaf in jax.tree.leaves(restore.restore(run).variables["params"]))
    assert f"`small_conv`, {parameters:,} parameters, 3 time steps" in text and "Seed 0, one run." in text
    assert f"Version {csbp_jax.__version__} made this page" in text and "last epoch (epoch 2 of 2)" in text
    assert "359 examples" in text
    assert "nergy" not in text and "ynaptic operations" not in text and str(run.parent) not in text


def test_the_card_has_energy_only_if_it_was_computed_for_these_weights(run, tmp_path):
    source = shutil.copytree(run, tmp_path / "run")
    counts = {"weights_of": "last", "epoch": 2, "examples": 7, "split": "test", "acs": 1200.4, "macs": 30.0}
    (source / "inspect.json").write_text(json.dumps(counts | {"energy_nj": 1.25, "ac_pj": 0.9, "mac_pj": 4.6}))
    publication.write_folder(source, tmp_path / "last", "user/net")
    text = card_of(tmp_path / "last")[1]
    assert "mean of 7 of the test split: 1,200 accumulates, 30 multiply-accumulates" in text and ": 1.25 nJ." in text
    (source / "inspect.json").write_text(json.dumps(counts | {"weights_of": "chosen"}))
    publication.write_folder(source, tmp_path / "other", "user/net")
    assert "nergy" not in card_of(tmp_path / "other")[1]
    (source / "result.json").unlink()
    publication.write_folder(source, tmp_path / "unfinished", "user/net")
    card, text = card_of(tmp_path / "unfinished")
    assert "its test accuracy was not measured" in text and not card.data.eval_results
    with pytest.raises(ConfigError, match="unfinished: exists; name a new folder"):
        publication.write_folder(source, tmp_path / "unfinished", "user/net")


def test_the_card_names_a_control(run):
    restored = restore.restore(run)
    sentence = model_card._training(restored._replace(config=restored.config.replace("chaos.substeps", 20)))
    assert "Training: backpropagation with the term `chaos` in 20 sub-steps, z0 = " in sentence


def test_paths_of_this_machine_are_not_published(run, tmp_path):
    source = tmp_path / "published"  # unlike checkpoints, its weights do not say of which config they are
    publication.write_folder(run, source, "user/net")
    content = seals.parse((source / "config.json").read_bytes())
    content["config"]["data"] |= {"name": "folder", "dir": "/home/name/secret/pictures"}
    content["config"] |= {"weights": "/home/name/secret/a.pth"}
    seals.write_json(source / "config.json", content)
    publication.write_folder(source, tmp_path / "out", "user/net")
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "out").iterdir())
    config = restore.restore(tmp_path / "out").config
    assert (config.data.dir, config.weights) == ("pictures", "a.pth")


@pytest.mark.parametrize(
    "address", ["hf://user", "hf://user/net/more", "hf://../net", "hf://user/net@", "hf://user/net@../a b", "hf:///net"]
)
def test_wrong_addresses(address):
    with pytest.raises(ConfigError, match="is no address on the hub; write hf://USER/NAME or hf://USER/NAME@REVISION"):
        hub.parse(address)


def test_what_the_hub_does_not_have(server, folder, run, refused):
    missing = "hf://user/net: there is no such repository, or it is private; for a private one, log in (hf auth"
    assert missing in refused("export", MODEL)
    number = pushed(server, folder)
    assert "a push makes a new revision; leave out @" in refused("push", run, f"{MODEL}@{number}")
    assert "hf://user/net@v2: has no such revision" in refused("export", f"{MODEL}@v2")
    del server.repositories["user/net"]["main"]["model.safetensors"]
    said = refused("export", f"{MODEL}@main")
    assert "hf://user/net@main: has no model.safetensors; it is not a network of csbp_jax" in said
    server.token = "another"
    said = refused("push", run, "user/net")
    assert "hf://user/net: the hub refuses (status 401); log in (hf auth login), or set" in said


def test_large_files_are_not_downloaded(server, folder, monkeypatch):
    pushed(server, folder)
    server.sizes |= {"config.json": 2**30, "model.safetensors": 5 * 2**30}
    with pytest.raises(ConfigError, match=r"config.json is 1,073,741,824 bytes"):
        restore.restore(MODEL)
    del server.sizes["config.json"]
    with pytest.raises(ConfigError, match=r"model.safetensors is 5,368,709,120 bytes; at most 4,294,967,296 bytes are"):
        restore.restore(MODEL)
    assert not any(request.startswith("GET") and "model" in request for request in server.requests)


def test_the_package_is_optional(monkeypatch, run, refused):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for command in (["push", str(run), "user/net"], ["predict", MODEL, "a.png"]):
        assert "needs the package huggingface_hub; pip install 'csbp_jax[hub]'\n" in refused(*command)


PLUGIN = """
from csbp_jax import config as configuration, configs
import dataclasses, optax, pathlib

pathlib.Path("executed").touch()
digits = configs.load("digits")
config = dataclasses.replace(digits, epochs=1, batch_size=256, model=dataclasses.replace(
    digits.model, features=(2, 2), time_steps=2))


def control(config, tx):
    return optax.chain(tx, optax.identity())
"""


@pytest.mark.slow
def test_code_of_its_own_runs_only_if_it_is_trusted(server, tmp_path, capsys):
    pathlib.Path("mine.py").write_text(PLUGIN)
    assert main.main(["train", "mine.py", "--name", "mine"]) == 0, capsys.readouterr().err
    assert main.main(["push", "runs/mine", "user/net"]) == 2
    assert "give --trust" in capsys.readouterr().err
    assert main.main(["push", "runs/mine", "user/net", "--trust"]) == 0
    assert str(tmp_path) not in server.repositories["user/net"]["main"]["config.json"].decode()
    text = server.repositories["user/net"]["main"]["README.md"].decode()
    assert "Code of its own (control) is in `experiment.py`" in text and ", trust=True)" in text
    pathlib.Path("executed").unlink()
    with pytest.raises(ConfigError, match=r"which may do anything that you may; .*trust=True"):
        csbp_jax.load(MODEL)
    assert not pathlib.Path("executed").exists()
    csbp_jax.load(MODEL, trust=True)
    assert pathlib.Path("executed").exists()


@pytest.mark.slow
def test_push_and_evaluate_as_commands(run, tmp_path):
    """In processes whose client is set up by the environment alone."""
    with hub_server.serving() as running:
        environment = os.environ | {
            "HF_ENDPOINT": running.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": running.token,
            "HF_HUB_DISABLE_XET": "1",
            "JAX_PLATFORMS": "cpu",
        }
        root = str(pathlib.Path(__file__).parents[2])

        def command(*words):
            done = subprocess.run(
                [sys.executable, "-m", "csbp_jax", *words],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env=environment | {"PYTHONPATH": root},
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        address = command("push", str(run), "user/net", "--private").strip()
        expected = json.loads((run / "result.json").read_text())["last"]["test_accuracy"]
        assert f"{expected:.2%}" in command("evaluate", address)
