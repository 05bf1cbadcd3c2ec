"""The plan of a pod: arithmetic of counts, and the published page."""

import argparse
import json

import pytest

from benchmarks import pod_plan
from benchmarks.h100 import PUBLISHED
from benchmarks.tpu_page import CHIPS

OPTIONS = argparse.Namespace(chips=128, per_host=4, batch=32, epochs=10)
V5P = CHIPS["v5p"]
BY_BYTES = {"batch": 32, "flops": 0.1 * V5P.flops, "bytes": 0.5 * V5P.bandwidth}
BY_OPERATIONS = BY_BYTES | {"flops": 2.0 * V5P.flops}


def test_a_step_takes_the_longer_of_its_operations_and_its_bytes():
    for program, seconds, bound in ((BY_BYTES, 0.5, "bytes"), (BY_OPERATIONS, 2, "operations")):
        step = pod_plan.least_time(V5P, program)
        assert step.seconds == pytest.approx(seconds / 32) and step.bound == bound


def test_the_plan_follows_from_the_counts():
    tpu = {
        "programs": {
            "digits, v5e 2x2, data": BY_BYTES,
            "SEW-ResNet-34, v5p 2x2x1, data": BY_BYTES,
            "SEW-ResNet-34, v5p 2x2x1, fsdp": BY_BYTES,
            "SEW-ResNet-34, 2 x v5e 2x2, data": BY_BYTES,
        }
    }
    images = json.loads(pod_plan.IMAGES.read_text())
    text = pod_plan.page(tpu, images, OPTIONS)
    # 281 steps of half a second an epoch, 64 images a second and chip, 256 a host.
    assert "| SEW-ResNet-34 | v5p | 43.2 | 15.6 | bytes | 64 | 500 | 23.4 | 256 |" in text
    assert "a batch of 4,096, 281 steps an epoch" in text
    # The other chip has 0.2962 of its bandwidth.
    assert "| SEW-ResNet-34 | v5e, counts of v5p | 43.2 | 52.8 | bytes | 19 | 1.69e+03 |" in text
    assert "digits" not in text.partition("## Input")[0] and text.count("| SEW-ResNet-34 |") == 2
    rate = images["photographs"]["pictures_per_second"]["simplejpeg and cykooz, resized crop"]["median"]
    assert f"| 64 | 256 | {256 / rate:.1f} |" in text


def test_the_published_plan_is_made_of_the_measured_rates():
    images = json.loads(pod_plan.IMAGES.read_text())
    rows = pod_plan.input_table(pod_plan.RATES, images["photographs"], 4).splitlines()[2:]
    published = (PUBLISHED / "plan.md").read_text().splitlines()
    assert len(rows) == 5 and all(row in published for row in rows)


def test_the_folder_of_a_plan_is_made(tmp_path):
    pod_plan.main(["--out", str(tmp_path / "new")])
    assert (tmp_path / "new" / "plan.md").read_text().startswith("# What a pod needs")


@pytest.mark.parametrize("lacking", ["cykooz", ""])
def test_a_plan_without_rates_of_photographs_says_what_to_run(lacking, tmp_path, monkeypatch, capsys):
    images = json.loads(pod_plan.IMAGES.read_text())
    rates = images.pop("photographs")["pictures_per_second"]
    if lacking:
        images["photographs"] = {"pictures_per_second": {name: r for name, r in rates.items() if lacking not in name}}
    (tmp_path / "images.json").write_text(json.dumps(images))
    monkeypatch.setattr(pod_plan, "IMAGES", tmp_path / "images.json")
    with pytest.raises(SystemExit, match="2"):
        pod_plan.main(["--out", str(tmp_path)])
    assert "run python -m benchmarks.data_speed --only images --photographs FOLDER" in capsys.readouterr().err
