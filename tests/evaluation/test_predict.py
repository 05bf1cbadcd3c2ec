"""Predictions for files equal those of evaluation; unreadable files are reported and do not stop the others."""

import csv
import dataclasses
import functools
import io
import os
import re
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from csbp_jax import configs, data, learner, losses, models
from csbp_jax.cli import main
from csbp_jax.config import Chaos, ConfigError, Neuron, replaced, to_json
from csbp_jax.data.events import camera, digits_events, sources
from csbp_jax.data.images import reduced
from csbp_jax.data.images.sources import JpegSource, View
from csbp_jax.data.user import folder, folder_files, prediction_inputs
from csbp_jax.evaluation import forward, predict
from csbp_jax.learner import optimizer
from csbp_jax.runs import restore
from csbp_jax.runtime import files
from csbp_jax.training.build import resolve
from csbp_jax.training.checkpoint import checkpoint
from tests.support import formats, hostile_files


@pytest.fixture(scope="module")
def digits(trained, tmp_path_factory):
    """The run, its test split, and a file for each of its first records."""
    config = restore.restore(trained).config
    test = data.load(config)["test"]
    directory = tmp_path_factory.mktemp("digits")
    for i in range(12):
        np.save(directory / f"{i}.npy", test[i]["x"])
    return trained, test, [directory / f"{i}.npy" for i in range(12)]


def evaluated(run, source):
    """Return predictions of evaluation and their confidence."""
    restored = restore.restore(run)
    outcome = forward.apply_all(restored, source.events, forward.outcome)(data.Unaugmented(source))
    names = data.classes(restored.config)
    return [names[k] for k in outcome["predicted"][:, -1]], outcome["confidence"]


@pytest.fixture(scope="module")
def answers(digits):
    run, _, paths = digits
    return predict.predict(run, paths, top=10)


def test_predictions_equal_those_of_evaluation(digits, answers):
    run, test, _ = digits
    labels, confidence = evaluated(run, test)
    assert [answer.labels[0] for answer in answers] == labels[:12]
    assert [answer.probabilities[0] for answer in answers] == pytest.approx(confidence[:12].tolist(), abs=1e-6)
    assert len({answer.labels[0] for answer in answers}) > 3


@pytest.mark.full
def test_order_of_files_does_not_matter_and_probabilities_sum_to_one(digits, answers):
    run, _, paths = digits
    backwards = predict.predict(run, paths[::-1], top=10)
    assert [answer.labels for answer in answers] == [answer.labels for answer in backwards[::-1]]
    for answer in answers:
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert sorted(answer.labels) == list("0123456789")
        assert answer.probabilities == sorted(answer.probabilities, reverse=True)
    for path in (paths[0], str(paths[0])):  # a list of one
        assert predict.predict(run, path)[0].labels == answers[0].labels[:1]


