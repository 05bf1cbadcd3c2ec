"""Networks and recipes step for step against PyTorch references (experiments/parity), in float64; parameter counts."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models
from experiments.parity import __main__ as parity
from experiments.parity import cases, ours

FAST = ("cnn6_tebn",)
# Of full-size networks, one of each family is traced in `make test`, once for all tests.
REPRESENTATIVES = ("cnn6", "ms_resnet18", "plif_mnist", "resnet19_tet", "sew_wide_7b")
DEEPEST = ("sew_resnet50", "sew_resnet101", "sew_resnet152")
DATA = pathlib.Path(__file__).parents[1] / "data"
FORWARD, TRAINING, CLOSE = 1e-9, 1e-6, 1e-10
CASES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in cases.CASES]


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_five_steps_equal_the_reference(name, reference):
    differences = ours.largest_differences(ours.run(cases.CASES[name]), reference(f"parity_{name}"))
    assert differences["before"] < FORWARD
    close = name.startswith(("spikformer", "qkformer", "sdt", *DEEPEST))
    assert max(differences.values()) < (CLOSE if close else TRAINING)


@pytest.mark.parametrize("name", cases.CASES)
def test_the_references_were_not_silent(name, reference):
    values = reference(f"parity_{name}")
    for logits in (values["before"], values["logits"][0]):
        assert len(np.unique(logits.reshape(-1, logits.shape[-1]).round(9), axis=0)) > 1
    # The outputs of PLIF's networks are mean spikes, from 0 to 1.
    least = 0.005 if name.startswith("plif") else 0.1
    assert values["grad_norm"].min() > least and np.ptp(values["task_loss"]) > least


@pytest.mark.parametrize("name", ["qkformer_imagenet", "sdt_imagenet"])
def test_the_references_equal_the_transformers_of_spikingjelly(name, reference):
    expected, logits = reference("peers_transformers")[name], reference(f"parity_{name}")["before"].mean(1)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@functools.cache
def outputs(name):
    """Trace the published network at full size: ``((logits, aux), variables)``, as shapes."""
    config = cases.ORIGINALS[name]
    steps = 1 if cases.is_static(config) else config.time_steps
    picture = jax.ShapeDtypeStruct((1, steps, *config.input_shape), jnp.float32)
    model = models.build(config)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), picture)


def full_size(*case):
    """A row of a table whose first column is a network."""
    fast, deep = case[0] in REPRESENTATIVES, case[0] in DEEPEST
    return pytest.param(*case, marks=pytest.mark.slow if deep else () if fast else pytest.mark.full)


@pytest.mark.parametrize("name", [full_size(name) for name in cases.ORIGINALS])
def test_parameters_and_logits_at_full_size_equal_the_published_network(name):
    (logits, _), variables = outputs(name)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    sizes = json.loads((DATA / "parity_sizes.json").read_text())
    assert {"parameters": parameters, "logits": list(logits.shape)} == sizes[name]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        full_size("sew_resnet101", "44.55"),
        full_size("sew_resnet152", "60.19"),
        full_size("ms_resnet18", "11.69"),
        full_size("ms_resnet34", "21.80"),
        full_size("max_resnet18", "12.50"),
    ],
)
def test_millions_of_parameters_as_the_articles_print_them(name, printed):
    _, variables = outputs(name)
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) / 1e6:.2f}" == printed


TAPPED = {
        "cnn7": ("conv1.membrane", "fc1.dense"),
        "cnn6": ("conv1.membrane", "fc1.dense"),
        "sew_7b": ("conv1.conv", "conv1.norm", "conv1.membrane"),
        "sew_wide_7b": ("conv1.conv", "conv5.norm", "block7_conv2.membrane_pre"),
        "resnet19_tet": ("stem.membrane", "stage2_block1_shortcut.norm", "stage2_block1.current", "fc1_spike.membrane"),
        "resnet19_tebn": ("stage1_block1_shortcut.norm", "fc1.dense"),
        "ms_resnet18": ("stem.norm", "stage1_block1_spike1.membrane", "last_spike.current"),
        "max_resnet18": ("stem.conv", "stage2_block1_shortcut.norm", "stage2_block1_spike2.membrane_pre"),
        "plif_mnist": ("conv1.norm", "conv1_spike.membrane", "fc1.dense", "readout_spike.membrane"),
        "sew_resnet50": ("stem.conv", "stem_spike.membrane", "stage4_block3_conv3.norm", "readout.dense"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "taps"), [full_size(*case) for case in TAPPED.items()])
def test_taps_can_be_named(name, taps):
    (_, aux), _ = outputs(name)
    assert set(taps) <= set(aux.names)


def test_largest_differences_by_name():
    values = {"task_loss": np.array([1.0, 2.0]), "statistics/a": np.array([4.0]), "statistics/b": np.array([1.0])}
    changed = values | {"statistics/b": np.array([1.5]), "task_loss": np.array([1.5, 2.0])}
    assert ours.largest_differences(changed, values) == {"task_loss": 0.25, "statistics": 0.5}
    with pytest.raises(ValueError, match="names differ"):
        ours.largest_differences({}, values)
    with pytest.raises(ValueError, match="shape"):
        ours.largest_differences(values | {"task_loss": np.zeros(3)}, values)


def test_some_of_the_cases_leave_the_results_of_the_others(monkeypatch, tmp_path, reference):
    monkeypatch.chdir(DATA.parents[1])
    monkeypatch.setattr(ours, "run", lambda config: reference("parity_cnn7_tebn"))
    earlier = {"cnn6_tebn": dict.fromkeys(parity.QUANTITIES, 0.5), "cnn7_tebn": dict.fromkeys(parity.QUANTITIES, 0.5)}
    content = {"command": "python -m experiments.parity", "commit": "0", "largest_relative_difference": earlier}
    (tmp_path / "parity.json").write_text(json.dumps(content))
    parity.main(["--cases", "cnn7_tebn", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "parity.json").read_text())
    assert content["largest_relative_difference"] == earlier | {"cnn7_tebn": dict.fromkeys(parity.QUANTITIES, 0.0)}
    assert content["commit"] == "0" and content["later"][0]["command"].endswith("--cases cnn7_tebn")
    assert "| 5e-01 | `cnn6_tebn` |" in (tmp_path / "README.md").read_text()
