"""Writers of the raw files of published time series, in their true format; each returns what it wrote."""

import dataclasses
import hashlib
import pickle

import numpy as np

from csbp_jax.data.series import readers
from tests.support.formats import zipped

CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


def watch_file(fields):
    """An array of one Python object in NumPy's format: its header, then a pickle that names NumPy 1's modules."""
    content = pickle.dumps(np.array(fields, object), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (128 - 10 - len(header) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def publish(monkeypatch, content):
    """Take ``content`` for the published file of ``watch``: its reader reads no other pickle."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    monkeypatch.setattr(readers, "WATCH", dataclasses.replace(readers.WATCH, checksum=checksum))


def watch(folder, samples=range(12, 30)):
    """Recordings of ten persons, each of two exercises; Fortran's order, as in the original."""
    random = np.random.default_rng(0)
    keys = [(person, label) for label in (0, 3) for person in range(1, 11)]
    fields = {
        "X": [np.asfortranarray(random.normal(k[1], 1 + k[0], (random.choice(samples), 6))) for k in keys],
        "y": np.array([label for _, label in keys]),
        "side": np.ones(len(keys)),
        "subject": np.array([person for person, _ in keys]),
        "X_labels": list(CHANNELS),
        "y_labels": list(EXERCISES),
    }
    wheel = zipped({"seglearn/data/watch_dataset.npy": watch_file(fields), "seglearn/base.py": b"raise SystemExit"})
    (folder / "seglearn-1.2.5-py3-none-any.whl").write_bytes(wheel)
    return fields


def seattle_weather(folder):
    """Days from October 2013 to January 2015."""
    days = np.arange("2013-10-01", "2015-02-01", dtype="datetime64[D]")
    values = np.round(10 + np.random.default_rng(0).normal(size=(len(days), 4)), 1)
    lines = [
        f"{str(day).replace('-', '/')},{','.join(map(str, row))},sun" for day, row in zip(days, values, strict=True)
    ]
    text = "\n".join(["date,precipitation,temp_max,temp_min,wind,weather", *lines, ""])
    wheel = zipped({"vega_datasets/_data/seattle-weather.csv": text.encode()})
    (folder / "vega_datasets-0.9.0-py3-none-any.whl").write_bytes(wheel)
    return days, values


def omniglot_strokes(folder):
    """Two characters of an alphabet in either file, one of them in both, by twenty writers."""
    random = np.random.default_rng(0)
    characters = {"Burmese_(Myanmar)/character01": (1, 2), "Korean/character02": (2,)}
    strokes = {
        (name, writer): [random.normal(50, 20, (points, 2)) for points in (4, 4, 1)]
        for name in characters
        for writer in range(1, 21)
    }
    for number in (1, 2):
        files = {f"__MACOSX/strokes_background_small{number}/Korean/._x.txt": b"\0"}
        for (name, writer), of_drawing in strokes.items():
            if number in characters[name]:
                lines = [
                    "\n".join([*(f"{x:.6f},{-y:.6f},{i * 20}" for i, (x, y) in enumerate(stroke)), "BREAK", ""])
                    for stroke in of_drawing
                ]
                text = "".join(["START\n", *lines])
                files[f"strokes_background_small{number}/{name}/0001_{writer:02d}.txt"] = text.encode()
        (folder / f"strokes_background_small{number}.zip").write_bytes(zipped(files))
    return strokes


WRITERS = {"watch": watch, "seattle_weather": seattle_weather, "omniglot_strokes": omniglot_strokes}
