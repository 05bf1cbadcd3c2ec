"""Files to predict, read as records in the form of a run's data.

Supported files depend on what the run was trained on:

    pictures       .png .jpg .jpeg .bmp .tif .tiff .webp; for data sets also .npy and .npz, ``[H, W, C]`` or
                   ``[H, W]``, uint8 or in [0, 1]; for digits, a larger square picture is averaged over blocks
    frames         .npy .npz, as in csbp_jax.data.user.folder
    recordings     the formats of csbp_jax.data.events.readers
    sequences      .npy .npz, ``[T, F]``, standardised as the data set's; of pixels, the picture
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import digits, pixels
from csbp_jax.data.events import camera, readers, recordings, sources
from csbp_jax.data.images import augment, reduced
from csbp_jax.data.images.decode import REPLACE, decode, picture_shape, to_grey
from csbp_jax.data.images.sources import resizer
from csbp_jax.data.series.readers import DATA_SETS as SERIES
from csbp_jax.data.source import Array
from csbp_jax.data.user import folder, folder_events, folder_files
from csbp_jax.runtime import files

Read = Callable[[pathlib.Path], Array]
"""Reads a file as a record ``[T or 1, ...]``."""

_ARRAYS = (".npy", ".npz")
_SIMULATED = {"digits_events": camera.DIGITS, "cifar10_events": camera.LOOP}


def reader(
    config: Config, paths: Sequence[pathlib.Path], classes: Sequence[str] = ()
) -> tuple[Read, bool, Callable[[], bool]]:
    """Build a function that reads a file as a record ``[T or 1, ...]`` in the form of a run's data.

    Args:
      config: the run's complete config.
      paths: the files to read; they determine the type of content if the folder that the run was trained on is gone.
      classes: names of the run's classes; empty if they are not known.

    Returns:
      ``read``, whether records are frames of events (or features), and a function that looks whether those trained on
      have several lengths.

    Raises:
      ConfigError: the type of content cannot be determined. ``read`` raises it for a file that is damaged, or of
        another type or size; the message begins with the file's path.
    """
    name = config.data.name
    if name == "folder":
        trained_on = _training_files(config, classes)
        content = folder.content_type(trained_on) if trained_on else _first_content_type(paths)

        @functools.cache
        def several() -> bool:
            if content == "frames":
                return len({shape for _, shape in folder_files.shapes_of(trained_on)}) > 1
            return content == "events" and config.data.bins == "own"

        readers_by_type: dict[str, Read] = {
            "pictures": functools.partial(_read_folder_picture, config),
            "frames": _frame_reader(config, trained_on, several),
            "events": _event_reader(config, trained_on),
        }
        return functools.partial(_read_if_type, content, readers_by_type[content]), content != "pictures", several
    if name in _SIMULATED or name in recordings.DATA_SETS:
        return functools.partial(_read_recording, config), True, lambda: config.data.bins == "own"
    if name in SERIES:
        return functools.partial(_read_series, config), True, lambda: True
    if name.endswith(("_sequential", "_permuted")):
        return functools.partial(_read_pixels, config), True, lambda: False
    return functools.partial(_read_picture, config), False, lambda: False


def _training_files(config: Config, classes: Sequence[str]) -> list[pathlib.Path]:
    """List the files of the run's class folders; empty if they are gone, or in their place are those of other classes.

    The path of a published network is relative, so that another folder may be there.
    """
    with contextlib.suppress(ConfigError, OSError):
        splits, names = folder.list_files(config)
        if not classes or names == list(classes):
            return folder_files.paths_of(splits)
    return []


def _first_content_type(paths: Sequence[pathlib.Path]) -> str:
    for path in paths:
        with contextlib.suppress(ConfigError, OSError):
            return folder.content_type_of_file(path)
    raise ConfigError(f"{paths[0]}: cannot be read as a picture, as frames or as events; nor can the other files")


def _read_if_type(expected: str, read: Read, path: pathlib.Path) -> Array:
    if (content := folder.content_type_of_file(path)) != expected:
        raise ConfigError(f"{path}: holds {content}, but this run was trained on {expected}")
    return read(path)


def _read_folder_picture(config: Config, path: pathlib.Path) -> Array:
    size, data = config.model.input_shape[:2], config.data
    if data.size is None and "resized_crop" not in data.augment:
        _check_shape(path, picture_shape(path)[:2], size)
    height, width = size
    as_trained = dataclasses.replace(config, data=dataclasses.replace(data, size=(height, width)))
    splits = {"files": [recordings.Recording(str(path), path, 0)]}
    return folder_files.picture_sources(as_trained, splits, config.model.classes, REPLACE)["files"][0]["x"]


def _check_shape(
    path: pathlib.Path, shape: Sequence[int], expected: Sequence[int], whose: str = "the network takes"
) -> None:
    if tuple(shape) != tuple(expected):
        raise ConfigError(f"{path}: is {_text(shape)}, but {whose} {_text(expected)}; give one of that size")


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _read_picture(config: Config, path: pathlib.Path) -> Array:
    """Read a picture in the form of the data sets of ``data.images`` and ``data.digits``."""
    height, width, channels = config.model.input_shape
    if path.suffix.lower() in _ARRAYS:
        return _read_brightness(path, (height, width, channels))
    if path.suffix.lower() not in folder.PICTURES:
        raise ConfigError(f"{path}: unsupported file format; allowed are {', '.join((*folder.PICTURES, *_ARRAYS))}")
    encoded = files.read_bytes(path, files.LARGE)
    if config.data.shorter_side:  # the run was trained and evaluated on pictures that went through this
        encoded = reduced.reduce(encoded, config.data.shorter_side, str(path))
    picture = decode(encoded, str(path), remedy=REPLACE)
    if channels == 1:
        picture = to_grey(picture, str(path))
    if config.data.name == "digits":
        if picture.shape[0] != picture.shape[1] or len(picture) < digits.SIDE:
            raise ConfigError(
                f"{path}: is {_text(picture.shape[:2])}, but a digit is a square of 8x8 pixels or more; crop it"
            )
        return digits.from_picture(picture)[None]
    if config.data.name == "imagenet":
        window = augment.centre_window(picture.shape[0], picture.shape[1], (height, width))
        return resizer(config)(picture, window, (height, width))[None]
    if config.data.size and picture.shape[:2] != (height, width):
        picture = augment.resize(picture, (0, 0, picture.shape[0], picture.shape[1]), (height, width))
    _check_shape(path, picture.shape[:2], (height, width))
    return picture[None]


def _read_brightness(path: pathlib.Path, shape: tuple[int, int, int]) -> Array:
    """Read an array as a picture: uint8 0 to 255, or floats in [0, 1]."""
    stated = folder_files.stated_shape(path)
    if stated != shape[:2] or shape[2] != 1:
        _check_shape(path, stated, (1, *shape), "this run's pictures with a time axis are")
    x = folder_files.read_array(path).reshape(1, *shape)
    if x.dtype != np.uint8 and (x.dtype.kind != "f" or x.min() < 0 or x.max() > 1):
        raise ConfigError(f"{path}: is {x.dtype} from {x.min()} to {x.max()}; save uint8, or brightness in [0, 1]")
    return x if x.dtype == np.uint8 else x.astype(np.float32)


def _frame_reader(config: Config, trained_on: Sequence[pathlib.Path], several: Callable[[], bool]) -> Read:
    first = functools.cache(lambda: next(folder_files.shapes_of(trained_on), None))

    def read(path: pathlib.Path) -> Array:
        shape = folder_files.stated_shape(path)
        if example := first():
            file, expected = example
            if shape != expected and not (shape[1:] == expected[1:] and several()):
                _check_shape(path, shape, expected, f"{file}, trained on, is")
        steps, most = shape[0], config.model.time_steps
        if steps not in (1, most) and not (trained_on and steps < most):
            raise ConfigError(f"{path}: has {steps} time steps; expected is model.time_steps ({most}), or 1")
        return folder_files.read_array(path)

    return read


def _event_reader(config: Config, trained_on: Sequence[pathlib.Path]) -> Read:
    data, size = config.data, config.model.input_shape[:2]

    @functools.cache
    def sensor() -> tuple[int, ...]:
        if data.size is None:  # the network's pixels are then the camera's
            return size
        if not trained_on:
            raise ConfigError(
                f"{data.dir}: is gone, or has other classes; the camera's size can only be read from its recordings"
            )
        frames = 0 if data.resize == "events" else config.model.time_steps
        return folder_events.sensor_of({str(file): file for file in trained_on}, {}, frames)

    def read(path: pathlib.Path) -> Array:
        height, width = data.size if data.size and data.resize == "events" else sensor()
        return _frames(_read_events(path, sensor()), config, (height, width, 2))

    return read


def _read_recording(config: Config, path: pathlib.Path) -> Array:
    data, name = config.data, config.data.name
    shape = (*_SIMULATED[name].sensor, 2) if name in _SIMULATED else recordings.DATA_SETS[name].shape
    is_own = (name, path.suffix.lower()) in (("dvs_gesture", ".npy"), ("fsdd", ".wav"))  # .npy as tonic cuts them
    if is_own and not readers.holds_events(path):
        events = recordings.read(name, recordings.Recording(str(path), path, 0))
    else:
        events = _read_events(path, shape[:2])
    target = (*data.size, shape[2]) if data.size and data.resize == "events" else shape
    counts = _frames(events, config, target)
    return counts.reshape(len(counts), -1) if len(config.model.input_shape) == 1 else counts


def _frames(events: readers.Events, config: Config, shape: tuple[int, int, int]) -> Array:
    counts = sources.bin_events(events, config.data, config.model.time_steps, shape)
    return sources.until_last_event(counts) if config.data.bins == "own" else counts


def _read_series(config: Config, path: pathlib.Path) -> Array:
    """Read a sequence, standardised as those of the data set."""
    steps, *shape = folder_files.stated_shape(path)
    _check_shape(path, shape, config.model.input_shape, "a step of this run's data is")
    if steps > config.model.time_steps:
        raise ConfigError(f"{path}: has {steps} time steps; allowed are up to {config.model.time_steps}")
    return folder_files.read_array(path).astype(np.float32)


def _read_pixels(config: Config, path: pathlib.Path) -> Array:
    """Read a picture as the sequence of its pixels."""
    picture = _read_picture(pixels.of_pictures(config), path)
    return pixels.sequences(picture[None], pixels.order(config))[0]


def _read_events(path: pathlib.Path, sensor: tuple[int, ...]) -> readers.Events:
    """Read a file's events, if its camera has the sensor's size."""
    events = readers.read_file(path)
    _check_shape(path, events.sensor or sensor, sensor, "this run's camera is")
    return readers.validate(events._replace(sensor=tuple(sensor)), path)
