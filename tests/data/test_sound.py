"""Data sets of sound: the cochlear model, the splits of spoken digits, and the files of speech commands."""

import shutil
from typing import Any

import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, Data, Model
from csbp_jax.data.events import cochlea, preparation, recordings, sources, spoken_digits
from csbp_jax.data.user import prediction_inputs
from tests.support.event_formats import tarred, trees, voice, wav
from tests.support.formats import quiet


def config(name, T=3, **fields):
    return Config(data=Data(name=name, **{"validation": 0.2} | fields), model=Model(time_steps=T))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Raw files, and the same prepared from their archive."""
    folder = tmp_path_factory.mktemp("fsdd")
    trees("fsdd", folder / "raw")
    preparation.prepare("fsdd", folder / "raw", folder / "data", verify=False, show=quiet)
    return folder / "raw", folder / "data"


@pytest.mark.parametrize("channel", [0, 20, 63])
def test_a_tone_excites_the_channel_of_its_frequency_most(channel):
    t = np.arange(4000) / 8000
    tone = 1000 * np.sin(2 * np.pi * cochlea.centre_frequencies()[channel] * t)
    events = cochlea.spikes(tone)
    counts = np.bincount(events.x, minlength=cochlea.CHANNELS)
    # At the full level it would fire 200 times a second; the envelope of a low tone ripples below that.
    assert abs(int(np.argmax(counts)) - channel) <= 1 and 80 <= counts.max() <= 100
    assert np.all(np.diff(events.t) >= 0) and events.t.max() < 500_000 and not events.y.any() and not events.p.any()
    assert counts[(channel + 32) % 64] < 0.6 * counts.max()


def test_the_level_falls_by_a_fiftieth_per_decibel():
    """Two tones of far frequencies, one 25 dB softer: it has half of the other's spikes."""
    t, frequencies = np.arange(8000) / 8000, cochlea.centre_frequencies()
    low, high = (np.sin(2 * np.pi * frequencies[channel] * t) for channel in (15, 50))
    counts = np.bincount(cochlea.spikes(low + 10 ** (-25 / 20) * high).x, minlength=64)
    gain = np.bincount(cochlea.spikes(low + high).x, minlength=64)
    assert counts[50] / counts[15] == pytest.approx(0.5 * gain[50] / gain[15], abs=0.03)


def test_spikes_depend_neither_on_loudness_nor_on_later_sound():
    sound = voice(1, 0.3)
    events, softer = cochlea.spikes(sound), cochlea.spikes(0.01 * sound)
    np.testing.assert_array_equal(events.x, softer.x)
    np.testing.assert_array_equal(events.t, softer.t)
    quieter_end = cochlea.spikes(np.concatenate([sound, 0.1 * sound]))
    early = quieter_end.t < 300_000
    np.testing.assert_array_equal(quieter_end.x[early], events.x)
    assert len(cochlea.spikes(np.zeros(100)).t) == len(cochlea.spikes(np.zeros(0)).t) == 0


def test_speakers_and_numbers_are_the_splits(spoken):
    _, folder = spoken
    ids = [member.id for member in recordings.index("fsdd", folder)["all"]]
    for speaker, expected in (
        ("", [name for name in ids if name.endswith("_4.wav")]),
        ("bob", [name for name in ids if "_bob_" in name]),
    ):
        splits: Any = sources.load(config("fsdd", test_speaker=speaker), folder)
        rest, test = spoken_digits.split_off_test(ids, speaker)
        assert [ids[i] for i in test] == expected and sorted([*rest, *test]) == list(range(60))
        assert {name: len(source) for name, source in splits.items()} == {
            "train": len(rest) - 10,
            "validation": 10,
            "test": len(expected),
        }
        truth = [cochlea.spikes(cochlea.read_wav(folder / "FSDD" / name)) for name in expected]
        counts = [np.bincount(events.x, minlength=64) for events in truth]
        np.testing.assert_array_equal([splits["test"][i]["x"].sum(0) for i in range(len(expected))], counts)
        assert splits["test"].y.tolist() == [int(name.removeprefix("recordings/")[0]) for name in expected]
        assert not {*splits["train"].rows, *splits["validation"].rows} & {*splits["test"].rows}
    with pytest.raises(ConfigError, match=r"data.test_speaker: there is no 'eve'; the speakers are ann, bob"):
        sources.load(config("fsdd", test_speaker="eve"), folder)


