"""Speed of still pictures on the host: pictures per second of one core's CPU time.

    python -m benchmarks.data_images [--out docs/results/data/images.json] [--rounds 15]

Pinned to one core; in each round every program runs once, in a new order. CIFAR: random uint8 pictures in memory, of
which batches of 128 are gathered, cropped, flipped and brought to float32 by the published mean and deviation, the last
step jitted on the CPU. ImageNet: 100 synthetic photographs with a spectrum like that of natural ones, about 90 kB at
quality 95, decoded, a random window resized to 224. CPU time, not wall time, so that other programs do not count.
"""

import argparse
import io
import itertools
import os
import pathlib
import platform
import random
import time
from importlib import metadata

import jax
import numpy as np
from PIL import Image

from benchmarks.timing import spread
from csbp_jax import data
from csbp_jax.data.images import augment, decode, sources
from csbp_jax.runtime.files import write_json

BATCH, BATCHES = 128, 40
MEAN, STD = np.float32([125.3, 123.0, 113.9]), np.float32([63.0, 62.1, 66.7])


def rates(programs, pictures, rounds):
    """``{name: pictures per second of CPU time}``, interleaved."""
    seconds = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            began = time.process_time()
            programs[name]()
            seconds[name].append(time.process_time() - began)
    return {name: spread(pictures / np.array(values)) for name, values in seconds.items()}


def cifar(rounds):
    """Gather, crop and flip; with the normalising; and all of it through the pipeline's batches."""
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


def photographs(count):
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


def imagenet(rounds):
    """Decode, random window, resize to 224, by each decoder that is installed; and decoding alone."""
    jpegs = list(photographs(100))
    uniforms = np.random.default_rng(1).random((len(jpegs), augment.RESIZED_CROP_UNIFORMS), np.float32)
    decoders = {"pillow": decode.by_pillow}
    decoders |= {"simplejpeg": decode.by_simplejpeg} if decode.simplejpeg else {}
    decoders |= {"cv2": decode.by_cv2} if decode.cv2 else {}

    def whole(decoder):
        for jpeg, u in zip(jpegs, uniforms, strict=True):
            picture = decode.decode(jpeg, "photograph", decoder)
            augment.resize(picture, augment.random_window(*picture.shape[:2], u), (224, 224))

    def alone(decoder):
        for jpeg in jpegs:
            decode.decode(jpeg, "photograph", decoder)

    programs = {f"{name}, resized crop": lambda d=decoder: whole(d) for name, decoder in decoders.items()}
    programs |= {f"{name} alone": lambda d=decoder: alone(d) for name, decoder in decoders.items()}
    return {
        "mean_kB": float(np.mean([len(jpeg) for jpeg in jpegs])) / 1e3,
        "pictures_per_second": rates(programs, len(jpegs), rounds),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/data/images.json"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random.seed(0)
    packages = ("numpy", "jax", "grain", "pillow", "simplejpeg", "opencv-python-headless")
    content = {
        "command": "python -m benchmarks.data_images",
        "machine": f"{platform.machine()} CPU, one core, Python {platform.python_version()}",
        "versions": {package: metadata.version(package) for package in packages},
        "rounds": options.rounds,
        "load_average_before": os.getloadavg()[0],  # CPU time too is longer where others share core and cache
        "cifar_pictures_per_second": cifar(options.rounds),
        "imagenet": imagenet(options.rounds),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, content)
    for name, numbers in (content["cifar_pictures_per_second"] | content["imagenet"]["pictures_per_second"]).items():
        print(f"{name:32} {numbers['median']:9,.0f} ({numbers['min']:,.0f}-{numbers['max']:,.0f}) pictures/s/core")


if __name__ == "__main__":
    main()
