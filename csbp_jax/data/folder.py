"""A user's own class folders: pictures, frames, or recordings of events.

    DIR/CLASS/FILE                    divided into train, validation and test, a share of each class
    DIR/{train,test}/CLASS/FILE       validation is taken from train, unless there is DIR/validation as well

Classes are the folders' names in natural order (2 before 10). All files are of one kind:

    .png .jpg .jpeg          pictures
    .npy .npz                frames, the only array of the file: [T, H, W, C], [H, W, C], [T, F] or [F]
    .npz with x, y, t, p     events, as .aedat4, .aedat and .bin (N-MNIST) are; counted in T frames
"""

import pathlib
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import folder_files
from csbp_jax.data.recordings import Recording, natural
from csbp_jax.data.splits import stratified

_KINDS = {".png": "pictures", ".jpg": "pictures", ".jpeg": "pictures", ".npy": "frames", ".npz": "frames"}
_KINDS |= dict.fromkeys((".aedat4", ".aedat", ".bin"), "events")
_LOADERS = {"pictures": folder_files.pictures, "frames": folder_files.frames, "events": folder_files.events}
_TEST_SHARE = 0.2


def load(config: Config, folder: pathlib.Path) -> dict[str, Any]:
    """The parts of ``config.data.dir``.

    Raises:
      ConfigError: no class folders, files of several kinds or sizes, or one that cannot be read (``data.bad`` "skip"
        leaves those out and tells how many).
    """
    root = pathlib.Path(config.data.dir)
    parts, classes = _parts(root, config.data.validation)
    kind = _kind([record.path for records in parts.values() for record in records])
    return _LOADERS[kind](config, folder, parts, len(classes))


def _parts(root, share):
    """``{part: recordings}`` and the names of the classes."""
    if root == pathlib.Path():
        raise ConfigError("data.dir: missing; name the folder that holds your class folders (make: DIR=...)")
    if not root.is_dir():
        raise ConfigError(f"data.dir: there is no folder {root}; name one that holds a folder for each class")
    divided = {part: root / part for part in ("train", "validation", "test") if (root / part).is_dir()}
    if "train" in divided and "test" not in divided:
        raise ConfigError(f"{root}: has train but no test; make it, or leave all classes in one folder")
    folders = divided if "train" in divided else {"all": root}
    names = {part: _subfolders(place) for part, place in folders.items()}
    classes = sorted(set().union(*names.values()), key=natural)
    if len(classes) < 2:
        raise ConfigError(f"{root}: has {len(classes)} class folders; it needs a folder for each class, at least two")
    for part, found in names.items():
        if missing := [name for name in classes if name not in found]:
            raise ConfigError(
                f"{folders[part]}: has no folder {missing[0]!r}, but another part has; make it, or remove that"
            )
    parts = {part: _files(root, place, classes) for part, place in folders.items()}
    if "all" in parts:
        parts["train"], parts["test"] = _divided(parts.pop("all"), _TEST_SHARE)
    if "validation" not in parts:
        parts["train"], parts["validation"] = _divided(parts["train"], share)
    return {part: parts[part] for part in ("train", "validation", "test")}, classes


def _subfolders(folder):
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _files(root, folder, classes):
    """In natural order, whatever order the file system has; hidden files are none."""
    files = []
    for label, name in enumerate(classes):
        found = [path for path in (folder / name).iterdir() if path.is_file() and not path.name.startswith(".")]
        if not found:
            raise ConfigError(f"{folder / name}: is empty; put files of this class there, or remove the folder")
        found.sort(key=lambda path: natural(path.name))
        files += [Recording(str(path.relative_to(root)), path, label) for path in found]
    return files


def _divided(files, share):
    first, second = stratified(np.array([record.label for record in files]), share)
    return [files[i] for i in first], [files[i] for i in second]


def _kind(paths):
    """What all files are."""
    first: dict[str, pathlib.Path] = {}
    for path in paths:
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            raise ConfigError(f"{path}: not a file of a known kind; allowed are {', '.join(_KINDS)}; remove it")
        if path.suffix.lower() == ".npz" and folder_files.holds_events(path):
            kind = "events"
        first.setdefault(kind, path)
    if len(first) > 1:
        told = ", ".join(f"{kind} ({path})" for kind, path in first.items())
        raise ConfigError(f"data.dir: holds files of more than one kind: {told}; keep one")
    return next(iter(first))
