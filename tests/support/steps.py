"""Steps that prepare a working directory: files written, changed and damaged (tools/refusals.py)."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from csbp_jax.weights import shipped as shipped_networks
from tests.support import event_formats, formats, series_formats, torch_format


def write(path: str, text: str) -> None:
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def append(path: str, text: str) -> None:
    write(path, pathlib.Path(path).read_text() + text)


def replace(path: str, old: str, new: str) -> None:
    text = pathlib.Path(path).read_text()
    assert old in text, f"{path} lacks {old!r}"
    write(path, text.replace(old, new))


def edit(path: str, key: str, value: Any = None) -> None:
    """Change a value of a JSON file, or leave it out for None, and delete the file's seal."""
    content = json.loads(pathlib.Path(path).read_text())
    content.pop("sha256", None)
    *outer, last = key.split("/")
    inner = content
    for name in outer:
        inner = inner[name]
    inner[last] = value
    if value is None:
        del inner[last]
    write(path, json.dumps(content))


def cut(path: str) -> None:
    """Keep the first half of a file; * stands for any name."""
    (file,) = pathlib.Path().glob(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def copy(source: str, target: str) -> None:
    shutil.copytree(source, target) if os.path.isdir(source) else shutil.copy(source, target)


def save(path: str, expression: str, i: int = 0) -> None:
    """Save what a Python expression gives, in the format of the file's suffix; ``i`` is the number of the file."""
    modules = {"np": np, "events": event_formats, "series": series_formats, "torch": torch_format}
    names = modules | {"i": i, "tensors": safetensors.numpy.load_file}
    value = eval(expression, names)
    writers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.save(path, value),
        ".npz": lambda: np.savez(path, **value),
        ".png": lambda: Image.fromarray(value).save(path),
        ".pt": lambda: torch_format.write(path, value),
        ".safetensors": lambda: safetensors.numpy.save_file(value, path),
    }
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    writers.get(os.path.splitext(path)[1], lambda: pathlib.Path(path).write_bytes(value))()


def classes(folder: str, suffix: str, expression: str) -> None:
    """Save eight files of each of the classes a and b."""
    for i in range(16):
        save(f"{folder}/{'ab'[i % 2]}/{i}{suffix}", expression, i)


def raw(name: str, folder: str) -> None:
    """Write a small data set in the format of its authors."""
    os.makedirs(folder)
    module = next((module for module in (formats, series_formats) if hasattr(module, name)), None)
    make = getattr(module, name) if module else lambda target: event_formats.trees(name, target)
    make(pathlib.Path(folder))


def shipped(name: str, folder: str) -> None:
    """Copy a network that ships with the package."""
    shutil.copytree(shipped_networks.folder(name), folder)


STEPS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (write, append, replace, edit, cut, remove, copy, save, classes, raw, shipped)
} | {"folder": os.makedirs, "link": os.symlink, "pipe": os.mkfifo, "environment": os.environ.__setitem__}
"""Steps by name."""
