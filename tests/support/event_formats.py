"""Small event data sets in their original byte formats, including archives."""

import io
import pathlib
import wave

import numpy as np

from csbp_jax.data.events import cochlea
from csbp_jax.data.events.recordings import CALTECH101, CIFAR10
from tests.support.formats import saved, tarred, zipped


def recording(seed, n=200, height=34, width=34, span=300_000):
    """x, y, t, p of n random events, two of them in corners."""
    random = np.random.default_rng(seed)
    x, y = random.integers(0, width, n), random.integers(0, height, n)
    x[:2], y[:2] = (0, width - 1), (0, height - 1)
    return x, y, np.sort(random.integers(0, span, n)), random.integers(0, 2, n)


def nmnist(x, y, t, p):
    """N-MNIST and N-Caltech101: x, y, then polarity and 23 bits of time, big-endian."""
    columns = [x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255]
    return np.stack(columns, axis=1).astype(np.uint8).tobytes()


def aedat(x, y, t, p):
    """AEDAT 2.0 of a DVS128, as CIFAR10-DVS has it."""
    address = (127 - x) << 8 | (127 - y) << 1 | (1 - p)
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# created Wed Jan 18 2017\r\n"
    return header + np.stack([address, t], axis=1).astype(">u4").tobytes()


def aedat4(events, path, height=128, width=128):
    """AEDAT 4, written by the camera vendor's library, with calendar times."""
    import dv_processing as dv

    writer = dv.io.MonoCameraWriter(str(path), dv.io.MonoCameraWriter.EventOnlyConfig("DVS", (width, height)))
    x, y, t, p = events
    store = dv.EventStore()
    for i in range(len(x)):
        store.push_back(1_500_000_000_000_000 + int(t[i]), int(x[i]), int(y[i]), bool(p[i]))
    writer.writeEvents(store)
    del writer  # closes the file
    return pathlib.Path(path).read_bytes()


def gesture(x, y, t, p):
    """DVS-Gesture as cut for tonic: columns x, y, polarity, milliseconds."""
    return saved(np.save, np.stack([x, y, p, t], axis=1))


def wav(samples, rate=8000, channels=1):
    """A wav file of 16-bit samples."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return content.getvalue()


def voice(seed, seconds=0.05):
    """Samples of a chord of three tones that swells and fades."""
    random = np.random.default_rng(seed)
    t = np.arange(int(8000 * seconds)) / 8000
    tones = np.sin(2 * np.pi * np.outer(random.uniform(150, 3500, 3), t)).sum(0)
    return (3000 * np.sin(np.pi * t / seconds) * tones).astype(np.int16)


def shd(path, recordings, labels, names=("zero",) * 20):
    """Spiking Heidelberg Digits: float16 seconds and units, of variable length."""
    import h5py

    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (len(labels),), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (len(labels),), h5py.vlen_dtype(np.uint16))
        for i, (x, _, t, _) in enumerate(recordings):
            times[i], units[i] = (t / 1e6).astype(np.float16), x.astype(np.uint16)
        file["labels"] = np.asarray(labels, np.uint16)
        file["extra/speaker"] = np.zeros(len(labels), np.uint16)
        file["extra/keys"] = [name.encode() for name in names]
    return pathlib.Path(path).read_bytes()


WORDS = tuple(f"word {number}" for number in range(35))
# Numbers of the recordings of each class: their natural order differs from the alphabetical one.
NUMBERS = (2, 10, 1, 9, 100)


def trees(name, folder):
    """Write the archives of a small data set into ``folder``; return {split: {file: (label, (x, y, t, p))}}."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "nmnist": _nmnist,
        "ncaltech101": _ncaltech101,
        "dvs_gesture": _dvs_gesture,
        "cifar10_dvs": _cifar10_dvs,
        "cifar10_dvs_aedat": _cifar10_dvs_aedat,
        "shd": lambda _: _spikes(folder, "shd", {"train": "train", "test": "test"}, ("zero",) * 20),
        "ssc": lambda _: _spikes(folder, "ssc", {"train": "train", "validation": "valid", "test": "test"}, WORDS),
        "fsdd": _fsdd,
    }[name](folder)


def _nmnist(folder):
    splits = {}
    for split, root, seed in (("train", "Train", 0), ("test", "Test", 1000)):
        splits[split] = {
            f"{root}/{digit}/{number:05d}.bin": (digit, recording(seed + 100 * digit + number))
            for digit in (3, 0, 9)
            for number in NUMBERS
        }
        content = {file: nmnist(*events) for file, (_, events) in splits[split].items()}
        (folder / f"{root}.zip").write_bytes(zipped(content))
    return splits


