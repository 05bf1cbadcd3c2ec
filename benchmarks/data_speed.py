"""Measure how fast a core prepares data: still images, events, and transforms in the step.

    make bench-data        (python -m benchmarks.data_speed [--only PART ...] [--photographs FOLDER] [--rounds 15]
                           [--out docs/checks/data])

- ``images``: random uint8 images as large as CIFAR's, of which batches of 128 are gathered, cropped, flipped and
  normalised; and 100 synthetic photographs with a spectrum like that of natural ones, about 90 kB at quality 95, which
  are decoded, and of which a random window is resized to 224. The same for images reduced to a shorter side of 256, and
  for the JPEG files of a folder, if one is given.
- ``events``: recordings of events at uniformly random pixels and times are counted into frames. They have as many
  events as a data set's recordings.
- ``device``: transforms of 32 examples of 10 frames of 48x48 pixels and two polarities, Poisson counts of mean 1;
  jitted, on the CPU, with the cast from uint8.

Each part is pinned to a core; in each round every program runs once, in a new order. Rates are per second of CPU time,
not wall time, so that other programs on the machine do not count. Writes PART.json for each part, and README.md.
"""

import argparse
import functools
import io
import itertools
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.tables import table
from benchmarks.timing import pin_to_core, spread, timed
from csbp_jax import data
from csbp_jax.config import AugmentName, Config, Data, Model
from csbp_jax.data.device import transform
from csbp_jax.data.events import binning
from csbp_jax.data.events.readers import Events
from csbp_jax.data.images import augment, decode, reduced, sources
from csbp_jax.runtime.files import write_json

OUT = pathlib.Path("docs/checks/data")
BATCH, BATCHES = 128, 40
SHORTER_SIDE = 256
MEAN = np.array([[[[[125.3, 123.0, 113.9]]]]], np.float32)
STD = np.array([[[[[63.0, 62.1, 66.7]]]]], np.float32)
RECORDINGS = {
    "dvs_gesture": (400_000, 6_000_000, 128, 16, np.int64),
    "cifar10_dvs": (200_000, 1_300_000, 128, 10, np.uint16),
    "nmnist": (4_200, 300_000, 34, 10, np.int64),
}
"""Events, microseconds, sensor, frames and the type of coordinates, as the files of a data set have them."""
TOTAL_EVENTS = 4_000_000
"""Events that are counted at a time: a recording many times over, so that the clock resolves it."""
FRAMES = (32, 10, 48, 48, 2)
AUGMENTATIONS: tuple[AugmentName, ...] = ("nda", "event_drop")
PACKAGES = ("numpy", "jax", "grain", "pillow", "simplejpeg", "cykooz-resizer")

Programs = Mapping[str, Callable[[], Any]]
Rates = dict[str, dict[str, float]]
"""``{name: median, min and max}``."""


def rates(programs: Programs, amounts: Mapping[str, float], rounds: int) -> Rates:
    """The amount of each program per second of CPU time, interleaved."""
    seconds = timed(programs, rounds, time.process_time)
    return {name: spread(amounts[name] / values) for name, values in seconds.items()}


def images(rounds: int, folder: pathlib.Path | None) -> dict[str, Any]:
    """Images in memory, synthetic photographs, and those of a folder."""
    content = {"cifar_pictures_per_second": cifar(rounds), "imagenet": decoding(list(photographs(100)), rounds)}
    if folder:
        files = sorted(folder.iterdir())
        source = {"source": f"of the folder {folder.resolve().name}"}
        content["photographs"] = source | decoding([file.read_bytes() for file in files], rounds)
    return content


