"""Loading of published PyTorch weights: keys, shapes and logits of the released code, and one-line errors."""

import dataclasses
import json
import math
import pathlib
import re
import shlex
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, data, models, weights
from csbp_jax.cli import main
from csbp_jax.cli.options import parse
from csbp_jax.config import Config, ConfigError, Neuron
from csbp_jax.evaluation import evaluate
from csbp_jax.training import compiled
from csbp_jax.weights import matching, names
from experiments.parity import cases
from tests.support.torch_format import write

DATA = pathlib.Path(__file__).parents[1] / "data"
RELEASED = DATA / "released"
KEYS = json.loads((DATA / "released_keys.json").read_text())
FAST = ("sew_resnet18",)


def slow_except(all_names, fast):
    """Mark all parameters but a few as slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in all_names]


def logits(config, variables, x):
    return jax.jit(models.build(config).apply)(variables, x)[0]


@pytest.mark.parametrize("name", slow_except(cases.RELEASED, FAST))
def test_logits_equal_those_of_the_released_code(name, reference):
    config, expected = cases.released(name), reference("released_logits")[name]
    variables = weights.load(RELEASED / f"{name}.pth", config)
    x = cases.batch(Config(batch_size=2, model=config), 0)["x"].astype(np.float32)
    actual = logits(config, variables, x).mean(1)
    assert np.ptp(expected, axis=0).max() > 0.01  # the net is not silent
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def network(name):
    """The full-size network of an entry in released_keys.json."""
    repository, _, network = name.removesuffix("_new").removesuffix("_chaos").partition("_")
    network = {"tet_resnet19": "resnet19_tet", "tebn_resnet19": "resnet19_tebn"}.get(name, network)
    network = f"sew_{network}" if repository == "sew" else network
    options: dict[str, dict[str, Any]] = {"tebn_resnet19": {"time_steps": 4}, "csbp_vggsnn": {"norm": "tebn"}}
    return dataclasses.replace(cases.ORIGINALS[network], **options.get(name, {}))


@pytest.mark.parametrize("name", slow_except(KEYS, [name for name in KEYS if "resnet" not in name or "t19" in name]))
def test_a_table_has_all_keys_and_shapes_of_the_released_code(name):
    config, file_shapes = network(name), {key: tuple(shape) for key, shape in KEYS[name].items()}
    table = matching.choose(name, config, file_shapes)
    keys = matching.fit(file_shapes, weights.shapes_of(config), config, table, name)
    assert len(set(keys.values())) == len(keys)
    rest = [key for key in file_shapes if key not in keys.values() and not key.endswith("num_batches_tracked")]
    assert all(re.search(table.unused, key) for key in rest)
    assert bool(rest) == ("resnet19" in name)


def test_every_table_is_compared():
    chosen = {matching.choose(name, network(name), KEYS[name]).source for name in KEYS}
    assert chosen == {table.source for name in names.networks() for table in names.of(name)}
    assert set(names.networks()) == set(cases.ORIGINALS)


# Channels of the feature map that the first dense layer reads, in the parity cases; other networks average over space.
CHANNELS = {"cnn6": 8, "cnn7": 16, "vgg9": 16, "vggsnn": 32, "vggsnn_wo_ap": 32, "resnet19_tebn": 32}


def published(config, table):
    """Return the weights of a parity case in PyTorch's layout, under a table's keys."""
    tensors, first = {}, next(module for module in table.names if module.endswith("/dense"))
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights.shapes_of(config)):
        name = matching.name_of(path)
        module, _, last = name.rpartition("/")
        values = cases.draw(name, leaf.shape)
        if values.ndim == 4:
            values = values.transpose(3, 2, 0, 1)
        elif last == "kernel" and module == first and config.name in CHANNELS:
            channels = CHANNELS[config.name]
            side = math.isqrt(len(values) // channels)
            values = values.T.reshape(-1, side, side, channels).transpose(0, 3, 1, 2).reshape(values.T.shape)
        elif last == "kernel":
            values = values.T
        elif last == "p":
            values = values.reshape(-1, 1, 1, 1, 1)
        tensors[table.names.get(name) or f"{table.names[module]}.{names.LEAVES[last]}"] = np.ascontiguousarray(values)
    return tensors


PARITY = [
    name for name, case in cases.CASES.items() if case.model.norm in (None, "tebn") and name != "sew_resnet34_tebn"
]


@pytest.mark.parametrize("name", slow_except(PARITY, ("cnn7_tebn",)))
def test_logits_in_float64_equal_those_of_the_pytorch_reference(name, reference, x64, tmp_path):
    case = cases.CASES[name]
    table = names.of(case.model.name)[-1]
    path = write(tmp_path / "a.pth", {"state_dict": published(case.model, table)})
    variables = weights.load(path, case.model)
    expected = reference(f"parity_{name}")["before"]
    actual = logits(case.model, variables, cases.batch(case, cases.STEPS)["x"])
    np.testing.assert_allclose(actual, expected, atol=1e-9 * np.abs(expected).max())


CNN7 = cases.released("csbp_cnn7")
SEW = cases.released("sew_7b")


MISFITS = [
    ("csbp_cnn7", CNN7, {"classes": 7}, "has shape .10,., but readout.* needs .7,.; --model.classes"),
    ("csbp_cnn7", CNN7, {"time_steps": 4}, "features.0.bn.p has shape .10, .*; --model.time-steps 10"),
    ("csbp_cnn7", CNN7, {"width": 1 / 16}, "module.bias has shape .2,., but conv1/.* needs .4,.;.*--model.width"),
    ("csbp_cnn7", CNN7, {"input_shape": (48, 48, 1)}, "conv1/conv/kernel needs .2, 1, 3, 3.;.* channels"),
    ("csbp_cnn7", CNN7, {"input_shape": (32, 32, 2)}, "fc1.module.1.weight .*--model.input-shape"),
    ("csbp_cnn7", CNN7, {"norm": "batch"}, "features.0.bn.p, .* and 3 more, .*; its norm is TEBN: --model.norm"),
    ("csbp_cnn7", CNN7, {"name": "cnn6"}, "lacks .*; it looks like --model.name cnn7"),
    ("sew_7b", SEW, {"neuron": Neuron()}, "does not have; its neurons are PLIF: --model.neuron.learn layer"),
    ("sew_7b", SEW, {"neuron": Neuron(decay=0.5, learn="channel")}, "needs .4,.; --model.neuron.learn layer"),
    ("sew_7b", SEW, {"name": "sew_wide_7b"}, "lacks .* of sew_wide_7b .*; it looks like --model.name sew_7b"),
    ("sew_7b", SEW, {"name": "dense", "width": None}, "dense was not published in PyTorch; .* were: cnn6"),
    ("sew_resnet18", cases.released("sew_resnet18"), {"norm": "tebn"}, "lacks bn1.p, "),
]  # fmt: skip


@pytest.mark.parametrize("file, config, changes, message", MISFITS)
def test_misfits_raise_a_one_line_error_with_a_remedy(file, config, changes, message):
    with pytest.raises(ConfigError, match=rf"{file}.pth: .*{message}") as error:
        weights.load(RELEASED / f"{file}.pth", dataclasses.replace(config, **changes))
    assert "\n" not in str(error.value)


def test_keys_that_are_missing_extra_or_not_weights(tmp_path):
    case = cases.CASES["sew_7b"].model
    tensors = published(case, names.of("sew_7b")[0])

    def refused(changed, match):
        with pytest.raises(ConfigError, match=match):
            weights.load(write(tmp_path / "a.pth", changed), case)

    refused({k: v for k, v in tensors.items() if k != "out.bias"}, r"a.pth: lacks out.bias of sew_7b \(SEW, dvsgesture")
    refused(tensors | {"out.extra": np.zeros(3)}, r"a.pth: has out.extra, which sew_7b \(SEW, .*\) does not have$")
    refused(tensors | {"out.bias": np.zeros(7, np.int64)}, "out.bias has dtype int64, but weights are floating-point")
    refused({"a": np.zeros(3)}, r"lacks conv.0.0.* and .* more of sew_7b \(SEW, [^)]*\)$")


def test_user_table(tmp_path, capsys):
    case = cases.CASES["sew_7b"].model
    first = {"conv1/conv": "conv0", "conv1/norm": "bn0", "conv1/neuron": "act0"}
    user_table = names.of("sew_7b")[0].names | first
    path = write(tmp_path / "a.pth", {"model": published(case, names.Table("user", user_table))})
    with pytest.raises(ConfigError, match=r"lacks conv\.0\.0\.module\.0\.weight"):
        weights.load(path, case)
    variables = weights.load(path, case, user_table, show=print)
    assert capsys.readouterr().out == f"weights: 92 tensors from 'model' of {path}, named as in the given table\n"
    np.testing.assert_allclose(variables["params"]["conv1"]["neuron"]["w"], cases.draw("conv1/neuron/w", ()), rtol=1e-6)
    with pytest.raises(ConfigError, match="the table of names has no entry block1_conv1/norm, a module of the network"):
        weights.load(path, case, {"conv1/conv": "conv0"})


def test_half_precision_is_converted_to_float32(tmp_path):
    case = cases.CASES["sew_7b"].model
    half = {key: value.astype(jnp.bfloat16) for key, value in published(case, names.of("sew_7b")[1]).items()}
    variables = weights.load(write(tmp_path / "a.pth", half), case)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


FIELDS = (
    "--model.name vgg9 --model.width 0.07 --model.features None --model.time-steps 2 --model.dropout 0 --chaos.z0 0 "
    "--chaos.taps --epochs 1"
)
OPTIONS = ["--weights", "a.pth", *shlex.split(FIELDS)]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The config of OPTIONS, in an empty folder with a file a.pth that fits it."""
    monkeypatch.chdir(tmp_path)
    config = parse(configs.load("digits"), OPTIONS, "csbp_jax")
    monkeypatch.setitem(CHANNELS, "vgg9", round(0.07 * 256))
    write("a.pth", {"model": published(config.model, names.of("vgg9")[0])})
    return config


