"""Published time series: read from files in their true format, split, standardised; and frames of own lengths."""

from typing import Any

import numpy as np
import pytest

from csbp_jax import configs, data
from csbp_jax.config import ConfigError
from csbp_jax.data.series import readers, sources
from csbp_jax.data.user import prediction_inputs
from tests.support import event_formats, series_formats
from tests.support.formats import quiet, zipped

TABLE = "vega_datasets/_data/seattle-weather.csv"


def prepared(name, folder, **options):
    """Write the raw files of a data set and prepare it; return what was written, the preset's config, and splits."""
    (folder / "raw").mkdir()
    written = series_formats.WRITERS[name](folder / "raw", **options)
    config = configs.load(name)
    data.prepare(config, folder / "raw", folder, verify=False, show=quiet)
    return written, config, data.load(config, folder)


def by_training(values, train):
    return (values - train.mean(axis=0)) / train.std(axis=0)


@pytest.mark.parametrize("unpacked", [False, True], ids=["wheel", "npy"])
def test_recordings_of_a_watch_are_averaged_split_by_person_and_standardised(tmp_path, monkeypatch, unpacked):
    (tmp_path / "raw").mkdir()
    fields = series_formats.watch(tmp_path / "raw", samples=range(900, 2600, 7))
    content = series_formats.watch_file(fields)
    if unpacked:
        (wheel,) = (tmp_path / "raw").iterdir()
        wheel.unlink()
        (tmp_path / "raw" / "watch_dataset.npy").write_bytes(content)
    series_formats.publish(monkeypatch, content)
    config = configs.load("watch")
    data.prepare(config, tmp_path / "raw", tmp_path, verify=False, show=quiet)
    splits = data.load(config, tmp_path)
    means = [x[: len(x) // 10 * 10].reshape(-1, 10, 6).mean(1) for x in fields["X"]]
    person = fields["subject"]
    train = np.concatenate([x for x, who in zip(means, person, strict=True) if who <= 7])
    for split, persons in (("train", range(1, 8)), ("validation", (8,)), ("test", (9, 10))):
        rows = np.flatnonzero(np.isin(person, persons))
        source = splits[split]
        np.testing.assert_array_equal(source.lengths, [len(fields["X"][i]) // 10 for i in rows])
        for i, row in enumerate(rows):
            np.testing.assert_allclose(source[i]["x"], by_training(means[row], train), atol=1e-4)
            assert source[i]["y"] == fields["y"][row]
    assert data.classes(config, tmp_path) == list(series_formats.EXERCISES)
    steps = data.load(configs.load("watch_steps"), tmp_path)["test"]
    np.testing.assert_array_equal(steps[3]["y"], [splits["test"][3]["y"]] * len(steps[3]["x"]))


class Call:
    """What a pickle calls where it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def files_of_a_watch(content):
    return {
        "watch_dataset.npy": content,
        "seglearn-1.2.5-py3-none-any.whl": zipped({"seglearn/data/watch_dataset.npy": content}),
    }


@pytest.mark.parametrize("file", files_of_a_watch(b""))
def test_no_code_is_run_from_a_pickle(tmp_path, file, capsys):
    content = series_formats.watch_file({"X": [], "y": Call(print, "ran")})
    (tmp_path / file).write_bytes(files_of_a_watch(content)[file])
    with pytest.raises(ConfigError, match=rf"{file}: the sha256 of its watch_dataset.npy .*not even with --no-verify"):
        sources.prepare("watch", tmp_path, tmp_path, verify=False, show=quiet)
    with pytest.raises(ConfigError, match=rf"{file}: has .* fetch it again from https://\S+$"):
        sources.prepare("watch", tmp_path, tmp_path, show=quiet)
    assert not capsys.readouterr().out


def test_a_pickle_cannot_choose_an_address_in_memory(tmp_path, monkeypatch, refused):
    """An array of one Python object, at an address that the file states: to look at it ends the process."""
    object_at = Call(np.ndarray, (1,), "O", b"A" * 8)
    content = series_formats.watch_file({"X": [], "y": [], "subject": object_at, "y_labels": []})
    (tmp_path / "watch_dataset.npy").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert "no other one is read" in refused("data", "watch", "--from", ".", "--no-verify")


def test_the_wheel_may_differ_where_its_pickle_is_the_published_one(tmp_path, monkeypatch):
    content = series_formats.watch_file(series_formats.watch(tmp_path))
    series_formats.publish(monkeypatch, content)
    with pytest.raises(ConfigError, match=r"none-any.whl: has .* the published file 11,320,941"):
        sources.prepare("watch", tmp_path, tmp_path, show=quiet)
    sources.prepare("watch", tmp_path, tmp_path, verify=False, show=quiet)


def test_weather_predicts_the_day_after_a_window(tmp_path):
    (days, values), config, splits = prepared("seattle_weather", tmp_path)
    years = days.astype("datetime64[Y]").astype(int) + 1970
    targets = np.arange(readers.DAYS, len(days))
    train = targets[years[targets] <= 2013]
    windows, following = (np.concatenate([values[t - readers.DAYS + i : t + i] for t in train]) for i in (0, 1))
    last_day = data.load(config.replace("loss.per", "example"), tmp_path)
    for split, year in (("train", 2013), ("validation", 2014), ("test", 2015)):
        of_split = targets[years[targets] == year]
        assert len(splits[split]) == len(of_split)
        for i in (0, len(of_split) - 1):
            day, steps, record = of_split[i], config.model.time_steps, splits[split][i]
            expected = by_training(values[day - steps + 1 : day + 1], following)[:, 1:2]
            np.testing.assert_allclose(record["x"], by_training(values[day - steps : day], windows), atol=1e-4)
            np.testing.assert_allclose(record["y"], expected, atol=1e-4)
            np.testing.assert_allclose(last_day[split][i]["y"], expected[-1], atol=1e-4)


def test_strokes_are_movements_split_by_writer(tmp_path):
    strokes, _, splits = prepared("omniglot_strokes", tmp_path)
    assert [len(splits[split]) for split in splits] == [2 * 14, 2 * 2, 2 * 4]
    movements = {}
    for (name, writer), (one, two, (dot,)) in strokes.items():
        rows = [
            [0, 0, 1],
            [*(one[3] - one[0]), 0],
            [*(two[0] - one[3]), 1],
            [*(two[3] - two[0]), 0],
            [*(dot - two[3]), 1],
        ]
        movements[name, writer] = np.array(rows) * (1, -1, 1)  # rows of a file count down
    train = np.concatenate([x for (_, writer), x in movements.items() if writer <= 14])
    expected = [by_training(x, train) for (_, writer), x in sorted(movements.items()) if writer >= 17]
    np.testing.assert_allclose(splits["test"].take(np.arange(8), None)["x"], expected, atol=1e-4)
    np.testing.assert_array_equal([splits["test"][i]["y"] for i in range(8)], np.repeat([0, 1], 4))


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("watch", "seglearn-1.2.5-py3-none-any.whl", zipped({"a": b""}), "seglearn/data/watch_dataset.npy"),
        ("seattle_weather", "vega_datasets-0.9.0-py3-none-any.whl", b"text", "not a zip"),
        ("seattle_weather", "vega_datasets-0.9.0-py3-none-any.whl", zipped({TABLE: b"day,rain"}), "day,rain"),
        (
            "omniglot_strokes",
            "strokes_background_small1.zip strokes_background_small2.zip",
            zipped({"a": b""}),
            "no drawings",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, name, file, content, words):
    for raw in file.split():
        (tmp_path / raw).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file.split()[0]}: cannot be read .*{words}.*fetch it again"):
        sources.prepare(name, tmp_path, tmp_path, verify=False, show=quiet)


def test_a_damaged_preparation_says_how_to_repeat_it(tmp_path):
    _, config, _ = prepared("seattle_weather", tmp_path)
    file = tmp_path / "seattle_weather" / "series.npz"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"series.npz: is damaged; delete it, and run csbp_jax data seattle_weather"):
        data.load(config, tmp_path)
    file.unlink()
    sources.prepare("seattle_weather", tmp_path / "raw", tmp_path, verify=False, show=quiet)
    assert data.load(config, tmp_path)["train"]


def test_what_was_not_verified_is_prepared_from_verified_files(tmp_path):
    _, config, _ = prepared("seattle_weather", tmp_path)
    before = data.fingerprint(config, tmp_path)
    data.prepare(config, None, tmp_path, verify=False, show=quiet)
    assert data.fingerprint(config, tmp_path) == before
    with pytest.raises(ConfigError, match="the published file 210,822"):
        data.prepare(config, tmp_path / "raw", tmp_path, show=quiet)


def test_a_file_to_predict_is_a_sequence_of_the_data(tmp_path):
    config = configs.load("watch")
    read, events, _ = prediction_inputs.reader(config, [])
    np.save(tmp_path / "a.npy", np.ones((12, 6)))
    assert events and read(tmp_path / "a.npy").shape == (12, 6)
    for wrong in (np.ones((12, 5)), np.ones((config.model.time_steps + 1, 6))):
        np.save(tmp_path / "b.npy", wrong)
        with pytest.raises(ConfigError, match=r"b\.npy: "):
            read(tmp_path / "b.npy")


def test_frames_of_own_length_are_those_of_windows_up_to_the_last_event(tmp_path):
    event_formats.trees("fsdd", tmp_path / "raw")
    own = configs.load("fsdd_lengths").replace(**{"data.window": 10_000, "model.time_steps": 6})
    data.prepare(own, tmp_path / "raw", tmp_path, verify=False, show=quiet)
    window = own.replace("data.bins", "window")
    ours: Any
    ours, theirs = data.load(own, tmp_path)["train"], data.load(window, tmp_path)["train"]
    assert {*ours.lengths} == {2, 3}  # the last of the 30 or 32 ms are silent
    for i, length in enumerate(ours.lengths):
        frames = theirs[i]["x"]
        np.testing.assert_array_equal(ours[i]["x"], frames[:length])
        assert frames[length - 1].any() and not frames[length:].any()
    assert len({path.name for path in (tmp_path / "frames").glob("fsdd-*") if path.is_dir()}) == 1
    read, *_ = prediction_inputs.reader(own, [])
    (tmp_path / "0_ann_10.wav").write_bytes(event_formats.wav(event_formats.voice(0, 0.03)))
    assert len(read(tmp_path / "0_ann_10.wav")) in (2, 3)
    with pytest.raises(ConfigError, match=r"data\.augment: mixup"):
        data.load(own.replace("data.augment", ("mixup",)), tmp_path)
