"""Damage to the JSON files of a run or an experiment: each flipped bit is reported in one line, or changes no value."""

import json
import random
import shutil
from typing import Any

import pytest

from csbp_jax.config import ConfigError
from csbp_jax.experiment.store import Block, Store
from csbp_jax.runtime import seals
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import follow_rows, opened, read_rows, rewind

BLOCK = Block('{"chaos.z0": 3.0}', (0, 1))


def with_block(folder):
    """A file of results of an experiment, as the experiment writes it."""
    (folder / "experiment" / "blocks").mkdir(parents=True)
    measures = {"last_test_accuracy": [0.5, 0.25], "diverged": [False, True], "rates.fc1": [[0.5, 0.25], [0.0, 1.0]]}
    Store(folder / "experiment", print).write(BLOCK, {"chaos.z0": 3.0}, measures, {"device": "cpu"})
    (file,) = (folder / "experiment" / "blocks").iterdir()
    file.rename(file.with_name("0-0.json"))
    return folder


def rewound(run):
    """The rows that a resume after the last step keeps."""
    return rewind(run / "metrics.jsonl", 38, 2, 19)


READERS = {
    "config.json": run_json.read_config,
    "result.json": run_json.read_result,
    "metrics.jsonl": rewound,
    "experiment/blocks/0-0.json": lambda folder: Store(folder / "experiment", print).finished(BLOCK),
}


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """The files of a run, and one of an experiment; a test may change them, and puts them back."""
    names = shutil.ignore_patterns("checkpoints", "figures", "lock")
    return with_block(shutil.copytree(trained, tmp_path_factory.mktemp("sealed") / "run", ignore=names))


def unchanged(content, expected):
    """Whether all values are as expected; a flip in the name of a seal makes it one more field, which nothing reads."""
    if isinstance(expected, list):
        return len(content) == len(expected) and all(map(unchanged, content, expected))
    if isinstance(expected, dict):
        return all(key in content and unchanged(content[key], value) for key, value in expected.items())
    return bool(content == expected)


def test_rows_are_read_as_they_were_written_whatever_the_order_of_their_keys(tmp_path):
    """Their names are shared, since a run may have a million rows."""
    rows = [{"step": n, "kind": "other", "seconds": 0.5, "a": {"longer name": n}} for n in range(3)]
    lines = [json.dumps(seals.seal(rows[0])) + "\n", *map(seals.line, rows[1:])]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    read = read_rows(tmp_path / "metrics.jsonl")
    assert read == rows and next(iter(read[1]["a"])) is next(iter(read[2]["a"]))
    for line in lines:
        (tmp_path / "metrics.jsonl").write_text("".join(lines).replace(line, line.replace("0.5", "0.6")))
        with pytest.raises(
            ConfigError, match=rf"metrics.jsonl:{lines.index(line) + 1}: this row was damaged or edited"
        ):
            read_rows(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("flips", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_each_flipped_bit_is_reported_or_changes_no_value(files, name, flips):
    file, read, rng = files / name, READERS[name], random.Random(0)
    intact, expected = file.read_bytes(), read(files)
    reported = 0
    for _ in range(flips):
        flipped, position, bit = bytearray(intact), rng.randrange(len(intact)), rng.randrange(8)
        flipped[position] ^= 1 << bit
        file.write_bytes(flipped)
        try:
            assert unchanged(read(files), expected), (position, bit)
        except ConfigError as error:
            assert "\n" not in str(error) and str(file) in str(error)
            reported += 1
    file.write_bytes(intact)
    assert reported > 0.8 * flips


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"config": 5}', "5", "", "\xff", '{"config": {}, "last": []}', "{}"]
)
def test_a_file_without_a_seal_is_read_by_its_types(trained, files, name, content, refused):
    intact = (files / name).read_bytes()
    (files / name).write_text(content, "latin-1")
    assert f"{files / name}: cannot be read; " in refused("compare", files, trained)
    (files / name).write_bytes(intact)


def test_an_integer_that_no_float_holds_is_damage(files, tmp_path):
    content = run_json.read_result(files) | {"seconds": 10**400}
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"result.json: cannot be read; "):
        run_json.read_result(tmp_path)
    for row in ({"step": 1, "seconds": 10**400}, {"step": 10**400, "seconds": 1.0}):
        (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "bad", **row}) + "\n")
        with pytest.raises(ConfigError, match=r"metrics.jsonl:1: this row was damaged or edited; "):
            read_rows(tmp_path / "metrics.jsonl")


