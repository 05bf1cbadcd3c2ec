"""Measure the speed of static images on the host: images per second of a core's CPU time.

    python -m benchmarks.data_images [--out docs/checks/data/images.json] [--rounds 15] [--photographs FOLDER]

Pinned to a core; in each round every program runs once, in a new order. CIFAR: random uint8 images in memory, of which
batches of 128 are gathered, cropped, flipped and normalised by the published mean and deviation, the last step jitted
on the CPU. ImageNet: 100 synthetic photographs with a spectrum like that of natural ones, about 90 kB at quality 95,
decoded, and a random window resized to 224; and the same images reduced to a shorter side of 256. CPU time, not wall
time, so that other programs do not count.
"""

import argparse
import functools
import io
import itertools
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.timing import pin_to_core, spread, timed
from csbp_jax import data
from csbp_jax.data.images import augment, decode, reduced, sources
from csbp_jax.runtime.files import write_json

BATCH, BATCHES = 128, 40
SHORTER_SIDE = 256
REDUCED = f", shorter side {SHORTER_SIDE}"
MEAN, STD = np.array([125.3, 123.0, 113.9], np.float32), np.array([63.0, 62.1, 66.7], np.float32)


def rates(programs: Mapping[str, Callable[[], Any]], images: int, rounds: int) -> dict[str, dict[str, float]]:
    """``{name: images per second of CPU time}``, interleaved."""
    return {name: spread(images / seconds) for name, seconds in timed(programs, rounds, time.process_time).items()}


def cifar(rounds: int) -> dict[str, Any]:
    """Gather, crop and flip; the same with normalisation; and all of it through the pipeline's batches."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (50_000, 32, 32, 3), np.uint8), np.zeros(50_000, np.int32)
    source = sources.ImageArraySource(x, y, 10, [(2, augment.crop), (1, augment.flip)])
    indices = draw.integers(0, len(y), (BATCHES, BATCH))
    uniforms = draw.random((BATCHES, BATCH, source.num_uniforms), np.float32)
    normalise = jax.jit(lambda x: (x.astype(np.float32) - MEAN) / STD)
    batches = data.train_batches(source, BATCH, seed=0)

    def cropped():
        for rows, u in zip(indices, uniforms, strict=True):
            source.take(rows, u)

    def augment_and_normalise():
        for rows, u in zip(indices, uniforms, strict=True):
            jax.block_until_ready(normalise(source.take(rows, u)["x"]))

    def pipeline():
        for batch in itertools.islice(batches, BATCHES):
            jax.block_until_ready(normalise(batch["x"]))

    programs = {
        "gather, crop, flip": cropped,
        "gather, crop, flip, normalise": augment_and_normalise,
        "train_batches, normalise": pipeline,
    }
    return rates(programs, BATCH * BATCHES, rounds)


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


def imagenet(jpegs: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Decode, take a random window and resize to 224, by each installed decoder; and decode only.

    The fastest decoder also with the other resizer, and on images reduced to a shorter side of 256.
    """
    small = [reduced.reduce(jpeg, SHORTER_SIDE, "photograph") for jpeg in jpegs]
    uniforms = np.random.default_rng(1).random((len(jpegs), augment.RESIZED_CROP_UNIFORMS), np.float32)
    decoders: dict[str, decode.Decoder] = {"pillow": decode.by_pillow}
    decoders |= {"simplejpeg": decode.by_simplejpeg} if find_spec("simplejpeg") else {}
    resizers = {"": augment.resize}
    if find_spec("cykooz_resizer"):
        from csbp_jax.data.images import fast_resize

        resizers[" and cykooz"] = fast_resize.resize

    def resized_crop(images, decoder, resize):
        for jpeg, u in zip(images, uniforms, strict=True):
            image = decode.decode(jpeg, "photograph", decoder)
            height, width = image.shape[:2]
            resize(image, augment.random_window(height, width, u), (224, 224))

    def decoded(images, decoder):
        for jpeg in images:
            decode.decode(jpeg, "photograph", decoder)

    programs = {
        f"{name}, resized crop": functools.partial(resized_crop, jpegs, decoder, augment.resize)
        for name, decoder in decoders.items()
    }
    programs |= {f"{name} alone": functools.partial(decoded, jpegs, decoder) for name, decoder in decoders.items()}
    fastest = next(name for name in ("simplejpeg", "pillow") if name in decoders)
    for name, resize in resizers.items():
        for images, suffix in ((jpegs, ""), (small, REDUCED)):
            program = functools.partial(resized_crop, images, decoders[fastest], resize)
            programs[f"{fastest}{name}, resized crop{suffix}"] = program
    programs[f"{fastest} alone{REDUCED}"] = functools.partial(decoded, small, decoders[fastest])
    return {
        "images": len(jpegs),
        "mean_kB": mean_kilobytes(jpegs),
        "mean_kB_reduced": mean_kilobytes(small),
        "pictures_per_second": rates(programs, len(jpegs), rounds),
    }


def mean_kilobytes(jpegs: Sequence[bytes]) -> float:
    """Mean size of encoded images."""
    return float(np.mean([len(jpeg) for jpeg in jpegs])) / 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/checks/data/images.json"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--photographs", type=pathlib.Path, help="folder of JPEG files, to be timed as well")
    options = parser.parse_args(arguments)
    if options.photographs and not options.photographs.is_dir():
        parser.error(f"--photographs: there is no folder {options.photographs}")
    jax.config.update("jax_platforms", "cpu")  # the clock is the CPU's, also where there is a GPU
    pin_to_core()
    photographed = [f"--photographs {options.photographs}"] if options.photographs else []
    packages = ("numpy", "jax", "grain", "pillow", "simplejpeg", "cykooz-resizer")
    content: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.data_images", *photographed]),
        "machine": f"{platform.machine()} CPU, one core, Python {platform.python_version()}",
        "versions": {
            distribution.name: distribution.version
            for package in packages
            for distribution in metadata.distributions(name=package)
        },
        "rounds": options.rounds,
        "load_average_before": os.getloadavg()[0],  # others on the core and its cache lengthen CPU time too
        "cifar_pictures_per_second": cifar(options.rounds),
        "imagenet": imagenet(list(photographs(100)), options.rounds),
    }
    if options.photographs:
        files = sorted(options.photographs.iterdir())
        source = {"source": f"of the folder {options.photographs.resolve().name}"}
        content["photographs"] = source | imagenet([file.read_bytes() for file in files], options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, content)
    for name, numbers in (content["cifar_pictures_per_second"] | content["imagenet"]["pictures_per_second"]).items():
        print(f"{name:32} {numbers['median']:9,.0f} ({numbers['min']:,.0f}-{numbers['max']:,.0f}) pictures/s/core")


if __name__ == "__main__":
    main()