def test_the_command_omits_files_that_it_cannot_read(digits, tmp_path, capsys):
    run, _, paths = digits
    bad = {name: tmp_path / name for name in ("wide.npy", "broken.npy", "dark.npy", "colour.png", "notes.txt")}
    np.save(bad["wide.npy"], np.zeros((8, 9, 1), np.float32))
    bad["broken.npy"].write_bytes(paths[0].read_bytes()[:-100])
    np.save(bad["dark.npy"], np.full((8, 8, 1), -1.0))
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(bad["colour.png"])
    bad["notes.txt"].write_text("")
    missing = tmp_path / "missing.png"
    out = tmp_path / "out.csv"
    order = [paths[0], *bad.values(), paths[1], missing, tmp_path, paths[2]]
    assert main.main(["predict", str(run), *map(str, order), "--out", str(out), "--top", "3"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 8 and all(line.startswith("csbp_jax: ") for line in errors)
    for line, (path, reason) in zip(errors, {
        "wide.npy": "is 1x8x9x1, but this run's pictures with a time axis are 1x8x8x1",
        "broken.npy": "cannot be read",
        "dark.npy": "save uint8, or brightness in [0, 1]",
        "colour.png": "is coloured, but this run was trained on grey pictures",
        "notes.txt": "unsupported file format; allowed are .png",
        "missing.png": "there is no such file",
        str(tmp_path): "is a folder; name its files",
    }.items(), strict=False):  # fmt: skip
        assert path in line and reason in line
    assert errors[-1] == "csbp_jax: 7 of 10 files could not be read; the others are predicted"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["file"] for row in rows] == [str(path) for path in paths[:3]]
    answers = predict.predict(run, paths[:3], top=3)
    assert [[row["label"], row["label_2"], row["label_3"]] for row in rows] == [answer.labels for answer in answers]
    assert float(rows[1]["probability_2"]) == pytest.approx(answers[1].probabilities[1], rel=1e-5)


@pytest.mark.parametrize("command", ["predict", "export"])
def test_where_the_result_cannot_be_written_nothing_is_computed(digits, tmp_path, monkeypatch, capsys, command):
    run, _, paths = digits
    for work in ("evaluation.predict.predict", "export.metadata"):
        monkeypatch.setattr(f"csbp_jax.{work}", lambda *_, **__: pytest.fail("the output was not checked first"))
    (tmp_path / "notes.txt").touch()
    line = [command, str(run), *map(str, paths[:1] if command == "predict" else [])]
    for out, problem in {
        tmp_path: "is a directory; give the path of a file",
        tmp_path / "notes.txt" / "a": "cannot be written (File exists); give another path",
    }.items():
        assert main.main([*line, "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"csbp_jax: {out}: {problem}\n"


def test_on_a_terminal_control_characters_of_classes_are_escaped(monkeypatch, capsys):
    answer = predict.Answer("a.png", ["cat\x1b[2J"], [1.0], "")
    monkeypatch.setattr(predict, "predict", lambda *_, **__: [answer])
    for is_terminal, label in ((True, "cat\\x1b[2J"), (False, "cat\x1b[2J")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert main.main(["predict", "r", "a.png"]) == 0
        assert capsys.readouterr().out == f"file,label,probability\na.png,{label},1\n"


def test_no_file_stops_the_others(digits, tmp_path, capsys):
    run, _, paths = digits
    messages = hostile_files.write(tmp_path, hostile_files.PICTURES, hostile_files.ARRAYS)
    order = [str(path) for path in (*messages, paths[0])]
    assert main.main(["predict", str(run), *order]) == 2
    output = capsys.readouterr()
    errors = output.err.splitlines()
    assert errors[-1] == f"csbp_jax: {len(messages)} of {len(order)} files could not be read; the others are predicted"
    for line, (path, message) in zip(errors[:-1], messages.items(), strict=True):
        assert re.match(rf"csbp_jax: {re.escape(str(path))}.*{message}", line), line
    assert [row["file"] for row in csv.DictReader(io.StringIO(output.out))] == [str(paths[0])]


def test_memory_that_a_file_needs_and_the_machine_lacks_is_its_error(digits, monkeypatch):
    run, _, paths = digits

    def exhausted(path):
        raise MemoryError

    read = folder_files.read_array
    monkeypatch.setattr(folder_files, "read_array", lambda path: exhausted(path) if path == paths[0] else read(path))
    answers = predict.predict(run, paths[:2])
    assert answers[0].problem == f"{paths[0]}: needs more memory than this machine has; make it smaller"
    assert answers[1].labels and not answers[1].problem


def test_file_formats_of_a_grey_picture_agree(digits, tmp_path, capsys):
    run, _, _ = digits
    x = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(x).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", (x / 255).astype(np.float32))
    np.savez(tmp_path / "c.npz", x[..., None])
    assert main.main(["predict", str(run), *(str(tmp_path / name) for name in ("a.png", "b.npy", "c.npz"))]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["file", "label", "probability"] and rows[1][1:] == rows[2][1:] == rows[3][1:]


def test_a_name_that_is_not_utf8_is_written_as_its_bytes(digits, tmp_path):
    run, _, paths = digits
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npy")
    shutil.copy(paths[0], name)
    (tmp_path / "out.csv").write_text("old")
    assert main.main(["predict", str(run), name, "--out", str(tmp_path / "out.csv")]) == 0
    _, row = (tmp_path / "out.csv").read_bytes().splitlines()
    assert row.startswith(os.fsencode(name) + b",")


def pictures(path, random):
    size = random.integers(9, 12, 2)
    Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(path.with_suffix(".png"))


def frames(path, random):
    np.save(path.with_suffix(".npy"), random.poisson(1.0, (3, 8, 8, 2)))


def events(path, random):
    t = np.sort(random.integers(0, 1000, 60))
    x, y, p = random.integers(0, 8, 60), random.integers(0, 10, 60), random.integers(0, 2, 60)
    np.savez(path.with_suffix(".npz"), x=x, y=y, t=t, p=p)


def drawn(random, path, leaf):
    """Draw a leaf of a state with NumPy, which compiles nothing; weights of any sign, variances positive."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    if not np.issubdtype(leaf.dtype, np.floating):
        return np.zeros(leaf.shape, leaf.dtype)
    values = random.normal(size=leaf.shape)
    return np.asarray(values if getattr(path[-1], "key", "") == "kernel" else np.abs(values), leaf.dtype)


def untrained_run(write, options, root):
    """Write a run on a folder of files, with random weights as its only checkpoint."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "2", "10"):
        (root / "files" / name).mkdir(parents=True)
        for i in range(6):
            write(root / "files" / name / str(i), random)
    config = configs.load("folder")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dir=str(root / "files"), **options),
        model=dataclasses.replace(
            config.model, name="dense", features=(16,), time_steps=3, neuron=Neuron(threshold=0.1)
        ),
        chaos=Chaos(),
        batch_size=8,
    )
    parts = data.load(config, root / "prepared")
    config = resolve(config, parts)
    tx = optimizer.build(config.optimizer, config.epochs, 1)
    recipe = learner.Recipe(models.build(config.model), tx, losses.build(config.loss), config, 1)
    shapes = jax.eval_shape(functools.partial(learner.init, recipe), jax.random.key(0))
    state = jax.tree_util.tree_map_with_path(functools.partial(drawn, random), shapes)
    run = root / "run"
    with checkpoint.open_folder(run / "checkpoints") as checkpoints:
        checkpoints.save(1, {"state": learner.weights_of(state), "progress": {"epochs": np.asarray(0)}})
    files.write_json(run / "config.json", {"schema": 1, "config": to_json(config)})
    return run, config, parts["test"]


KINDS = {
    "pictures": (pictures, {"size": (8, 8), "augment": ("flip",)}),
    "windows": (pictures, {"size": (8, 8), "augment": ("resized_crop",)}),
    "frames": (frames, {"normalise": "max"}),
    "resized frames": (frames, {"size": (4, 4), "resize": "bilinear"}),
    "events": (events, {"bins": "time"}),
    "scaled events": (events, {"size": (5, 4)}),
    "resized events": (events, {"size": (4, 4), "resize": "antialias"}),
}


MARKS = {kind: pytest.mark.slow for kind in ("windows", "events", "resized frames", "resized events")}
MARKS |= {kind: pytest.mark.full for kind in ("frames", "scaled events")}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in KINDS])
def test_files_of_a_folder_are_read_as_in_evaluation(kind, tmp_path):
    run, config, test = untrained_run(*KINDS[kind], tmp_path)
    paths = [record.path for record in folder.list_files(config)[0]["test"]]
    labels, confidence = evaluated(run, test)
    gone = paths[0].with_stem("gone")
    missing, *answers = predict.predict(run, [gone, *paths])
    assert f"{gone}: there is no such file" in missing.problem and not any(answer.problem for answer in answers)
    assert [answer.labels[0] for answer in answers] == labels and set(labels) <= {"cat", "dog", "2", "10"}
    assert [answer.probabilities[0] for answer in answers] == pytest.approx(confidence.tolist(), abs=1e-6)
    assert np.ptp(confidence) > 1e-4

    # Without the training data; the size of the camera of scaled events is then unknown.
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "files", moved)
    paths = [moved / path.relative_to(tmp_path / "files") for path in paths]
    if kind in ("scaled events", "resized events"):
        assert all(
            "the camera's size can only be read from its recordings" in a.problem for a in predict.predict(run, paths)
        )
    else:
        answers_without_data = predict.predict(run, paths)
        assert [answer.probabilities for answer in answers_without_data] == [answer.probabilities for answer in answers]
        assert {label for answer in answers_without_data for label in answer.labels} <= set("0123")


