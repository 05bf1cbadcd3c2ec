"""Folders of the user, with a folder for each class or a table of targets: pictures, frames or recordings of events.

    DIR/CLASS/FILE                    divided into train, validation and test, a share of each class
    DIR/{train,test}/CLASS/FILE       validation is taken from train, unless DIR/validation exists as well
    DIR/labels.csv                    names the files and their targets (folder_labels.py); divided as above
    DIR/{train,test}/labels.csv       as above

Splits may be spelled Train, Test, val or valid. Classes are the folders' names in natural order (2 before 10). Hidden
files, files that operating systems create (``Thumbs.db``, ``desktop.ini``) and plain files beside folders are ignored;
any other file that would not be used is an error, or with ``data.bad`` "skip" left out and counted. All files hold the
same type of content:

    .png .jpg .jpeg          pictures, as are .bmp, .tif, .tiff and .webp
    .npy .npz                frames, the only array of the file: [T, H, W, C], [H, W, C], [T, F] or [F]
    others with x, y, t, p   events, in the formats of csbp_jax.data.events.readers; counted in T frames
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events import readers
from csbp_jax.data.events.recordings import Recording, Splits, collect_errors, natural_key, refuse
from csbp_jax.data.source import DataSource
from csbp_jax.data.splits import divided
from csbp_jax.data.user import folder_events, folder_files, folder_labels
from csbp_jax.runtime import files

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_CONTENT_TYPES = {
    **dict.fromkeys(readers.SUFFIXES, "events"),
    **dict.fromkeys(PICTURES, "pictures"),
    **dict.fromkeys((".npy", ".npz"), "frames"),
}
_LOADERS: dict[str, Callable[[Config, pathlib.Path, Splits, int, dict[str, str]], Mapping[str, DataSource]]] = {
    "pictures": folder_files.load_pictures,
    "frames": folder_files.load_frames,
    "events": folder_events.load_events,
}
_SPLIT_NAMES = {"train": "train", **dict.fromkeys(("validation", "valid", "val"), "validation"), "test": "test"}
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_TEST_SHARE = 0.2


def load(config: Config, folder: pathlib.Path) -> Mapping[str, DataSource]:
    """Load the splits of ``config.data.dir``.

    Raises:
      ConfigError: missing class folders, files of several types or sizes, or files that cannot be used, all of which
        are named (``data.bad`` "skip" leaves those out and prints which).
    """
    problems: dict[str, str] = {}
    splits, classes = list_files(config, problems)
    loader = _LOADERS[content_type(folder_files.paths_of(splits))]
    return loader(config, folder, splits, len(classes), problems)


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Return a checksum of the files' names, splits, sizes and modification times, and of targets from a table."""
    del folder
    splits, _ = list_files(config)
    folders = _split_folders(pathlib.Path(config.data.dir), {})
    tables = b"".join(files.read_bytes(path, files.LARGE) for path in _tables(folders).values())
    return folder_files.fingerprint(splits) + (hashlib.sha256(tables).hexdigest() if tables else "")


def class_names(config: Config, folder: pathlib.Path) -> list[str]:
    """Return the names of the classes, labels or values, in their order."""
    del folder
    return list_files(config)[1]


def list_files(config: Config, problems: dict[str, str] | None = None) -> tuple[Splits, list[str]]:
    """List the files of each split and the names of the classes.

    Pipes, broken links and files of other formats are left out before the files are divided, and collected in
    ``problems`` as {file: reason} for the caller to refuse or print.

    Raises:
      ConfigError: the folder does not exist, or lacks a folder for each class; or, without ``problems`` and with
        ``data.bad`` "fail", it holds a file that cannot be used.
    """
    found: dict[str, str] = {} if problems is None else problems
    try:
        listed = _list_files(config, found)
    except ConfigError:
        if config.data.bad == "fail":
            refuse(found)  # without them, too little may have been left
        raise
    if problems is None and config.data.bad == "fail":
        refuse(found)
    return listed


