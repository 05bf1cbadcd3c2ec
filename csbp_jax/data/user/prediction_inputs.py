"""Any files as records of a run's data, each seen as its evaluation sees the run's own.

What may be given depends on what the run was trained on:

    pictures       .png .jpg .jpeg; for data sets also .npy and .npz, ``[H, W, C]`` or ``[H, W]``, uint8 or in [0, 1]
    frames         .npy .npz, as in csbp_jax.data.user.folder
    recordings     what csbp_jax.data.events.readers reads: .aedat4 .aedat .bin, .npz and .npy of events
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events import camera, readers, recordings, sources
from csbp_jax.data.images import augment
from csbp_jax.data.images.decode import decode
from csbp_jax.data.user import folder, folder_events, folder_files

Read = Callable[[pathlib.Path], np.ndarray]

_PICTURES = (".png", ".jpg", ".jpeg")
_ARRAYS = (".npy", ".npz")


def reader(config: Config, paths: list[pathlib.Path]) -> tuple[Read, bool]:
    """``read(path)`` to a record ``[T or 1, ...]``, and whether records are frames of events (or features).

    Args:
      config: a run's own, whole.
      paths: what will be read. They tell what the run was trained on where it was trained on a folder that is gone.

    Raises:
      ConfigError: it cannot be told. ``read`` raises it of a file that is damaged, of another kind or size; it begins
        with the file's path.
    """
    name = config.data.name
    if name == "folder":
        own = _own(config)
        kind = folder.kind_of(own, config.data.bad) if own else _first_kind(paths)
        reads = {"pictures": _folder_picture, "frames": _frames(own), "events": _folder_events(config, own)}
        return functools.partial(_of_kind, kind, functools.partial(reads[kind], config)), kind != "pictures"
    if name == "digits_events" or name in recordings.DATA_SETS:
        return functools.partial(_recording, config), True
    return functools.partial(_picture, config), False


def _own(config):
    """The run's own files, none if its folder is gone."""
    with contextlib.suppress(ConfigError, OSError):
        return folder_files.paths_of(folder.parts_of(config)[0])
    return []


def _first_kind(paths):
    for path in paths:
        with contextlib.suppress(ConfigError, OSError):
            return folder.kind_of_file(path)
    raise ConfigError(f"{paths[0]}: is neither a picture nor frames nor events that can be read; nor are the others")


def _of_kind(wanted, read, path):
    """A run on a folder takes no other kind."""
    if (kind := folder.kind_of_file(path)) != wanted:
        raise ConfigError(f"{path}: holds {kind}, but this run was trained on {wanted}")
    return read(path)


def _folder_picture(config, path):
    size, data = config.model.input_shape[:2], config.data
    if data.size is None and "resized_crop" not in data.augment:
        _check_size(path, folder_files.height_width(path), size)
    as_trained = dataclasses.replace(config, data=dataclasses.replace(data, size=size, bad="fail"))
    parts = {"files": [recordings.Recording(str(path), path, 0)]}
    return folder_files.pictures(as_trained, path.parent, parts, config.model.classes)["files"][0]["x"]


def _check_size(path, size, wanted):
    if tuple(size) != tuple(wanted):
        raise ConfigError(f"{path}: is {_x(size)}, but the network takes {_x(wanted)}; bring it to that size")


def _x(shape):
    return "x".join(map(str, shape))


def _picture(config, path):
    """As ``images`` and ``bundled`` have theirs."""
    *size, channels = config.model.input_shape
    if path.suffix.lower() in _ARRAYS:
        return _brightness(path, (*size, channels))
    if path.suffix.lower() not in _PICTURES:
        raise ConfigError(f"{path}: not a file of a known kind; allowed are {', '.join((*_PICTURES, *_ARRAYS))}")
    picture = decode(path.read_bytes(), str(path))
    if channels == 1:
        if (picture != picture[..., :1]).any():
            raise ConfigError(f"{path}: is coloured, but this run was trained on grey pictures; save it as grey")
        picture = picture[..., :1]
    if config.data.name == "imagenet":
        return augment.resize(picture, augment.centre_window(*picture.shape[:2], size), tuple(size))[None]
    if config.data.size and picture.shape[:2] != tuple(size):
        picture = augment.resize(picture, (0, 0, *picture.shape[:2]), tuple(size))
    _check_size(path, picture.shape[:2], size)
    return picture[None]


def _brightness(path, shape):
    x = folder_files.array(path)
    x = x.reshape(1, *shape) if x.shape == (*shape[:2],) and shape[2] == 1 else x
    if x.shape != (1, *shape):
        raise ConfigError(f"{path}: is {_x(x.shape)} with its time steps, but this run's pictures are {_x(shape)}")
    if x.dtype != np.uint8 and (x.dtype.kind != "f" or x.min() < 0 or x.max() > 1):
        raise ConfigError(f"{path}: is {x.dtype} from {x.min()} to {x.max()}; save uint8, or brightness in [0, 1]")
    return x if x.dtype == np.uint8 else x.astype(np.float32)


def _frames(own):
    wanted = functools.cache(lambda: folder_files.array(own[0]).shape)

    def read(config, path):
        x = folder_files.array(path)
        if own and x.shape != wanted():
            raise ConfigError(f"{path}: is {_x(x.shape)}, time first, but {own[0]}, trained on, is {_x(wanted())}")
        return x

    return read


def _folder_events(config, own):
    data, size = config.data, config.model.input_shape[:2]

    @functools.cache
    def sensor():
        if data.size is None:  # the network's pixels are the camera's
            return size
        if not own:
            raise ConfigError(f"{data.dir}: is gone; its recordings tell how large the camera is")
        return folder_events.sensor_of(own, data.bad)

    def read(config, path):
        resized = data.size if data.size and data.resize == "events" else sensor()
        return sources.bin_events(_seen(path, sensor()), data, config.model.time_steps, (*resized, 2))

    return read


def _recording(config, path):
    data, name = config.data, config.data.name
    shape = (camera.SENSOR, camera.SENSOR, 2) if name == "digits_events" else recordings.DATA_SETS[name].shape
    if name == "dvs_gesture" and path.suffix.lower() == ".npy":  # as tonic cuts them
        seen = recordings.read(name, recordings.Recording(str(path), path, 0))
    else:
        seen = _seen(path, shape[:2])
    target = (*data.size, shape[2]) if data.size and data.resize == "events" else shape
    counts = sources.bin_events(seen, data, config.model.time_steps, target)
    return counts.reshape(len(counts), -1) if name == "shd" else counts


def _seen(path, sensor):
    """A file's events, from a camera of so many pixels."""
    found = readers.read_file(path)
    if found.sensor and found.sensor != tuple(sensor):
        raise ConfigError(f"{path}: is of a camera of {_x(found.sensor)} pixels, but this run's is {_x(sensor)}")
    return readers.validate(found._replace(sensor=tuple(sensor)), path)
