"""Class folders of recordings of events, as sources of frames; see :mod:`csbp_jax.data.user.folder`."""

import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.binning import check_grid
from csbp_jax.data.events.frame_cache import CachedFrames, cache_dir, load_or_build
from csbp_jax.data.events.readers import IntArray, read_file, validate
from csbp_jax.data.events.recordings import Recording, Splits, collect_errors, refuse
from csbp_jax.data.events.sources import bin_events, binning_of, with_own_lengths
from csbp_jax.data.source import DataSource
from csbp_jax.data.user.folder_files import fingerprint, labels_of, print_skipped


def load_events(
    config: Config, folder: pathlib.Path, splits: Splits, classes: int, problems: dict[str, str]
) -> Mapping[str, DataSource]:
    """Load recordings as ``config.model.time_steps`` frames, binned at the first call and cached in ``folder/frames``.

    All recordings are from one camera. With ``size`` and ``resize="events"`` coordinates are scaled from its size.
    ``problems`` has the files that were found to be unusable before.

    Raises:
      ConfigError: files state cameras of different sizes, or one cannot be read.
    """
    data, time_steps = config.data, config.model.time_steps
    resized = data.size if data.resize == "events" else None
    parameters = {
        "files": fingerprint(splits),
        "size": resized,
        "sensor": "of all files",
    } | binning_of(data.bins, data.window, time_steps)

    @functools.cache
    def sensor() -> tuple[int, ...]:
        found = dict(problems)
        paths = {record.id: record.path for records in splits.values() for record in records}
        size = sensor_of(paths, found, 0 if resized else time_steps)
        if data.bad == "fail":
            refuse(found)
        return size

    if problems and data.bad == "fail":
        sensor()  # which refuses them, with those that cannot be read

    def recordings(skipped: dict[str, str]) -> Splits:
        del skipped
        sensor()  # before ``frames``, since its errors concern all files and must not be collected as one recording's
        return splits

    def frames(recording: Recording) -> IntArray:
        events = validate(read_file(recording.path)._replace(sensor=sensor()), recording.path)
        height, width = resized or sensor()
        return bin_events(events, data, time_steps, (height, width, 2))

    target = cache_dir(folder, f"{pathlib.Path(data.dir).resolve().name}-T{time_steps}-{data.bins}", parameters)
    content = load_or_build(target, parameters, recordings, frames, skip=data.bad == "skip", show=lambda *_: None)
    print_skipped(problems | content["skipped"])
    sources: dict[str, DataSource] = {}
    for split, entry in content["parts"].items():
        # Not the cache's labels: a new class without a usable file changes them, but not the files' fingerprint.
        rows, labels = np.array(entry["rows"]), labels_of(splits[split])
        sources[split] = CachedFrames(target / f"{split}.npy", rows, labels, classes)
    return with_own_lengths(sources, config) if data.bins == "own" else sources


def sensor_of(paths: Mapping[str, pathlib.Path], problems: dict[str, str], time_steps: int) -> tuple[int, ...]:
    """Return the height and width that files state, or else the smallest that hold all events of all files.

    Args:
      paths: recordings of one camera, by their names.
      problems: collects those that cannot be read, or need frames that are too large.
      time_steps: number of frames with one pixel per pixel of the camera; 0 if events are scaled to other pixels.

    Raises:
      ConfigError: files state different sizes.
    """
    stated: dict[tuple[int, ...], pathlib.Path] = {}
    height = width = 1
    for name, path in paths.items():
        with collect_errors(name, problems):
            events = read_file(path)
            rows, columns = events.sensor or (int(events.y.max()) + 1, int(events.x.max()) + 1)
            check_grid(time_steps, (rows, columns, 2), path)
            if events.sensor:
                stated.setdefault(events.sensor, path)
            height, width = max(height, rows), max(width, columns)
    if len(stated) > 1:
        (first, first_path), (second, second_path) = list(stated.items())[:2]
        raise ConfigError(
            f"{second_path}: is from a camera of {'x'.join(map(str, second))} pixels, but {first_path} from one of "
            f"{'x'.join(map(str, first))}; export them with one height and width"
        )
    return next(iter(stated), (height, width))