def _ncaltech101(folder):
    files = {
        f"Caltech101/{label}/image_{number:04d}.bin": (
            CALTECH101.index(label),
            recording(100 * i + number, height=180 - 20 * i, width=240 - 10 * number % 7),
        )
        for i, label in enumerate(("yin_yang", "BACKGROUND_Google", "accordion"))
        for number in NUMBERS
    }
    inner = zipped({file: nmnist(*events) for file, (_, events) in files.items()})
    outer = zipped({"Caltech101.zip": inner, "Caltech101_annotations.zip": zipped({"x": b""}), "README.txt": b"N"})
    (folder / "N-Caltech101-archive.zip").write_bytes(outer)
    return {"all": files}


def _dvs_gesture(folder):
    splits = {}
    for split, root, users in (("train", "ibmGestureTrain", (2, 10, 1)), ("test", "ibmGestureTest", (24,))):
        splits[split] = {
            f"{root}/user{user:02d}_{light}/{label}.npy": (
                label,
                recording(100 * user + label + 50 * (light == "led"), 300, 128, 128, 6000),
            )
            for user in users
            for light in ("led", "natural")
            for label in (10, 2, 0)
        }
        content = {file: gesture(*events) for file, (_, events) in splits[split].items()}
        (folder / f"{root}.tar.gz").write_bytes(tarred(content))
        # Readers give microseconds.
        splits[split] = {file: (label, (x, y, 1000 * t, p)) for file, (label, (x, y, t, p)) in splits[split].items()}
    return splits


def _cifar(suffix):
    return {
        f"{label}/cifar10_{label}_{number}{suffix}": (i, recording(100 * i + number, 150, 128, 128))
        for i, label in enumerate(CIFAR10)
        for number in NUMBERS
    }


def _cifar10_dvs(folder):
    files = _cifar(".aedat4")
    content = {file: aedat4(events, folder / "recording.aedat4") for file, (_, events) in files.items()}
    (folder / "recording.aedat4").unlink()
    classes = {
        f"{label}.zip": zipped({file: data for file, data in content.items() if file.startswith(label)})
        for label in CIFAR10
    }
    (folder / "CIFAR10DVS.zip").write_bytes(zipped(classes))
    # Readers give times relative to the first event.
    return {"all": {file: (label, (x, y, t - t[0], p)) for file, (label, (x, y, t, p)) in files.items()}}


def _cifar10_dvs_aedat(folder):
    files = _cifar(".aedat")
    for label in CIFAR10:
        content = {file: aedat(*events) for file, (_, events) in files.items() if file.startswith(label)}
        (folder / f"{label}.zip").write_bytes(zipped(content))
    return {"all": files}


def _spikes(folder, prefix, files, names):
    splits = {}
    for seed, (split, file) in enumerate(files.items()):
        labels = [i % len(names) for i in range(40)]
        recordings = [recording(50 * seed + i, 100, 1, 700, 900_000) for i in range(40)]
        content = shd(folder / "recordings.h5", recordings, labels, names)
        (folder / "recordings.h5").unlink()
        (folder / f"{prefix}_{file}.h5.zip").write_bytes(zipped({f"{prefix}_{file}.h5": content}))
        splits[split] = {
            f"{prefix}_{file}.h5/{i}": (
                label,
                (x, y, (1e6 * (t / 1e6).astype(np.float16).astype(float)).astype(int), 0 * p),
            )
            for i, (label, (x, y, t, p)) in enumerate(zip(labels, recordings, strict=True))
        }
    return splits


def _fsdd(folder):
    files = {
        f"recordings/{digit}_{speaker}_{number}.wav": (digit, voice(100 * digit + 10 * i + number, 0.03 + 0.002 * i))
        for digit in range(10)
        for i, speaker in enumerate(("ann", "bob"))
        for number in (4, 10, 5)
    }
    content = {f"free-spoken-digit-dataset-1.0.10/{file}": wav(sound) for file, (_, sound) in files.items()}
    other = {"free-spoken-digit-dataset-1.0.10/README.md": b"N", "free-spoken-digit-dataset-1.0.10/x/y.wav": b"N"}
    (folder / "free-spoken-digit-dataset-1.0.10.tar.gz").write_bytes(tarred(content | other))
    return {"all": {file: (digit, cochlea.spikes(sound)[:4]) for file, (digit, sound) in files.items()}}
