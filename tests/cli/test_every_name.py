"""Every data set, from small archives in its true format to a trained network, through the command line."""

import dataclasses
import functools
import importlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from csbp_jax import configs, data, models
from csbp_jax.cli import main
from tests.support import event_formats, formats, series_formats
from tests.support.checkout import ROOT
from tests.support.matching import search

pytestmark = pytest.mark.usefixtures("no_figures")
# Of each data set as many records as fill a batch of 8 (the virtual devices) after validation is taken away.
SMALL = "--model.time-steps 2 --epochs 1 --batch-size 8 --eval-batch-size 8 --data.threads 1 --data.validation 0.2"
WRITERS: dict[str, Callable[..., Any]] = {
    "cifar10": lambda folder: formats.cifar10(folder, per_file=10),
    "cifar100": formats.cifar100,
    "mnist": formats.mnist,
    "fashion_mnist": formats.mnist,
    "imagenet": formats.imagenet,
    **{
        name: functools.partial(event_formats.trees, name)
        for name in ("cifar10_dvs", "dvs_gesture", "nmnist", "ncaltech101", "shd", "ssc", "fsdd")
    },
    "cifar10_events": lambda folder: formats.cifar10(folder, per_file=10),
    **dict.fromkeys(("mnist_sequential", "mnist_permuted"), formats.mnist),
    **series_formats.WRITERS,
}
OTHER = {
    "mnist": "--data.size 8 8 --model.input-shape 8 8 1",
    **dict.fromkeys(("mnist_sequential", "mnist_permuted"), "--data.size 2 2 --model.time-steps 4 --chaos.z0 1"),
    "imagenet": "--data.size 32 32 --model.input-shape 32 32 3 --optimizer.warmup-epochs 0",
    "dvs_gesture": "--data.frames 2 --data.size 32 32 --model.input-shape 32 32 2",
    "cifar10_dvs": "--data.size 16 16 --model.input-shape 16 16 2",
    "ncaltech101": "--data.size 16 16 --model.input-shape 16 16 2",
    "omniglot_strokes": "--model.time-steps 5 --model.classes 0",
}


FAST = ("mnist",)
PUBLISHED = {
    "cifar10": "cifar10_tebn_resnet19",
    "cifar100": "cifar100_tebn_resnet19",
    "cifar10_dvs": "cifar10_dvs_tebn_cnn7",
    "dvs_gesture": "dvs_gesture_sew_7b",
    "imagenet": "imagenet_sew_resnet34",
}
"""Of each data set with published results, the preset that its name stands for."""


@pytest.fixture
def prepare_and_train(tmp_path, monkeypatch, capsys):
    """Prepares the data of a preset from small archives, and trains on them; what was printed last, and the result."""

    def run(preset, *options):
        written = WRITERS[configs.load(preset).data.name](tmp_path / "originals")
        if preset == "watch":
            series_formats.publish(monkeypatch, series_formats.watch_file(written))
        assert main.main(["data", preset, "--from", "originals", "--no-verify", *options]) == 0, capsys.readouterr().err
        reported = capsys.readouterr().out.splitlines()[-1]
        assert main.main(["train", preset, "--name", "run", *options]) == 0, capsys.readouterr().err
        return reported, capsys.readouterr().out, json.loads((tmp_path / "runs" / "run" / "result.json").read_text())

    monkeypatch.chdir(tmp_path)
    (tmp_path / "originals").mkdir()
    return run


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in WRITERS]
)
def test_prepare_and_train(name, prepare_and_train):
    preset = f"{name}_small" if name in PUBLISHED else name
    if features := configs.load(preset).model.features:
        narrow = ["--model.features", *["4"] * len(features)]  # of the same depth
    else:
        narrow = ["--model.width", "0.07"]
    reported, printed, result = prepare_and_train(preset, *SMALL.split(), *narrow, *OTHER.get(name, "").split())
    assert reported.startswith(f"{name}: train ") and reported.endswith(" records")
    assert "meant for accelerators" not in printed
    assert f"test {result['last']['test_count']} records" in reported
    assert result["gradient_norms"]["chaos"] > 0


