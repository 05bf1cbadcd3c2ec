"""A user's own class folders: pictures, frames, or recordings of events.

    DIR/CLASS/FILE                    divided into train, validation and test, a share of each class
    DIR/{train,test}/CLASS/FILE       validation is taken from train, unless there is DIR/validation as well

Parts may be spelled Train, Test, val or valid. Classes are the folders' names in natural order (2 before 10). Hidden
files are left alone, as is what systems leave about (``Thumbs.db``, ``desktop.ini``), and plain files beside folders;
anything else that would not be used is an error. All files are of one kind:

    .png .jpg .jpeg          pictures
    .npy .npz                frames, the only array of the file: [T, H, W, C], [H, W, C], [T, F] or [F]
    .npz with x, y, t, p     events, as .aedat4, .aedat and .bin (N-MNIST) are; counted in T frames
"""

import pathlib
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.recordings import Recording, collect_errors, natural_key
from csbp_jax.data.splits import stratified
from csbp_jax.data.user import folder_events, folder_files

_KINDS = {".png": "pictures", ".jpg": "pictures", ".jpeg": "pictures", ".npy": "frames", ".npz": "frames"}
_KINDS |= dict.fromkeys((".aedat4", ".aedat", ".bin"), "events")
_LOADERS = {"pictures": folder_files.pictures, "frames": folder_files.frames, "events": folder_events.events}
_PARTS = {"train": "train", **dict.fromkeys(("validation", "valid", "val"), "validation"), "test": "test"}
_LITTER = ("thumbs.db", "desktop.ini")
_TEST_SHARE = 0.2


def load(config: Config, folder: pathlib.Path) -> dict[str, Any]:
    """The parts of ``config.data.dir``.

    Raises:
      ConfigError: no class folders, what is in none of them, files of several kinds or sizes, or one that cannot be
        read (``data.bad`` "skip" leaves those out and tells how many).
    """
    parts, classes = parts_of(config)
    kind = kind_of(folder_files.paths_of(parts), config.data.bad)
    return _LOADERS[kind](config, folder, parts, len(classes))


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Changes with any file's name, part, size or time of change."""
    del folder
    return folder_files.fingerprint(parts_of(config)[0])


def class_names(config: Config, folder: pathlib.Path) -> list[str]:
    del folder
    return parts_of(config)[1]


def parts_of(config: Config) -> tuple[folder_files.Parts, list[str]]:
    """``{part: recordings}`` and the names of the classes.

    Raises:
      ConfigError: there is no such folder, or not with a folder for each class.
    """
    root = pathlib.Path(config.data.dir)
    if root == pathlib.Path():
        raise ConfigError("data.dir: missing; name the folder that holds your class folders (make: DIR=...)")
    if not root.is_dir():
        raise ConfigError(f"data.dir: there is no folder {root}; name one that holds a folder for each class")
    folders = _part_folders(root)
    names = {part: set(_subfolders(place)) for part, place in folders.items()}
    classes = sorted(set().union(*names.values()), key=natural_key)
    if len(classes) < 2:
        raise ConfigError(f"{root}: has {len(classes)} class folders; it needs a folder for each class, at least two")
    for part, found in names.items():
        if missing := [name for name in classes if name not in found]:
            raise ConfigError(
                f"{folders[part]}: has no folder {missing[0]!r}, but another part has; make it, or remove that"
            )
    parts = {part: _files(root, place, classes) for part, place in folders.items()}
    if "all" in parts:
        parts["train"], parts["test"] = _divided(root, parts.pop("all"), _TEST_SHARE, 3)
    if "validation" not in parts:
        parts["train"], parts["validation"] = _divided(root, parts["train"], config.data.validation, 2)
    return {part: parts[part] for part in ("train", "validation", "test")}, classes


def _part_folders(root):
    """The folder of each part that the user made; without one for training, all classes are in ``{"all": root}``."""
    found = _subfolders(root)
    named = {name: _PARTS[name.lower()] for name in sorted(found) if name.lower() in _PARTS}
    if "train" not in named.values():
        return {"all": root}
    folders = {}
    for name, part in named.items():
        if part in folders:
            raise ConfigError(f"{found[name]}: {folders[part].name} is the {part} part already; keep one of them")
        folders[part] = found[name]
    if "test" not in folders:
        raise ConfigError(
            f"{root}: has {folders['train'].name} but no test; make it, or if {folders['train'].name} is a class, give "
            "it another name"
        )
    if others := sorted(set(found) - set(named), key=natural_key):
        raise ConfigError(f"{root / others[0]}: is none of train, validation and test; remove it")
    return folders


def _subfolders(folder):
    """By name; plain files beside them are not looked at."""
    found = {path.name: path for path in _visible(folder) if path.is_dir()}
    for path in _visible(folder):
        if path.name not in found and not path.is_file():
            raise ConfigError(f"{path}: is neither a folder nor a file, perhaps a link to nowhere; remove it")
    return found


def _visible(folder):
    return [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _LITTER]


def _files(root, folder, classes):
    """In natural order, whatever order the file system has; hidden files are none."""
    files = []
    for label, name in enumerate(classes):
        found = sorted(_visible(folder / name), key=lambda path: natural_key(path.name))
        if not found:
            raise ConfigError(f"{folder / name}: is empty; put files of this class there, or remove the folder")
        for path in found:
            if path.is_dir():
                raise ConfigError(
                    f"{path}: is a folder within a class; put its files into {folder / name}, or if {name} is no class "
                    "but a part, name it train, validation or test"
                )
            if not path.is_file():
                raise ConfigError(f"{path}: is no file, perhaps a link to nowhere; remove it")
        files += [Recording(str(path.relative_to(root)), path, label) for path in found]
    return files


def _divided(root, files, share, needed):
    labels = np.array([record.label for record in files])
    if np.bincount(labels).max() < needed:
        raise ConfigError(
            f"{root}: no class has {needed} files to divide; add files, or make folders train, validation and test"
        )
    first, second = stratified(labels, share)
    return [files[i] for i in first], [files[i] for i in second]


def kind_of_file(path: pathlib.Path) -> str:
    """pictures, frames or events.

    Raises:
      ConfigError: none of these, or an npz file that cannot be opened.
    """
    ending = _check_ending(path)
    return "events" if ending == ".npz" and folder_files.holds_events(path) else _KINDS[ending]


def _check_ending(path):
    if (ending := path.suffix.lower()) not in _KINDS:
        raise ConfigError(f"{path}: not a file of a known kind; allowed are {', '.join(_KINDS)}; remove it")
    return ending


def kind_of(paths: list[pathlib.Path], bad: str) -> str:
    """What all files are, but those that cannot be read, which with "skip" are left out later.

    Raises:
      ConfigError: they are of several kinds, or one is of none.
    """
    first: dict[str, pathlib.Path] = {}
    skipped: dict[str, str] | None = {} if bad == "skip" else None
    for path in paths:
        _check_ending(path)
        with collect_errors(str(path), skipped):
            first.setdefault(kind_of_file(path), path)
    if skipped and not first:
        raise ConfigError(
            f"data.dir: none of {len(paths)} files can be used; the first: {next(iter(skipped.values()))}"
        )
    if len(first) > 1:
        told = ", ".join(f"{kind} ({path})" for kind, path in first.items())
        raise ConfigError(f"data.dir: holds files of more than one kind: {told}; keep one")
    return next(iter(first))