def test_each_misspelt_key_without_a_seal_is_reported(files):
    """All keys that a command reads, one after the other."""
    intact = {name: json.loads((files / name).read_text()) for name in ("config.json", "result.json")}
    for name, keys in {
        "config.json": (["config"], ["config", "seed"]),
        "result.json": (["seconds"], ["gradient_norms"], ["last"], ["chosen"], ["last", "epoch"]),
    }.items():
        for *path, last in keys:
            content = json.loads(json.dumps(intact[name]))
            del content["sha256"]
            inner = content
            for key in path:
                inner = inner[key]
            inner["misspelt"] = inner.pop(last)
            (files / name).write_text(json.dumps(content))
            with pytest.raises(ConfigError, match=f"{name}: cannot be read; "):
                READERS[name](files)
        (files / name).write_text(json.dumps(intact[name]))
        assert READERS[name](files) == {k: v for k, v in intact[name].items() if k != "sha256"}


def test_an_edited_file_is_read_once_its_seal_is_deleted(files):
    content = json.loads((files / "config.json").read_text())
    content["config"]["data"]["workers"] = 3
    edited = shutil.copytree(files, files.parent / "edited") / "config.json"
    edited.write_text(json.dumps(content, indent=1))
    with pytest.raises(
        ConfigError,
        match="config.json: was damaged or edited, its sha256 differs; start from scratch with FRESH=1 "
        r"\(--fresh\); or, if you edited it, delete its sha256",
    ):
        run_json.read_config(edited.parent)
    del content["sha256"]
    edited.write_text(json.dumps(content, indent=1))
    assert run_json.read_config(edited.parent)["config"]["data"]["workers"] == 3


def test_the_order_of_keys_and_whitespace_are_not_sealed(tmp_path):
    content: dict[Any, Any] = {"b": (1, 2.5), 3: None, "a": float("nan")}
    seals.write_json(tmp_path / "a.json", content)
    content = json.loads((tmp_path / "a.json").read_text())
    text = json.dumps(dict(reversed(content.items())))
    assert repr(seals.parse(text.encode())) == "{'a': nan, '3': None, 'b': [1, 2.5]}"


def test_rows_are_sealed_plain_lines_and_those_of_older_versions_are_read(tmp_path):
    file = tmp_path / "metrics.jsonl"
    start = {"kind": "start", "step": 0, "seconds": 0.0, "gradient_norms": {"task": 1.0}}
    bad = {"kind": "bad", "step": 1, "seconds": 1.0, "bad_steps": 1}
    file.write_text(json.dumps(start) + "\n")
    with opened(file) as log:
        log.write(bad)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [start, seals.seal(bad)]
    assert read_rows(file) == [start, bad]


def test_a_reading_goes_on_where_the_last_one_ended_and_begins_again_after_a_rewind(tmp_path):
    file = tmp_path / "metrics.jsonl"
    rows = follow_rows(file)
    assert next(rows) == []
    steps = [{"kind": "bad", "step": step, "seconds": float(step)} for step in range(4)]
    for count in (2, 3, 4):
        file.write_bytes("".join(map(seals.line, steps[:count])).encode().replace(b"0", b"x", count == 3))
        assert next(rows) == steps[:count]  # of three, the first is damaged, and not read again
    file.write_text("".join(map(seals.line, steps[1:3])))
    assert next(rows) == read_rows(file) == steps[1:3]


@pytest.mark.parametrize("bytes_cut", [1, 2, 10, 150])
def test_a_last_row_that_a_kill_has_cut_short_is_dropped(files, tmp_path, bytes_cut):
    copy = tmp_path / "metrics.jsonl"
    copy.write_bytes((files / "metrics.jsonl").read_bytes()[:-bytes_cut])
    rows = read_rows(files / "metrics.jsonl")
    assert read_rows(copy) == (rows if bytes_cut == 1 else rows[:-1])


def test_a_damaged_line_break_is_not_taken_for_a_row_cut_short(files, tmp_path):
    copy = tmp_path / "metrics.jsonl"
    copy.write_bytes((files / "metrics.jsonl").read_bytes()[:-1] + b"\x0b")
    number = len(read_rows(files / "metrics.jsonl"))
    with pytest.raises(ConfigError, match=rf"metrics.jsonl:{number}: this row was damaged or edited; "):
        read_rows(copy)