def _list_files(config: Config, skipped: dict[str, str]) -> tuple[Splits, list[str]]:
    root = pathlib.Path(config.data.dir)
    if not config.data.dir:
        raise ConfigError(
            "data.dir: missing; name the folder that holds your class folders or labels.csv (make: DIR=...)"
        )
    if not root.is_dir():
        raise ConfigError(f"data.dir: there is no folder {root}; name one that holds a folder for each class")
    folders = _split_folders(root, skipped)
    if tables := _tables(folders):
        splits, classes = folder_labels.read(tables, root, config, _check_suffix, skipped)
        return _with_all_splits(root, splits, config), classes
    if (config.loss.task, config.loss.per) != ("class", "example"):
        raise ConfigError(
            f"{root}: has no {folder_labels.NAME}, which targets of loss.task {config.loss.task} need; write it (docs/"
            "data.md), or for targets of every time step a function data (docs/own.md)"
        )
    names = {split: set(_subfolders(path, skipped)) for split, path in folders.items()}
    classes = sorted(set().union(*names.values()), key=natural_key)
    if "all" in folders and len(classes) == 1 and len(_subfolders(root / classes[0], {})) > 1:
        raise ConfigError(f"{root}: holds the folder {classes[0]} alone; did you mean {root / classes[0]}?")
    if len(classes) < 2:
        count = f"{len(classes) or 'no'} class folder{'' if classes else 's'}"
        raise ConfigError(
            f"{root}: has {count}; it needs a folder for each class, at least two, or a {folder_labels.NAME}"
        )
    for split, present in names.items():
        if missing := [name for name in classes if name not in present]:
            raise ConfigError(
                f"{folders[split]}: has no folder {missing[0]!r}, but another split has; create it, or remove the other"
            )
    splits = {split: _files(root, path, classes, skipped) for split, path in folders.items()}
    return _with_all_splits(root, splits, config), classes


def _with_all_splits(root: pathlib.Path, splits: Splits, config: Config) -> Splits:
    """Return train, validation and test, of which those that are missing are divided from others."""
    if "all" in splits:
        splits["train"], splits["test"] = _divide(root, splits.pop("all"), _TEST_SHARE, 3, config)
    if "validation" not in splits:
        splits["train"], splits["validation"] = _divide(root, splits["train"], config.data.validation, 2, config)
    return {split: splits[split] for split in ("train", "validation", "test")}


def _tables(folders: dict[str, pathlib.Path]) -> dict[str, pathlib.Path]:
    """Return the table of targets of each split; none if there are class folders."""
    tables = {split: folder / folder_labels.NAME for split, folder in folders.items()}
    missing = [split for split, table in tables.items() if not table.is_file()]
    if 0 < len(missing) < len(tables):
        raise ConfigError(f"{folders[missing[0]]}: has no {folder_labels.NAME}, but another split has; write it")
    return {} if missing else tables


def _split_folders(root: pathlib.Path, skipped: dict[str, str]) -> dict[str, pathlib.Path]:
    """Find the folder of each split; ``{"all": root}`` if root holds a table or no train folder, and so all files."""
    subfolders = {} if (root / folder_labels.NAME).is_file() else _subfolders(root, skipped)
    split_of = {name: _SPLIT_NAMES[name.lower()] for name in sorted(subfolders) if name.lower() in _SPLIT_NAMES}
    if "train" not in split_of.values():
        return {"all": root}
    folders: dict[str, pathlib.Path] = {}
    for name, split in split_of.items():
        if split in folders:
            raise ConfigError(f"{subfolders[name]}: {folders[split].name} is the {split} split already; keep one")
        folders[split] = subfolders[name]
    if "test" not in folders:
        train = folders["train"].name
        raise ConfigError(f"{root}: has {train} but no test; create it, or if {train} is a class, rename it")
    if others := sorted(set(subfolders) - set(split_of), key=natural_key):
        raise ConfigError(f"{root / others[0]}: is none of train, validation and test; remove it")
    return folders