def cifar(rounds: int) -> Rates:
    """Images a second that are gathered, cropped, flipped and normalised, directly and as batches of the pipeline."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (50_000, 32, 32, 3), np.uint8), np.zeros(50_000, np.int32)
    source = sources.ImageArraySource(x, y, 10, [(2, augment.crop), (1, augment.flip)])
    indices = draw.integers(0, len(y), (BATCHES, BATCH))
    uniforms = draw.random((BATCHES, BATCH, source.num_uniforms), np.float32)
    normalise = jax.jit(lambda x: (x.astype(np.float32) - MEAN) / STD)
    batches = data.train_batches(source, BATCH, seed=0)

    def directly():
        for rows, u in zip(indices, uniforms, strict=True):
            jax.block_until_ready(normalise(source.take(rows, u)["x"]))

    def pipeline():
        for batch in itertools.islice(batches, BATCHES):
            jax.block_until_ready(normalise(batch["x"]))

    programs = {"gather, crop, flip, normalise": directly, "train_batches, normalise": pipeline}
    return rates(programs, dict.fromkeys(programs, BATCH * BATCHES), rounds)


def photographs(count: int) -> Iterator[bytes]:
    """JPEGs of noise whose amplitude falls with the 1.47th power of the frequency, 300 x 400 to 480 x 640."""
    draw = np.random.default_rng(0)
    for _ in range(count):
        height, width = int(draw.integers(300, 481)), int(draw.integers(400, 641))
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
        frequency[0, 0] = 1
        noise = draw.standard_normal((4, height, width))
        waves = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.47, s=(height, width))
        light = waves[0] + 0.3 * waves[1:]  # the three colours mostly vary together
        pixels = np.clip(128 + 55 * (light - light.mean()) / light.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        yield file.getvalue()


def decoding(jpegs: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Images a second that are decoded, and of which a random window is resized to 224, by each installed decoder.

    The fastest decoder also with the other resizer, and on images reduced to a shorter side of 256.
    """
    small = [reduced.reduce(jpeg, SHORTER_SIDE, "photograph") for jpeg in jpegs]
    uniforms = np.random.default_rng(1).random((len(jpegs), augment.RESIZED_CROP_UNIFORMS), np.float32)
    decoders: dict[str, decode.Decoder] = {"pillow": decode.by_pillow}
    decoders |= {"simplejpeg": decode.by_simplejpeg} if find_spec("simplejpeg") else {}
    fastest = list(decoders)[-1]
    resizers = {"": augment.resize}
    if find_spec("cykooz_resizer"):
        from csbp_jax.data.images import fast_resize

        resizers[" and cykooz"] = fast_resize.resize

    def resized_crop(images, decoder, resize):
        for jpeg, u in zip(images, uniforms, strict=True):
            image = decode.decode(jpeg, "photograph", decoder)
            height, width = image.shape[:2]
            resize(image, augment.random_window(height, width, u), (224, 224))

    programs = {
        f"{name}, resized crop": functools.partial(resized_crop, jpegs, decoder, augment.resize)
        for name, decoder in decoders.items()
    }
    for name, resize in resizers.items():
        for images, suffix in ((jpegs, ""), (small, f", shorter side {SHORTER_SIDE}")):
            program = functools.partial(resized_crop, images, decoders[fastest], resize)
            programs[f"{fastest}{name}, resized crop{suffix}"] = program
    return {
        "images": len(jpegs),
        "mean_kB": mean_kilobytes(jpegs),
        "mean_kB_reduced": mean_kilobytes(small),
        "pictures_per_second": rates(programs, dict.fromkeys(programs, len(jpegs)), rounds),
    }


def mean_kilobytes(jpegs: Sequence[bytes]) -> float:
    """Mean size of encoded images."""
    return float(np.mean([len(jpeg) for jpeg in jpegs])) / 1e3


def events(rounds: int, _: pathlib.Path | None) -> dict[str, Any]:
    """Million events a second that are counted into frames of equal numbers of events."""
    programs, amounts = dict[str, Callable[[], Any]](), dict[str, float]()
    for name, (number, span, side, T, dtype) in RECORDINGS.items():
        recording = random_events(number, span, side, dtype)
        assert int(frames(recording, T).sum()) == number
        times = TOTAL_EVENTS // number
        programs[name] = functools.partial(count_often, recording, T, times)
        amounts[name] = times * number / 1e6
    return {"million_events_per_second": rates(programs, amounts, rounds)}


def random_events(number: int, span: int, side: int, dtype: Any) -> Events:
    """A recording of random events."""
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, side, number).astype(dtype) for _ in range(2))
    t = np.sort(generator.integers(0, span, number))
    return Events(x, y, t, generator.integers(0, 2, number).astype(bool), (side, side))


def frames(recording: Events, T: int) -> np.ndarray:
    """Count a recording into T frames."""
    x, y, t, p, (height, width) = recording
    return binning.count(x, y, p, binning.by_number(t, T), (height, width, 2))


def count_often(recording: Events, T: int, times: int) -> None:
    """Count a recording into T frames, many times over."""
    for _ in range(times):
        frames(recording, T)