def test_files_of_another_kind_are_named_as_such(tmp_path):
    run, *_ = untrained_run(*KINDS["frames"], tmp_path)
    for write in (pictures, events):
        write(tmp_path / write.__name__, np.random.default_rng(1))
    for name in ("pictures.png", "events.npz"):
        (answer,) = predict.predict(run, tmp_path / name)
        assert f"holds {name[:-4]}, but this run was trained on frames" in answer.problem


def test_a_folder_of_other_classes_at_the_same_path_is_not_the_training_data(tmp_path):
    run, config, _ = untrained_run(*KINDS["frames"], tmp_path)
    splits, classes = folder.list_files(config)
    good = shutil.copy(splits["test"][0].path, tmp_path / "good.npy")
    files.write_json(run / "config.json", {"schema": 1, "config": to_json(config), "classes": classes})
    shutil.rmtree(tmp_path / "files")
    for name in ("a", "b"):
        (tmp_path / "files" / name).mkdir(parents=True)
        for i in range(6):
            pictures(tmp_path / "files" / name / str(i), np.random.default_rng(i))
    (answer,) = predict.predict(run, good)
    assert not answer.problem and answer.labels[0] in classes


def test_frames_of_another_number_of_time_steps_are_refused_without_the_training_data_too(tmp_path):
    config = replaced(configs.load("folder"), "data.dir", str(tmp_path / "gone"))
    config = replaced(config, "model.time_steps", 3)
    for steps in (1, 3, 7):
        np.save(tmp_path / f"{steps}.npy", np.zeros((steps, 8, 8, 2)))
    read, *_ = prediction_inputs.reader(config, [tmp_path / "1.npy"])
    assert len(read(tmp_path / "1.npy")) == 1 and len(read(tmp_path / "3.npy")) == 3
    with pytest.raises(ConfigError, match=r"7.npy: has 7 time steps; expected is model.time_steps \(3\), or 1"):
        read(tmp_path / "7.npy")