OTHERS = {name: configs.load(name) for name in configs.NAMES if name not in data.NAMES}
LITERATURE = [name for name, preset in OTHERS.items() if configs.is_published(preset.data.name, preset.model.name)]
# Seven poolings of the B-Nets want 128 pixels; the others are quick on fewer.
PIXELS = {
    "cifar10_dvs_tebn_cnn7": 24,
    "imagenet_tebn_resnet34": 32,
    "imagenet_sew_resnet18": 32,
    "imagenet_sew_resnet34": 32,
    "imagenet_ms_resnet18": 32,
    "imagenet_ms_resnet34": 32,
    "cifar10_dvs_plif": 32,
    "dvs_gesture_plif": 32,
    "imagenet_spikformer_8_512": 32,
    "imagenet_qkformer_10_512": 32,
    "imagenet_sdt_8_512": 32,
    "cifar10_dvs_spikformer_2_256": 32,
    "cifar10_dvs_qkformer_2_256": 32,
    "cifar10_dvs_sdt_2_256": 32,
}
NARROW = {"width": "0.07", "embed": "32", "heads": "2"}
# Minutes of compilation, of the code of imagenet_sew_resnet34 and of a parity case with bottlenecks.
DEEP = ("imagenet_sew_resnet101", "imagenet_sew_resnet152")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_of_a_data_set_stands_for_its_published_experiment(name):
    config, control, small = (configs.load(f"{name}{suffix}") for suffix in ("", "_bp", "_small"))
    assert config == configs.load(PUBLISHED[name])
    assert control == dataclasses.replace(config, chaos=dataclasses.replace(config.chaos, z0=(0.0,)))
    assert (small.data.name, small.model.name) == (name, "small_conv")
    assert configs.small_preset(name, config.model.name) == f"{name}_small"
    assert configs.small_preset(name, small.model.name) is None
    assert configs.load(f"{name}_small") == small
    row = next(row for row in (ROOT / "docs/weights.md").read_text().splitlines() if f"| `{name}` |" in row)
    assert f"`{PUBLISHED[name]}`" in row and f"`{name}_small`" in row


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(n for n in LITERATURE if n not in DEEP), "cifar10_dvs_tebn_cnn7_bp"])
def test_every_experiment_of_the_literature_trains(name, prepare_and_train):
    config = configs.load(name)
    if config.data.resizer == "cykooz":
        pytest.importorskip("cykooz_resizer")
    options = [*SMALL.split(), "--optimizer.warmup-epochs", "0", "--data.mix-off-epochs", "0"]
    for option in models.options_of(config.model.name):
        options += [f"--model.{option}", NARROW[option]] if option in NARROW else []
    if config.model.name in ("spikformer_imagenet", "qkformer_imagenet", "sdt_imagenet"):
        options += ["--model.depth", "4"]
    if config.data.frames:
        options += ["--data.frames", "2"]
    if size := PIXELS.get(name.removesuffix("_bp")):
        shape = [str(size), str(size), str(config.model.input_shape[2])]
        options += ["--data.size", *shape[:2], "--model.input-shape", *shape]
    _, printed, result = prepare_and_train(name, *options)
    small = configs.small_preset(config.data.name, config.model.name)
    assert f"on a CPU, DATASET={small} trains a small one" in printed
    norms = result["gradient_norms"]
    assert norms == {"chaos": 0} if name.endswith("_bp") else norms["chaos"] > 0 and norms["task"] > 0


@pytest.mark.parametrize("name", LITERATURE)
def test_the_head_of_an_experiment_says_how_to_run_it_and_what_becomes_of_z(name):
    head = importlib.import_module(f"csbp_jax.configs.{name}").__doc__
    assert head
    config = configs.load(name)
    assert f"make train DATASET={name} " in head and f"make train DATASET={name}_bp " in head
    assert "Run by us: no" in head and ("nferred" in head or "as in" in head)
    said = search(r"z at the\s+end:\s+([0-9.e-]+) z0", head)[1]
    assert f"{config.chaos.beta**config.epochs:.2g}" == f"{float(said):.2g}"
    _, _, table = (ROOT / "docs/weights.md").read_text().partition("## All experiments")
    row = next(row for row in table.splitlines() if f"`{name}`" in row)
    for number in re.findall(r"[0-9]+\.[0-9]+ \([0-9.]+\)", row):
        best, last = number.strip(")").split(" (")
        assert best in head and last in head
    twin = configs.load(f"{name}_bp")
    assert not any(twin.chaos.z0)
    assert dataclasses.replace(twin, chaos=config.chaos) == config


@pytest.mark.parametrize(
    ("name", "images"),
    [
        *((f"sew_resnet{depth}", 32) for depth in (18, 34, 101, 152)),
        ("tebn_resnet34", 32),
        ("spikformer_8_512", 24),
        ("sdt_8_512", 48),
        ("qkformer_10_512", 64),
        ("ms_resnet18", 256),
        ("ms_resnet34", 256),
    ],
)
def test_a_norm_sees_as_many_images_as_on_the_gpus_of_the_original(name, images):
    config = configs.load(f"imagenet_{name}")
    assert config.batch_size // config.model.norm_groups == images


def test_each_data_set_has_a_config_and_each_config_a_data_set():
    assert {configs.load(name).data.name for name in configs.NAMES} == {*data.NAMES} <= {*configs.NAMES}
    made = {"digits", "digits_events", "digits_sequential", "digits_permuted", "folder"}
    assert {*WRITERS} | made == {*data.NAMES}