def test_archive_clone_and_directory_are_the_same_data(spoken, tmp_path):
    """A different packing is neither another fingerprint nor another checksum; a changed sample is both."""
    raw, folder = spoken
    clone = tmp_path / "clone" / "recordings"
    shutil.copytree(folder / "FSDD" / "recordings", clone)
    (tmp_path / "other").mkdir()
    files = {f"other/recordings/{path.name}": path.read_bytes() for path in sorted(clone.glob("*"), reverse=True)}
    (tmp_path / "other" / "fsdd.tar.gz").write_bytes(tarred(files))
    expected = data.fingerprint(config("fsdd"), folder)
    for number, source in enumerate((clone, clone.parent, tmp_path / "other")):
        target = tmp_path / str(number)
        preparation.prepare("fsdd", source, target, verify=False, show=quiet)
        assert preparation.prepared("fsdd", target)["records"] == {"all": 60}
        assert data.fingerprint(config("fsdd"), target) == expected
    assert spoken_digits.locate(raw) == raw / "free-spoken-digit-dataset-1.0.10.tar.gz"
    with pytest.raises(ConfigError, match=r"its sha256 of all recordings is .*, that of the published file 1801eae"):
        preparation.prepare("fsdd", clone, tmp_path / "verified", show=quiet)
    (clone / "0_ann_4.wav").write_bytes(wav(voice(9)))
    preparation.prepare("fsdd", clone, target, verify=False, show=quiet)
    assert data.fingerprint(config("fsdd"), target) != expected


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read"),
        (wav(voice(1))[:30], "cannot be read"),
        (wav(voice(1))[:-100], "truncated, 350 of 400 samples"),
        (wav(voice(1), rate=16000), "has 1 channels of 16 bits at 16000 Hz; convert it to 1 channel of 16 bits"),
        (wav(voice(1), channels=2), "has 2 channels"),
        (wav([]), "lasts 0 s; allowed is above 0 and up to 60 s"),
        (wav(np.zeros(480_001)), "lasts 60.0001 s"),
        (wav(np.zeros(800)), "holds no events"),
    ],
)
def test_bad_recordings(tmp_path, content, message):
    member = recordings.Recording("0_ann_0.wav", tmp_path / "0_ann_0.wav", 0)
    member.path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"0_ann_0.wav: {message}"):
        recordings.read("fsdd", member)


def test_prediction_reads_wav_files_as_training_does(spoken, tmp_path):
    _, folder = spoken
    trained = config("fsdd")
    trained = Config(data=trained.data, model=Model(time_steps=3, input_shape=(64,)))
    source = sources.load(trained, folder)["test"]
    read, events, _ = prediction_inputs.reader(trained, [])
    np.testing.assert_array_equal(read(folder / "FSDD" / "recordings" / "0_ann_4.wav"), source[0]["x"])
    assert events


def test_the_words_of_speech_commands_are_those_of_its_files(tmp_path):
    """All three splits are the authors' own: none of the training split is held out."""
    trees("ssc", tmp_path / "raw")
    preparation.prepare("ssc", tmp_path / "raw", tmp_path, verify=False, show=quiet)
    splits: Any = sources.load(config("ssc"), tmp_path)
    assert {name: len(source) for name, source in splits.items()} == {"train": 40, "validation": 40, "test": 40}
    assert [splits[name].path.stem for name in splits] == ["train", "validation", "test"]
    fitting = Config(data=Data(name="ssc"), model=Model(classes=35))
    assert data.classes(fitting, tmp_path) == [f"word {i}" for i in range(35)]
    (tmp_path / "SSC" / "ssc_train.h5").unlink()
    assert data.classes(fitting, tmp_path)[:2] == ["0", "1"]
