"""Mutated files of each format, read by ``predict``'s readers and as a member of class folders.

As a script, which test_fuzz.py runs with limits of memory and time: ``fuzz_readers.py FOLDER KIND FIRST COUNT``.
"""

import collections
import contextlib
import faulthandler
import io
import json
import pathlib
import resource
import shutil
import struct
import sys
import time
import traceback
import warnings
import zipfile
import zlib

import numpy as np

from csbp_jax import configs, data
from csbp_jax.config import Config, ConfigError, Data, Model
from csbp_jax.data.events import recordings
from csbp_jax.data.user import prediction_inputs
from tests.support import event_formats
from tests.support.formats import encoded, photo, saved

MEMORY = 2**31
"""Largest address space of the process, in bytes."""
SECONDS = 20
"""Longest time for one file."""
SIZE = 128  # of a DVS128

# What a mutated file changes is the form of the whole folder: another type of content, shape or camera.
OF_THE_FOLDER = ("several types", "give them one shape", "is from a camera of")


def _events(seed):
    return event_formats.recording(seed, 60, SIZE, SIZE)


def _h5(seed, folder):
    event_formats.shd(
        folder / "intact.h5", [event_formats.recording(seed + i, 30, 1, 700) for i in range(3)], [0, 1, 2]
    )
    return (folder / "intact.h5").read_bytes()


FRAMES = np.arange(3 * 8 * 8 * 2, dtype=np.uint8).reshape(3, 8, 8, 2)

# Suffix, and how an intact file is made from a seed and a scratch folder.
KINDS = {
    "png": (".png", lambda seed, folder: encoded(photo(seed, 8, 8), "PNG")),
    "jpeg": (".jpg", lambda seed, folder: encoded(photo(seed, 16, 16), quality=90, progressive=seed % 2 == 1)),
    "other_picture": (
        ".png",
        lambda seed, folder: encoded(photo(seed, 8, 8), ("GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "DDS")[seed % 7]),
    ),
    "npy_frames": (".npy", lambda seed, folder: saved(np.save, FRAMES)),
    "npz_frames": (".npz", lambda seed, folder: saved((np.savez, np.savez_compressed)[seed % 2], FRAMES)),
    "npz_events": (
        ".npz",
        lambda seed, folder: saved(
            (np.savez, np.savez_compressed)[seed % 2],
            **dict(zip("xytp", _events(seed), strict=True)),
            height=SIZE,
            width=SIZE,
        ),
    ),
    "aedat": (".aedat", lambda seed, folder: event_formats.aedat(*_events(seed))),
    "aedat4": (".aedat4", lambda seed, folder: event_formats.aedat4(_events(seed), folder / "intact.aedat4")),
    "bin": (".bin", lambda seed, folder: event_formats.nmnist(*event_formats.recording(seed, 60))),
    "h5": (".h5", _h5),
    "wav": (".wav", lambda seed, folder: event_formats.wav(event_formats.voice(seed, 0.02))),
}
"""{kind: (suffix, make(seed, folder))}"""

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**9, 2**63 - 1, 2**64 - 1)


def mutate(content, random):
    """Change some bytes: flips, numbers of one to eight bytes, cuts, copies; often within the header."""
    content = bytearray(content)
    for _ in range(random.geometric(0.6)):
        end = len(content) if random.random() < 0.5 else min(len(content), 160)
        at = int(random.integers(0, max(end, 1)))
        match random.integers(0, 7):
            case 0 | 1:
                content[at : at + 1] = bytes([content[at] ^ 1 << random.integers(0, 8)]) if content else b"x"
            case 2 | 3:
                value, width = int(random.choice(INTERESTING)), int(random.choice((1, 2, 4, 8)))
                order = ("little", "big")[random.integers(0, 2)]
                content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)
            case 4:
                del content[at : at + int(random.integers(1, 20))]
            case 5:
                content[at:at] = content[at : at + int(random.integers(1, 60))]
            case 6 if random.random() < 0.3:
                del content[at:]
    return bytes(content)


def mutated(kind, seed, folder):
    """Return a mutated file; half of PNG and npz with checksums that fit, so that damage is not found by these."""
    random = np.random.default_rng([seed, list(KINDS).index(kind)])
    intact = KINDS[kind][1](seed % 14, folder)
    if kind == "png" and random.random() < 0.5:
        return _with_checksums(mutate(intact, random))
    if kind.startswith("npz") and random.random() < 0.6:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(intact)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            victim = random.choice(old.namelist())
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, mutate(content, random) if name == victim else content)
        return file.getvalue()
    return mutate(intact, random)


