"""Series from CSV files and runs: what is read, what is refused in one line, and what `csbp_jax series` prints."""

import json

import numpy as np
import pytest

from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.evaluation import recorded
from csbp_jax.runtime import seals
from csbp_jax.training import metrics_log, run_json
from tests.dynamics.test_series import draw


def write(tmp_path, text, name="log.csv"):
    file = tmp_path / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("text, column, values", [
    ("step,loss\n0,2.5\n1,1.5\n", None, [2.5, 1.5]),
    ("step,loss\n0,2.5\n1,1.5\n", "step", [0, 1]),
    ("epoch;acc;loss\n0;;2.5\n0;0.9;\n1;;1.5\n", "loss", [2.5, 1.5]),
    ("step\ttrain/loss\n0\t1e-3\n", "loss", [1e-3]),
    ("\ufeffloss\r\n1\r\n\r\n2\r\n", None, [1, 2]),
    ("0.5\n-1\n", None, [0.5, -1]),
    ("0,3\n1,4\n", "2", [3, 4]),
    ('name,"a, b"\nx,1\n', "a, b", [1]),
])  # fmt: skip
def test_columns_of_csv_files(tmp_path, text, column, values):
    assert recorded.read(write(tmp_path, text), column).values.tolist() == values


@pytest.mark.parametrize("text, options, message", [
    ("", "", "is empty"),
    ("a,b\n1,2\n", "", "name a column, --column NAME; there are a, b"),
    ("a,b\n1,2\n", "--column c", "there is no column 'c'; there are a, b (--column)"),
    ("a/x,b/x\n1,2\n", "--column x", "there is more than one column 'x'; there are a/x, b/x (--column)"),
    ("loss\n1\nten\n", "", ":3: column loss is 'ten', which is not a number"),
    ("loss\n1\nnan\n", "", ":3: column loss is nan, which is not finite; leave it out by --skip, or end the file"),
    ("loss,step\n1,2\n3\n", "", ":3: has 1 cells, but the first line has 2"),
    ("a,a\n1,2\n", "", "two columns are called 'a'; rename one"),
    ('a\n"1\n', "", "is not a CSV file (unexpected end of data)"),
    ("loss\n" + 200 * "1\n", "", "column loss: the series is constant"),
    ("loss\n1\n2\n", "", "column loss: the series is too short: it has 2 values, and 123 are needed"),
    ("loss\n1\n2\n", "--skip -1", "--skip: -1 is not possible; allowed is from 0"),
])  # fmt: skip
def test_what_cannot_be_measured_is_one_line(tmp_path, refused, text, options, message):
    assert message in refused("series", write(tmp_path, text), *options.split())


def test_values_that_are_not_finite_may_be_left_out(tmp_path):
    assert recorded.read(write(tmp_path, "loss\nnan\n1\n2\n"), skip=1).values.tolist() == [1, 2]


def test_a_metric_of_a_run(tmp_path, refused):
    seals.write_json(tmp_path / "config.json", {"schema": run_json.SCHEMA, "config": {"seed": 0}})
    with metrics_log.opened(tmp_path / "metrics.jsonl") as log:
        for step in range(3):
            row = {"kind": "train", "step": step, "seconds": 0.1, "task_loss": 2.0 - step, "chaos_loss": 1.0, "z": {}}
            log.write(row)
        log.write({"kind": "first", "step": 3, "seconds": 0.1, "task_loss": 9.0})
    name, values = recorded.read(tmp_path)
    assert name == "train/task_loss" and values.tolist() == [2, 1, 0]
    name, values = recorded.read(tmp_path, "chaos_loss", skip=1)
    assert name == "train/chaos_loss" and values.tolist() == [1, 1]
    with pytest.raises(ConfigError, match="more than one column 'task_loss'; there are train/task_loss, first/task_"):
        recorded.read(tmp_path, "task_loss")
    with pytest.raises(ConfigError, match="no column 'los'"):
        recorded.read(tmp_path, "los")
    remedy = "it has 3 values, and 123 are needed; train a run of another name (--name) with --log-every 1"
    assert remedy in refused("series", tmp_path)


def printed(capsys, *arguments):
    assert main.main(["series", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_chaos_is_read_with_its_caveat_and_written_as_json(tmp_path, capsys):
    file = write(tmp_path, "step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(draw("logistic, r = 4"))))
    text = printed(capsys, file, "--skip", 100, "--out", tmp_path / "out.json")
    assert "loss, n = 900" in text and "The series is short" in text
    assert "Reading: irregular and nonlinear: consistent with chaos, and also with noise in a nonlinear system" in text
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["reading"] == "irregular and nonlinear" and content["options"]["skip"] == 100
    expected = recorded.measure(draw("logistic, r = 4")[100:])
    assert content["measures"] == expected and f"{expected['zero_one']:.3f}" in text


def test_every_and_difference(tmp_path, capsys):
    x = np.cumsum(draw("white noise"))
    file = write(tmp_path, "".join(f"{float(value)!r}\n" for value in x))
    text = printed(capsys, file, "--every", 2, "--difference", "--out", tmp_path / "out.json")
    assert "1, n = 499" in text and "Reading: irregular: linear noise explains it" in text
    assert json.loads((tmp_path / "out.json").read_text())["measures"] == recorded.measure(np.diff(x[::2]))


def test_the_advised_lag_counts_values_of_the_file(tmp_path, capsys):
    x = np.sin(2 * np.pi / 216 * np.arange(12_000))
    file = write(tmp_path, "".join(f"{float(value)!r}\n" for value in x))
    assert "try --every 42." in printed(capsys, file, "--every", 6)


BASE = {"drift": 0.1, "zero_one": 0.0, "surrogate_p": 0.05, "decorrelation_lag": 1}


@pytest.mark.parametrize("changes, word", [
    ({}, "regular"),
    ({"zero_one": 0.9}, "irregular and nonlinear"),
    ({"zero_one": 0.9, "surrogate_p": 0.1}, "irregular"),
    ({"zero_one": 0.5}, "undecided"),
    ({"decorrelation_lag": 9}, "slow"),
    ({"decorrelation_lag": 9, "zero_one": 0.5}, "slow"),
    ({"decorrelation_lag": 9, "zero_one": 0.9}, "irregular and nonlinear"),
    ({"drift": -0.6, "zero_one": 0.9}, "not stationary"),
])  # fmt: skip
def test_readings(changes, word):
    assert recorded.reading(BASE | changes)[0] == word