def test_recordings_for_a_data_set_are_binned_as_its_own(tmp_path):
    config = configs.load("digits_events")
    sizes: list[dict[str, Any]] = [{}, {"height": 16, "width": 16}, {"height": 16, "width": 20}]
    for i, size in enumerate(sizes):
        x, y, t, p, _ = digits_events.recording(i)
        np.savez(tmp_path / f"{i}.npz", x=x, y=y, t=t, p=p, **size)
    read, is_events, _ = prediction_inputs.reader(config, [])
    assert is_events
    for i in (0, 1):
        expected = sources.bin_events(digits_events.recording(i), config.data, 10, (16, 16, 2))
        assert np.array_equal(read(tmp_path / f"{i}.npz"), expected) and expected.sum() > 100
    with pytest.raises(ValueError, match=r"is 16x20, but this run.s camera is 16x16"):
        read(tmp_path / "2.npz")


def test_recordings_for_those_of_pictures_are_summed_to_the_networks_frames(tmp_path):
    config = configs.load("cifar10_events")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32))
    (events,) = camera.record(pictures, np.array([0]), camera.LOOP)
    x, y, t, p, _ = events
    np.savez(tmp_path / "0.npz", x=x, y=y, t=t, p=p)
    read, is_events, _ = prediction_inputs.reader(config, [])
    assert is_events
    expected = sources.bin_events(events, config.data, 10, (16, 16, 2))
    np.testing.assert_array_equal(read(tmp_path / "0.npz"), expected)


def test_pictures_for_reduced_imagenet_are_reduced_as_its_records(tmp_path):
    """Reduction by Lanczos and a JPEG change many pixels."""
    config = configs.load("imagenet_small")
    for field, value in {"shorter_side": 40, "resizer": "pillow"}.items():
        config = replaced(config, f"data.{field}", value)
    config = replaced(config, "model.input_shape", (32, 32, 3))
    jpeg = formats.encoded(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes(jpeg)

    class Stored(list):
        def __getitems__(self, rows):
            return [self[row] for row in rows]

    stored: Any = Stored([{"image": reduced.reduce(jpeg, 40, "a"), "file_name": "a"}])
    record = JpegSource(stored, np.zeros(1, int), np.zeros(1, int), 1, View((32, 32)))[0]["x"]
    assert np.array_equal(prediction_inputs.reader(config, [])[0](tmp_path / "a.jpg"), record)


def test_no_other_file_is_predicted_where_none_could_be_read(digits, tmp_path, capsys):
    run, _, _ = digits
    missing = [str(tmp_path / name) for name in ("a.png", "b.png")]
    lines = [f"csbp_jax: {path}: there is no such file" for path in missing]
    for paths, expected in ((missing[:1], lines[:1]), (missing, [*lines, "csbp_jax: none of the files could be read"])):
        assert main.main(["predict", str(run), *paths]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.splitlines() == expected


def test_recordings_from_others_are_refused_in_one_line(tmp_path):
    read, *_ = prediction_inputs.reader(configs.load("digits_events"), [])
    for path, message in hostile_files.write(tmp_path, hostile_files.EVENTS).items():
        with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}.*{message}") as error:
            read(path)
        assert "\n" not in str(error.value)
