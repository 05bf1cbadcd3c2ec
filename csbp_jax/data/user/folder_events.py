"""A user's recordings of events as frames, see :mod:`csbp_jax.data.user.folder`."""

import functools
import pathlib

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.frame_cache import CachedFrames, cache_dir, load_or_build
from csbp_jax.data.events.readers import read_file, validate
from csbp_jax.data.events.recordings import collect_errors
from csbp_jax.data.events.sources import bin_events
from csbp_jax.data.user.folder_files import Parts, fingerprint, paths_of, tell


def events(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, CachedFrames]:
    """Frames of ``config.model.time_steps``, counted at the first call and kept in ``folder/frames``.

    All recordings are of one camera. With ``size`` and ``resize="events"`` coordinates are scaled from its size.

    Raises:
      ConfigError: files that state cameras of different sizes, or one that cannot be read.
    """
    data, time_steps = config.data, config.model.time_steps
    resized = data.size if data.resize == "events" else None
    parameters = {
        "files": fingerprint(parts),
        "T": time_steps,
        "bins": data.bins,
        "window": data.window if data.bins == "window" else None,
        "size": resized,
        "sensor": "of all files",
    }
    sensor = functools.cache(lambda: sensor_of(paths_of(parts), data.bad))

    def members(skipped):
        sensor()  # only if frames must be counted; its errors are of all files, so no record is left out for them
        return parts

    def count(record):
        one = validate(read_file(record.path)._replace(sensor=sensor()), record.path)
        return bin_events(one, data, time_steps, (*(resized or sensor()), 2))

    target = cache_dir(folder, f"{pathlib.Path(data.dir).resolve().name}-T{time_steps}-{data.bins}", parameters)
    content = load_or_build(
        target, parameters, members, count, skip=data.bad == "skip", show=lambda stage, done, total: None
    )
    tell(content["skipped"])
    sources = {}
    for part, about in content["parts"].items():
        rows = np.array(about["rows"])
        sources[part] = CachedFrames(
            target / f"{part}.npy", rows[rows >= 0], np.array(about["labels"])[rows >= 0], classes
        )
    return sources


def sensor_of(paths: list[pathlib.Path], bad: str) -> tuple[int, ...]:
    """Height and width as files state them; if none does, the smallest that hold all events of all files."""
    stated: dict[tuple[int, ...], pathlib.Path] = {}
    skipped: dict[str, str] | None = {} if bad == "skip" else None
    height = width = 1
    for path in paths:
        with collect_errors(str(path), skipped):
            one = read_file(path)
            if one.sensor:
                stated.setdefault(one.sensor, path)
            height, width = max(height, int(one.y.max()) + 1), max(width, int(one.x.max()) + 1)
    if len(stated) > 1:
        (first, here), (second, there) = list(stated.items())[:2]
        raise ConfigError(
            f"{there}: is of a camera of {'x'.join(map(str, second))} pixels, but {here} of one of "
            f"{'x'.join(map(str, first))}; export them with one height and width"
        )
    return next(iter(stated), (height, width))
