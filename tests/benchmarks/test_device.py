"""The check of a GPU or TPU, in its small form on a CPU: it runs, goes on where it was, and writes its page."""

import json
import sys

import numpy as np
import pytest

from benchmarks import device, device_page, device_parts


def test_all_measurements_together_take_less_than_forty_minutes(tmp_path):
    parts = device.plan(small=False, on_cpu=False, torch=sys.executable, folder=tmp_path)
    assert all(part.commands or part.name.startswith("batches") for part in parts)
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


def test_the_answer_has_the_faster_form_of_the_peer():
    rows = [{"library": "csbp_jax", "ms": 10.0, "loss": 1.0}]
    for how, layout, ms in (("eager", "first", 30.0), ("compile", "first", 25.0), ("compile", "last", 20.0)):
        rows.append({"library": f"SpikingJelly, {how}", "layout": f"channels {layout}", "ms": ms, "loss": 1.0})
    part = {"status": "measured", "why": "", "seconds": 1, "rows": rows}
    alone = part | {"rows": rows[:1]}  # SpikingJelly broke
    device = {"kind": "H", "count": 1, "memory_GB": 0, "copy_GBps": 1, "versions": {}}
    parts = {"beside SpikingJelly: CNN7": part, "beside SpikingJelly: VGGSNN": alone}
    text = device_page.page({"device": device, "about": {"small": False}, "parts": parts})
    assert "SpikingJelly's time over ours: CNN7 2.00 (compile, channels last).**" in text


@pytest.mark.slow
def test_the_small_form_runs_goes_on_and_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    device.main(["--out", str(tmp_path), "--only", "digits"])
    content = json.loads((tmp_path / "device.json").read_text())
    statuses = {name: part["status"] for name, part in content["parts"].items()}
    assert statuses == {
        "numbers equal to the CPU's: digits": "passed",
        "steps: digits, float32": "measured",
        "steps: digits, bfloat16": "not run",
    }
    device.main(["--out", str(tmp_path), "--only", "max pooling"])
    content_after = json.loads((tmp_path / "device.json").read_text())
    assert {name: content_after["parts"][name] for name in statuses} == content["parts"]
    text = (tmp_path / "device.md").read_text()
    assert text.startswith("# csbp_jax on 2 x cpu\n\n**1 of 1 checks passed. Steps per second: digits, float32 ")
    assert "Small nets and images" in text and "- steps: digits, bfloat16: not run: needs a GPU or TPU" in text
    assert capsys.readouterr().out.count(text) == 1
    assert device_page.page(content_after) == text and len(text.splitlines()) < 60
