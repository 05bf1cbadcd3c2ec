"""The check of a GPU or TPU, in its small form on a CPU: it runs, goes on where it was, and writes its page."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import device, device_page, device_parts, ours_step
from csbp_jax.data.source import ArraySource
from csbp_jax.training import build
from csbp_jax.training.compiled import compile_run


def test_all_measurements_together_take_less_than_forty_minutes(tmp_path):
    parts = device.plan(small=False, on_cpu=False, torch=sys.executable, folder=tmp_path)
    assert all(part.commands and not part.missing for part in parts)
    assert len({part.name for part in parts}) == len(parts)
    assert device.LIMIT_OF_FIRST + sum(part.seconds for part in parts) <= 40 * 60


def layers(spikes, first, second, gradient):
    """Membranes, spikes and gradients of two layers of two neurons, over two time steps."""
    membranes = {"a": np.array([[first, [0.5, 0.2]]]), "b": np.array([[second, [0.1, 0.1]]])}
    return membranes, {"a": np.array([spikes]), "b": np.zeros((1, 2, 2))}, {"a": {"k": np.full(2, gradient)}}


@pytest.mark.parametrize(("other", "ok"), [
    (layers([[1, 0], [0, 0]], [1.00001, 0.3], [0.4, 0.4], 1.0), [True, True]),  # rounding
    (layers([[1, 0], [0, 0]], [1.001, 0.3], [0.4, 0.4], 1.0), [False, True]),
    (layers([[0, 0], [0, 0]], [0.99999, 0.3], [0.44, 0.4], 1.1), [True, True]),  # over the threshold, and what follows
    (layers([[0, 0], [0, 0]], [0.9, 0.3], [0.4, 0.4], 1.0), [False, True]),
    (layers([[0, 0], [0, 0]], [0.99999, 0.3], [0.8, 0.4], 1.0), [True, False]),
    (layers([[1, 0], [0, 0]], [1.00001, 0.3], [0.4, 0.4], 1.01), [False, True]),
])  # fmt: skip
def test_layers_differ_by_rounding_until_it_moves_a_spike_over_its_threshold(other, ok):
    reference = layers([[1, 0], [0, 0]], [1.00001, 0.3], [0.4, 0.4], 1.0)
    assert [row["ok"] for row in device_parts.compare("ab", reference, other)] == ok


def test_a_part_that_hangs_or_breaks_leaves_its_rows_and_says_why():
    hangs = [sys.executable, "-u", "-c", "import time; print('{\"ms\": 1}'); time.sleep(60)"]
    assert device.run(device.Part("p", 2, [hangs]))["status"] == "out of time"
    broken = [sys.executable, "-c", "print('{\"ms\": 1}'); raise SystemExit('no memory')"]
    result = device.run(device.Part("p", 30, [broken, broken]))
    assert (result["status"], result["why"], result["rows"]) == ("broke", "no memory", [{"ms": 1}])


ABOUT = {"device": {"kind": "H", "count": 1, "memory_GB": 0, "copy_GBps": 1, "versions": {}}, "about": {"small": False}}


def test_the_answer_has_the_faster_form_of_the_peer():
    same = {"loss": 1.0, "precision": "float32", "batch": 64, "program": "p"}
    rows = [same | {"library": "csbp_jax", "ms": 10.0}]
    for how, layout, ms in (("eager", "first", 30.0), ("compile", "first", 25.0), ("compile", "last", 20.0)):
        of_peer = {"library": f"SpikingJelly, {how}", "layout": f"channels {layout}", "ms": ms, "kernels": "triton"}
        rows.append(same | of_peer)
    part = {"status": "measured", "why": "", "seconds": 1, "rows": rows}
    alone = part | {"rows": rows[:1]}  # SpikingJelly broke
    parts = {"beside SpikingJelly: CNN7": part, "beside SpikingJelly: VGGSNN": alone}
    text = device_page.page(ABOUT | {"parts": parts})
    assert "SpikingJelly's time over ours: CNN7, float32 2.00 (compile, triton, channels last).**" in text


def test_the_answer_names_forms_that_are_faster_than_the_one_in_use():
    def part(*rows):
        return {"status": "measured", "why": "", "seconds": 1, "rows": list(rows)}

    of_step = {"network": "CNN7", "batch": 32, "program": "p", "temporary_GB": 1.0}
    of_sweep = {"network": "digits", "program": "p"}
    parts = {
        "forms of the step: CNN7": part(
            of_step | {"form": "as it is", "ms": 10.0},
            of_step | {"form": "model.remat", "ms": 12.0},
            of_step | {"form": "optimizer.accumulate 2", "ms": 8.0},
            of_step | {"form": "optimizer.accumulate 4", "ms": None, "why": "out of memory"},
        ),
        "sweep: digits": part(
            of_sweep | {"form": "as it is", "members": 32, "ms_a_member": 1.0},
            of_sweep | {"form": "grouped", "members": 32, "ms_a_member": 0.99},
            of_sweep | {"form": "as it is", "members": 1, "ms_a_member": 0.5},
        ),
    }
    text = device_page.page(ABOUT | {"parts": parts})
    answer = text.split("**")[1]
    assert "Faster than the form that is used: forms of the step: CNN7: optimizer.accumulate 2 (0.80" in answer
    assert "sweep: digits" not in answer
    assert "| CNN7, batch 32, optimizer.accumulate 4 | `p` | out of memory |" in text


@pytest.mark.full
def test_a_timed_step_is_the_step_that_training_runs():
    """Over the mesh of all devices, with what it reads of a batch, its initialisation and its update."""
    config = device_parts.net("digits", small=True).replace("batch_size", 8 * jax.device_count())
    program, state, batch, _ = ours_step.train_program(config)
    source = ArraySource(np.asarray(batch["x"]), np.asarray(batch["y"]), 10)
    settings = build.resolve(config, dict.fromkeys(("train", "validation", "test"), source))
    run = compile_run(settings, source, 10_000)
    assert program.as_text() == run.train_step.lower(state, batch).compile().as_text()
    assert {leaf.sharding.mesh.size for leaf in jax.tree.leaves(batch)} == {jax.device_count()}


@pytest.mark.slow
def test_the_small_form_runs_goes_on_and_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    device.main(["--out", str(tmp_path), "--only", "digits"])
    content = json.loads((tmp_path / "device.json").read_text())
    statuses = {name: part["status"] for name, part in content["parts"].items()}
    assert statuses == {
        "train: digits": "measured",
        "sweep: digits": "measured",
        "numbers equal to the CPU's: digits": "passed",
        "steps: digits, float32": "measured",
        "steps: digits, bfloat16": "not run",
        "profile of five steps: digits": "measured",
    }
    assert any((tmp_path / "profile").rglob("*.pb"))
    device.main(["--out", str(tmp_path), "--only", "max pooling"])
    content_after = json.loads((tmp_path / "device.json").read_text())
    assert {name: content_after["parts"][name] for name in statuses} == content["parts"]
    text = (tmp_path / "device.md").read_text()
    assert text.startswith("# csbp_jax on 2 x cpu\n\n**Training: digits ")
    assert "1 of 1 checks passed. Steps per second: digits, float32 " in text
    assert "Small nets and images" in text and "- steps: digits, bfloat16: not run: needs a GPU or TPU" in text
    assert capsys.readouterr().out.count(text) == 1
    assert device_page.page(content_after) == text and len(text.splitlines()) < 60