def device(rounds: int, _: pathlib.Path | None) -> dict[str, Any]:
    """Milliseconds of CPU time in which an example is transformed."""

    def program(name: AugmentName) -> Callable[[], Any]:
        config = Config(data=Data(augment=(name,)), model=Model(input_shape=FRAMES[2:], time_steps=FRAMES[1]))
        prepare = jax.jit(transform.make(config, events=True)[0])
        x = jax.random.poisson(jax.random.key(0), 1.0, FRAMES).astype(jnp.uint8)
        batch, keys = {"x": x, "y": jnp.zeros(FRAMES[0], jnp.int32)}, iter(jax.random.split(jax.random.key(1), 10_000))
        return lambda: jax.block_until_ready(prepare(next(keys), batch))

    seconds = timed({name: program(name) for name in AUGMENTATIONS}, rounds, time.process_time)
    return {
        "clock": "CPU time",
        "ms_per_example": {name: spread(1e3 * values / FRAMES[0]) for name, values in seconds.items()},
    }


PARTS: dict[str, Callable[[int, pathlib.Path | None], dict[str, Any]]] = {
    "images": images,
    "events": events,
    "device": device,
}


def page(images: Mapping[str, Any], events: Mapping[str, Any], device: Mapping[str, Any]) -> str:
    """The text of README.md, from the content of the three files."""
    of_cifar, counted = images["cifar_pictures_per_second"], events["million_events_per_second"]
    rows = [
        ("CIFAR from memory: crop, flip, normalise", "pictures/s", of_cifar["gather, crop, flip, normalise"]),
        ("the same as batches of the pipeline", "pictures/s", of_cifar["train_batches, normalise"]),
        *jpeg_rows("ImageNet JPEG", images["imagenet"]["pictures_per_second"]),
        *(jpeg_rows("photograph", images["photographs"]["pictures_per_second"]) if "photographs" in images else ()),
        ("events counted, size of DVS-Gesture", "million/s", counted["dvs_gesture"]),
        ("events counted, size of CIFAR10-DVS", "million/s", counted["cifar10_dvs"]),
        ("events counted, size of N-MNIST", "million/s", counted["nmnist"]),
        ("augmentation on the device: nda, 10x48x48x2", "ms", device["ms_per_example"]["nda"]),
        ("augmentation on the device: event_drop", "ms", device["ms_per_example"]["event_drop"]),
    ]
    cells = [[what, unit, _cell(**numbers)] for what, unit, numbers in rows]
    of_photographs = "Real images were not timed."
    if "photographs" in images:
        of = images["photographs"]
        of_photographs = f"The photographs are {of['images']} {of['source']}, {of['mean_kB']:.0f} kB each."
    return f"""# Speed of the data pipeline

How many pictures and events does one CPU core prepare in a second?

{table(["what", "unit", "median (minimum-maximum)"], cells)}

CPU time of one core on a shared machine ({images["machine"]}; load average {images["load_average_before"]:.1f} when the
images were timed); of augmentation on the device, {device["clock"]}. CIFAR's images are random bytes,
ImageNet's are synthetic JPEGs of noise with a decaying spectrum, {images["imagenet"]["mean_kB"]:.0f} kB each: the speed
depends on how much detail an image has.
{of_photographs}
"Shorter side 256": the images were reduced before ([data](../../data.md#smaller-images)). Events are random, in memory.

`make bench-data` times all but photographs; these take
`python -m benchmarks.data_speed --only images --photographs FOLDER`. The JSON files hold the numbers.
"""


def jpeg_rows(what: str, rates: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Rows of images that are decoded, cropped and resized: by each decoder and resizer, as they are and reduced."""
    for name, numbers in rates.items():
        how, _, rest = name.partition(", resized crop")
        yield f"{what}{rest} to a random 224x224 crop, {how}", "pictures/s", numbers


def _cell(median: float, min: float, max: float) -> str:
    def digits(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    return f"{digits(median)} ({digits(min)}-{digits(max)})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--photographs", type=pathlib.Path, help="folder of JPEG files, to be timed as well")
    options = parser.parse_args(arguments)
    if options.photographs and not options.photographs.is_dir():
        parser.error(f"--photographs: there is no folder {options.photographs}")
    jax.config.update("jax_platforms", "cpu")  # the clock is the CPU's, also where there is a GPU
    pin_to_core()
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only:
        origin = {
            "machine": f"{platform.machine()} CPU, one core, Python {platform.python_version()}",
            "versions": {
                package.name: package.version for name in PACKAGES for package in metadata.distributions(name=name)
            },
            "rounds": options.rounds,
            "load_average_before": os.getloadavg()[0],  # others on the core and its cache lengthen CPU time too
        }
        write_json(options.out / f"{part}.json", origin | PARTS[part](options.rounds, options.photographs))
    if missing := [part for part in PARTS if not (options.out / f"{part}.json").exists()]:
        parser.error(f"no page before {', '.join(missing)} are timed: --only {' '.join(missing)}")
    text = page(*(json.loads((options.out / f"{part}.json").read_text()) for part in PARTS))
    (options.out / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
