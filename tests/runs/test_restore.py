"""Restoring a run: its weights are those that it was tested with; other folders raise a one-line error."""

import functools
import itertools
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import csbp_jax
from csbp_jax import configs, data
from csbp_jax.cli import main
from csbp_jax.config import ConfigError, replaced
from csbp_jax.evaluation import html_report, predict
from csbp_jax.export import export
from csbp_jax.runs import Run, restore
from csbp_jax.training import run_json
from csbp_jax.weights import nir_file
from tests.support.run_copies import edited

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded(trained):
    return csbp_jax.load(trained)


@pytest.mark.parametrize("which", ["last", "chosen"])
def test_the_loaded_network_reproduces_the_test_accuracy(trained, which):
    apply, variables, config = csbp_jax.load(trained, which)
    test: Any = data.load(config)["test"]
    logits, aux = jax.jit(functools.partial(apply, inspect=("conv1",)))(variables, test.x)
    assert logits.shape == (359, 3, 10) and aux.spikes["conv1"].shape == (359, 3, 8, 8, 4)
    correct = np.asarray(logits).mean(1).argmax(1) == test.y
    result = json.loads((trained / "result.json").read_text())[which]
    assert correct.mean() == pytest.approx(result["test_accuracy"], abs=1e-9)


def test_a_stopped_run_is_restored_from_its_newest_checkpoint(trained, loaded, tmp_path):
    run = shutil.copytree(trained, tmp_path / "stopped")
    shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    (run / "result.json").unlink()
    restored = restore.restore(run)
    assert restored.epoch == 1 and restored.weights_of == "last"
    earlier, later = (of["params"]["conv1"]["conv"]["kernel"] for of in (restored.variables, loaded[1]))
    assert np.abs(earlier - later).max() > 1e-4


@pytest.mark.parametrize("value, dtype", [(np.nan, np.float32), (1e300, np.float64)])
def test_weights_that_are_not_finite_are_refused(tmp_path, value, dtype):
    folder = shutil.copytree(ROOT / "csbp_jax" / "weights" / "trained" / "digits", tmp_path / "r")
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    name = sorted(arrays)[-1]
    arrays[name] = np.full(arrays[name].shape, value, dtype)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=rf"^{folder}: its weights are not finite \({name}\); take other weights"):
        csbp_jax.load(folder)


@pytest.mark.full
@pytest.mark.parametrize(
    "network",
    [
        {"name": "dense", "features": [8] * 200},
        {"name": "spikformer_cifar", "features": None, "depth": 64, "embed": 8, "heads": 1},
    ],
    ids=lambda network: network["name"],
)
def test_the_deepest_network_that_a_stranger_can_publish_is_compared_with_its_weights_in_seconds(tmp_path, network):
    folder = shutil.copytree(ROOT / "csbp_jax" / "weights" / "trained" / "digits", tmp_path / "r")
    content = json.loads((folder / "config.json").read_text())
    content["config"]["model"] |= {"input_shape": [32, 32, 3], "pool": None, **network}
    content["config"]["chaos"] |= {"taps": [], "z0": [0.0]}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k != "sha256"}))
    signal.alarm(60)
    try:
        with pytest.raises(
            ConfigError, match=r"model.safetensors: (has|lacks) .* is not of the network in config.json"
        ):
            csbp_jax.load(folder)
    finally:
        signal.alarm(0)


def test_restoring_changes_no_file(trained):
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    csbp_jax.load(str(trained))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))