def _subfolders(folder: pathlib.Path, skipped: dict[str, str]) -> dict[str, pathlib.Path]:
    """List subfolders by name; plain files beside them are ignored."""
    folders = {path.name: path for path in _visible(folder) if path.is_dir()}
    for path in _visible(folder):
        with collect_errors(str(path), skipped):
            if path.name not in folders and not path.is_file():
                raise ConfigError(f"{path}: is neither a folder nor a file, perhaps a broken link; remove it")
    return folders


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _SYSTEM_FILES]


def _files(
    root: pathlib.Path, folder: pathlib.Path, classes: Sequence[str], skipped: dict[str, str]
) -> list[Recording]:
    """List the files of one split in natural order, independent of the file system's, without hidden ones."""
    files = []
    for label, name in enumerate(classes):
        paths = sorted(_visible(folder / name), key=lambda path: natural_key(path.name))
        if not paths:
            raise ConfigError(f"{folder / name}: is empty; put files of this class into it, or remove the folder")
        for path in paths:
            if path.is_dir():
                raise ConfigError(
                    f"{path}: is a folder within a class; put its files into {folder / name}, or if {name} is a split "
                    "and not a class, name it train, validation or test"
                )
            record = str(path.relative_to(root))
            with collect_errors(record, skipped):
                if not path.is_file():
                    raise ConfigError(f"{path}: is not a file, perhaps a broken link or a pipe; remove it")
                _check_suffix(path)
                files.append(Recording(record, path, label))
    if not files:
        raise ConfigError(f"{folder}: none of its files can be used; the last: {list(skipped.values())[-1]}")
    return files


def _divide(
    root: pathlib.Path, files: list[Recording], share: float, needed: int, config: Config
) -> tuple[list[Recording], list[Recording]]:
    """Divide files by a stratified share, if any class has enough of them; others by a share of all."""
    labels = np.array([file.label for file in files])
    by_class = config.loss.task == "class"
    if (np.bincount(labels).max() if by_class else len(labels)) < needed:
        problem = f"no class has {needed} files" if by_class else f"has fewer than {needed} files"
        raise ConfigError(f"{root}: {problem} to divide; add files, or make folders train, validation and test")
    first, second = divided(labels, share, config.loss)
    return [files[i] for i in first], [files[i] for i in second]


def content_type_of_file(path: pathlib.Path) -> str:
    """Determine the content of a file: pictures, frames or events.

    Raises:
      ConfigError: unsupported format, or a file whose content must be looked at cannot be read.
    """
    suffix = _check_suffix(path)
    return "events" if readers.holds_events(path) else _CONTENT_TYPES[suffix]


def content_type(paths: Sequence[pathlib.Path]) -> str:
    """Determine the content that all files share: pictures, frames or events.

    Files that cannot be read are ignored: they are refused or left out when all are read.

    Raises:
      ConfigError: they hold several types of content, or none can be read.
    """
    first: dict[str, pathlib.Path] = {}
    skipped: dict[str, str] = {}
    for path in paths:
        with collect_errors(str(path), skipped):
            first.setdefault(content_type_of_file(path), path)
    if not first:
        raise ConfigError(
            f"data.dir: none of {len(paths)} files can be used; the first: {next(iter(skipped.values()))}"
        )
    if len(first) > 1:
        listed = ", ".join(f"{content} ({path})" for content, path in first.items())
        raise ConfigError(f"data.dir: holds files of several types: {listed}; keep one type")
    return next(iter(first))


def _check_suffix(path: pathlib.Path) -> str:
    if (suffix := path.suffix.lower()) not in _CONTENT_TYPES:
        raise ConfigError(
            f"{path}: unsupported file format{suffix and ' '}{suffix}; allowed are {', '.join(_CONTENT_TYPES)}; "
            f"convert or remove it (events: {readers.SAVE})"
        )
    return suffix