@pytest.mark.slow
def test_a_run_starts_from_loaded_weights(digits, capsys):
    source = data.load(digits, "data")["train"]
    state = compiled.initial_state(compiled.compile_run(digits, source, 1), print)
    expected = weights.load("a.pth", digits.model)
    jax.tree.map(np.testing.assert_array_equal, state.params, expected["params"])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, expected["batch_stats"])
    assert capsys.readouterr().out == "weights: 53 tensors from 'model' of a.pth, named as in TEBN and CSBP, VGG9\n"


@pytest.mark.slow
def test_evaluate_and_train_from_the_command_line(digits, tmp_path, capsys):
    assert main.main(["evaluate", "digits", *OPTIONS]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    test = data.load(digits, "data")["test"]
    batch = next(iter(data.eval_batches(test, len(test))))
    answers = logits(digits.model, weights.load("a.pth", digits.model), batch["x"])
    accuracy = (answers.mean(1).argmax(-1) == batch["y"]).mean()
    assert lines[2].startswith(f"test: {accuracy:.2%} of {len(test)}, loss ")
    assert main.main(["train", "digits", "--name", "run", *OPTIONS]) == 0, capsys.readouterr().err
    assert lines[0] in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/run/config.json").read_text())["config"]["weights"] == "a.pth"


def test_files_that_do_not_fit_create_no_run(digits, tmp_path, capsys):
    assert main.main(["train", "digits", *OPTIONS, "--model.width", "0.5"]) == 2
    assert capsys.readouterr().err.startswith("csbp_jax: a.pth: features.0.fwd.module.")
    assert main.main(["train", "digits", "--weights", "b.pth"]) == 2
    assert capsys.readouterr().err == "csbp_jax: b.pth: there is no such file\n"
    assert main.main(["evaluate", "digits"]) == 2
    assert "weights: empty; name a PyTorch checkpoint" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_evaluation_does_not_depend_on_the_training_batch(digits, monkeypatch):
    class Compiled(Exception):
        """Raised in place of the compilation."""

    def compile_run(config, source, steps_per_epoch):
        raise Compiled

    monkeypatch.setattr(evaluate, "compile_run", compile_run)
    with pytest.raises(Compiled):
        evaluate.evaluate(dataclasses.replace(digits, batch_size=10_000))
    with pytest.raises(ConfigError, match="batch_size: 10000 is not possible"):
        compiled.resolve(dataclasses.replace(digits, batch_size=10_000), data.load(digits))


def test_a_misfit_is_found_before_the_data(digits, capsys):
    assert main.main(["train", "digits", *OPTIONS, "--model.width", "0.5", "--data-dir", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("csbp_jax: a.pth: features.0.fwd.module.")
    weights.verify("a.pth", dataclasses.replace(digits.model, width=0.5, input_shape=()))  # not known yet
    with pytest.raises(ConfigError, match=r"a.pth: features.0.fwd.module."):
        weights.verify("a.pth", dataclasses.replace(digits.model, width=0.5))