def _with_checksums(png):
    """Correct the checksum of each chunk of a PNG, as far as chunks can be followed."""
    png, at = bytearray(png), 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(png):
            break
        png[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(png)


@contextlib.contextmanager
def _counted(counts, name):
    """Count what is read, and what is refused in one line."""
    try:
        yield
        counts[f"{name} read"] += 1
    except ConfigError as error:
        counts[f"{name} refused"] += 1
        assert "\n" not in str(error), str(error)
        # Bad files of a folder are left out.
        assert name != "folder" or any(text in str(error) for text in OF_THE_FOLDER), str(error)


class Target:
    """All readers of one kind of file."""

    def __init__(self, kind, folder):
        self.kind, self.suffix, self.scratch = kind, KINDS[kind][0], folder
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: dict[str, int] = collections.Counter()
        if kind in ("h5", "wav"):  # no content of a folder of one's own
            return
        self.root = folder / "root"
        for i in range(6):  # three intact files of each of two classes
            file = self.root / "ab"[i // 3] / f"{i % 3}{self.suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(KINDS[kind][1](14 * i, folder))
        picture = kind in ("png", "jpeg", "other_picture")
        of_folder = Data(name="folder", dir=str(self.root), bad="skip", size=(8, 8) if picture else None)
        self.config = Config(data=of_folder, model=Model(input_shape=(), time_steps=3))
        shape = (8, 8, 3) if picture else (34, 34, 2) if kind == "bin" else (SIZE, SIZE, 2)
        trained = Config(data=self.config.data, model=Model(input_shape=shape, classes=2, time_steps=3))
        names = ["digits"] if self.suffix in (".png", ".jpg", ".npy", ".npz") else []
        names += ["digits_events"] if kind in ("npy_frames", "npz_events") else []
        self.configs = [trained, *map(configs.load, names)]
        for name in ("nmnist", "dvs_gesture", "cifar10_dvs") if not picture else ():
            shape = recordings.DATA_SETS[name].shape
            self.configs.append(Config(data=Data(name=name), model=Model(input_shape=shape, classes=10, time_steps=3)))

    def read(self, content):
        """Read a file in each way; a ConfigError of one line is the only error that passes."""
        if self.kind == "h5":
            return self._read_h5(content)
        if self.kind == "wav":
            return self._read_wav(content)
        path = self.scratch / f"file{self.suffix}"
        path.write_bytes(content)
        for config in self.configs:
            with _counted(self.counts, "predict"):
                read, *_ = prediction_inputs.reader(config, [path])
                read(path)
        path.replace(self.root / "b" / f"x{self.suffix}")
        cache = self.scratch / "prepared"
        with _counted(self.counts, "folder"):
            for source in data.load(self.config, cache).values():
                for i in range(len(source)):
                    source[i]
        shutil.rmtree(cache, ignore_errors=True)

    def _read_h5(self, content):
        path = self.scratch / "SHD" / "shd_train.h5"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        shutil.copy(self.scratch / "intact.h5", path.with_name("shd_test.h5"))
        members = []
        with _counted(self.counts, "index"):
            members = recordings.index("shd", self.scratch, {})["train"]
        for member in members[:5]:
            with _counted(self.counts, "read"):
                recordings.read("shd", member)

    def _read_wav(self, content):
        path = self.scratch / "0_ann_0.wav"
        path.write_bytes(content)
        with _counted(self.counts, "predict"):
            read, *_ = prediction_inputs.reader(configs.load("fsdd"), [path])
            read(path)
        with _counted(self.counts, "read"):
            recordings.read("fsdd", recordings.Recording(path.name, path, 0))


def main(folder, kind, first, count):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # of Pillow, about damaged EXIF data
    target, failures, longest = Target(kind, pathlib.Path(folder)), [], 0.0
    for seed in range(int(first), int(first) + int(count)):
        content = mutated(kind, seed, target.scratch)
        (target.scratch / "last").write_text(str(seed))
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # a thread, so also while C code runs
        start = time.perf_counter()
        try:
            target.read(content)
        except BaseException:
            failures.append(f"seed {seed}: {traceback.format_exc()}")
        longest = max(longest, time.perf_counter() - start)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"failures": failures, "counts": target.counts, "longest": longest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