@pytest.mark.full
def test_python_of_the_docs(trained, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "using.md").read_text()
    block, stream, nnx_module, nnx_training, from_nir, _hub, notebook = re.findall(
        r"```python\n(.*?)```", text, re.DOTALL
    )
    shutil.copytree(trained, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    load, load_nir = csbp_jax.load, nir_file.load

    def load_jitted(*arguments):
        """Jit ``apply``: eagerly, each operation would be compiled by itself."""
        apply, *rest = load(*arguments)
        return jax.jit(apply, static_argnames="inspect"), *rest

    def load_nir_jitted(file):
        network, variables = load_nir(file)
        return types.SimpleNamespace(apply=jax.jit(network.apply, static_argnames="inspect")), variables

    monkeypatch.setattr(csbp_jax, "load", load_jitted)
    monkeypatch.setattr(nir_file, "load", load_nir_jitted)
    names: dict[str, Any] = {"x": np.zeros((2, 1, 8, 8, 1), np.float32)}
    exec(compile(block, "using.md", "exec"), names)
    assert names["logits"].shape == (2, 3, 10) and names["aux"].membranes["conv1"].shape == (2, 3, 8, 8, 4)
    logits = names["logits"]
    names["chunks"] = [np.zeros((2, t, 8, 8, 1), np.float32) for t in (1, 2)]
    exec(compile(stream.replace("runs/fsdd", "runs/digits"), "using.md", "exec"), names)
    assert names["total"].shape == (2, 10) and names["label"].shape == (2,)

    @jax.jit
    def nnx_blocks(x, variables):
        """Both in one program, for the same reason."""
        traced = names | {"x": x, "variables": variables}
        exec(compile(nnx_module, "using.md", "exec"), traced)
        evaluated, before = traced["logits"], traced["net"].conv1["norm"]["mean"][...]
        exec(compile(nnx_training, "using.md", "exec"), traced)
        return evaluated, before, traced["net"].conv1["norm"]["mean"][...], traced["aux"].terms["conv1.membrane"]

    evaluated, before, after, term = nnx_blocks(names["x"], names["variables"])
    np.testing.assert_array_equal(evaluated, logits)
    assert float(term) > 0.6
    assert not np.array_equal(after, before)
    export("runs/digits", "nir")
    exec(compile(from_nir, "using.md", "exec"), names)
    np.testing.assert_array_equal(names["logits"], logits)
    # The first is the run as it was trained, whose checkpoint can be read.
    for number, (z0, seed) in enumerate(itertools.product((10.0, 0.0), (0, 1))):
        edited(trained, tmp_path / "runs" / f"{number}", accuracy=0.9, chaos__z0=[z0], seed=seed)
    shutil.rmtree("runs/digits")
    monkeypatch.setattr(csbp_jax, "load", load)
    exec(compile(notebook, "using.md", "exec"), names)
    assert len(names["table"].frame) == 4 and len(list(pathlib.Path("figures").iterdir())) == 4


def test_importing_the_package_imports_no_jax():
    code = "import csbp_jax, sys; assert {'load', 'chaos'} <= set(dir(csbp_jax)); assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert callable(csbp_jax.load) and callable(csbp_jax.chaos.term) and not hasattr(csbp_jax, "gone")


def test_names_of_classes_are_read_from_the_folder(trained, tmp_path):
    assert restore.restore(trained).classes == list("0123456789")
    run = shutil.copytree(trained, tmp_path / "run")
    content = run_json.read_config(run)
    del content["classes"]
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.uint8))
    names = list("abcdefghij")
    for more, classes in (({"classes": ["a"]}, []), ({}, []), ({"classes": names}, names)):
        (run / "config.json").write_text(json.dumps(content | more))
        assert restore.restore(run).classes == classes
    (answer,) = predict.predict(run, [tmp_path / "x.npy"], top=10)
    assert sorted(answer.labels) == names


@pytest.mark.parametrize(
    "x, message",
    [
        (
            np.zeros((2, 8, 8, 1), np.float32),
            r"x has shape (2, 8, 8, 1), but must be [B, 3 or 1, 8, 8, 1]; add the time",
        ),
        (np.zeros((2, 1, 9, 8, 1), np.float32), "x has shape (2, 1, 9, 8, 1), but must be [B, 3 or 1, 8, 8, 1]"),
        (np.zeros((2, 1, 8, 8, 1), np.uint8), "x is uint8, but must be float32 [B, 3 or 1, 8, 8, 1], scaled and"),
    ],
)
def test_another_input_is_refused_in_one_line(loaded, x, message):
    apply, variables, _ = loaded
    with pytest.raises(ValueError, match=f"apply: {re.escape(message)}") as caught:
        apply(variables, x)
    assert "\n" not in str(caught.value)


def test_sequences_of_other_lengths_are_taken(loaded):
    apply, variables, config = loaded
    assert config.model.time_steps == 3
    for steps in (2, 5):
        assert jax.eval_shape(apply, variables, np.zeros((2, steps, 8, 8, 1), np.float32))[0].shape == (2, steps, 10)


def test_data_of_other_classes_are_refused(tmp_path):
    def config(*names):
        for name in names:
            (tmp_path / "-".join(names) / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "-".join(names) / name / f"{i}.png")
        return replaced(configs.load("folder"), "data.dir", str(tmp_path / "-".join(names)))

    run = restore.restore("digits")._replace(folder=pathlib.Path("runs/r"), classes=["cat", "dog"])
    two = [replaced(config(*names), "model.classes", 2) for names in (("cat", "dog"), ("ant", "dog"))]
    assert len(restore.load_data(run._replace(config=two[0]), tmp_path)[0]["test"]) == 2
    assert restore.load_data(run._replace(config=two[1], classes=[]), tmp_path)  # names of its classes are not known
    message = "runs/r: class 0 of its data is 'ant', but was 'cat' in training; put the data back"
    with pytest.raises(ConfigError, match=message):
        restore.load_data(run._replace(config=two[1]), tmp_path)


@pytest.mark.full
def test_data_that_have_moved_are_named(tmp_path, monkeypatch, capsys, refused):
    """By the commands that restore a network and read data, which need not write into the run's config."""
    monkeypatch.chdir(tmp_path)
    for i in range(16):
        file = tmp_path / "old" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(file)
    words = "--epochs 1 --batch-size 8 --model.features 2 2 --model.time-steps 2 --chaos.taps conv1.norm"
    assert main.main(f"train folder --data.dir old --name r --runs . {words}".split()) == 0
    pathlib.Path("old").rename("new")
    for command in ("evaluate r", "inspect r --examples 2", "robustness r --only noise --examples 2"):
        assert "r: its data, old, are not there" in refused(*command.split())
        assert main.main([*command.split(), "--data.dir", "new"]) == 0
        assert "have changed" not in capsys.readouterr().err


def test_a_damaged_config_is_not_answered_with_an_option_of_training(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (run / "config.json").write_text('{"conf')
    for read in (csbp_jax.load, Run.read, lambda run: html_report.write([run])):
        with pytest.raises(ConfigError, match=r"config.json: cannot be read; restore it from a copy, or train again$"):
            read(run)
