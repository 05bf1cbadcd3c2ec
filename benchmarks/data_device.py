"""Time augmentation, mixing and resizing of a batch of event frames on the device: jitted, on the CPU.

    python -m benchmarks.data_device [--out docs/checks/data] [--rounds 21]

A batch is 32 examples of 10 frames of 48x48 pixels and two polarities, Poisson counts of mean 1. Pinned to one core; in
each round every program runs once, in a new order. Milliseconds of CPU time are per example: median, minimum and
maximum over the rounds. Each program includes the cast from uint8.
"""

import argparse
import pathlib
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import pin_to_core, spread, timed
from csbp_jax.config import AugmentName, Config, Data, Model
from csbp_jax.data.device import transform
from csbp_jax.runtime.files import write_json

SHAPE = (32, 10, 48, 48, 2)
ORIGINAL = (32, 10, 128, 128, 2)
AUGMENT: tuple[AugmentName, ...] = (
    "flip", "crop", "roll", "rotate", "shear", "nda", "cutout", "event_drop", "batch_crop_flip", "mixup", "cutmix",
)  # fmt: skip


def program(shape: tuple[int, ...], **options: Any) -> Callable[[], Any]:
    """A training transform of uint8 counts, called with a new key each time."""
    config = Config(data=Data(**options), model=Model(input_shape=shape[2:], time_steps=shape[1]))
    prepare = jax.jit(transform.make(config, events=True)[0])
    x = jax.random.poisson(jax.random.key(0), 1.0, shape).astype(jnp.uint8)
    batch, keys = {"x": x, "y": jnp.zeros(shape[0], jnp.int32)}, iter(jax.random.split(jax.random.key(1), 10_000))
    return lambda: jax.block_until_ready(prepare(next(keys), batch))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/checks/data"))
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")  # the clock is the CPU's, also where there is a GPU
    pin_to_core()
    programs = {"cast to float32 alone": program(SHAPE)}
    programs |= {name: program(SHAPE, augment=(name,)) for name in AUGMENT}
    programs["normalise=max"] = program(SHAPE, normalise="max")
    for method in ("nearest", "bilinear", "antialias"):
        programs[f"resize={method}, 128 to 48"] = program(ORIGINAL, resize=method, size=(48, 48))
    seconds = timed(programs, options.rounds, time.process_time)
    content: dict[str, Any] = {
        "command": "python -m benchmarks.data_device",
        "machine": f"{platform.machine()} CPU, one core, Python {platform.python_version()}",
        "versions": {package: metadata.version(package) for package in ("jax", "jaxlib", "numpy")},
        "rounds": options.rounds,
        "clock": "CPU time",
        "batch": SHAPE,
        "ms_per_example": {name: spread(1e3 * s / SHAPE[0]) for name, s in seconds.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "device.json", content)
    for name, numbers in content["ms_per_example"].items():
        print(f"{name:28} {numbers['median']:8.3f} ({numbers['min']:.3f}-{numbers['max']:.3f}) ms an example")


if __name__ == "__main__":
    main()
