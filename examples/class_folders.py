"""Write class folders to try, of the bundled threes, fives and eights.

    python -m examples.class_folders PICTURES EVENTS

PICTURES gets ``three/3.png`` and so on; EVENTS gets ``three/3.npz``, the recording of that digit by a simulated event
camera (arrays x, y, t in microseconds, p; and the camera's height and width).
"""

import pathlib
import sys
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from csbp_jax.data.events import camera, digits_events

CLASSES = {3: "three", 5: "five", 8: "eight"}


def write(pictures: pathlib.Path, recordings: pathlib.Path) -> None:
    """Write a file for each digit into both folders."""
    with resources.files("csbp_jax.data").joinpath("digits.npz").open("rb") as file, np.load(file) as digits:
        x, y = digits["x"], digits["y"]
    for index in np.flatnonzero(np.isin(y, list(CLASSES))):
        name = f"{CLASSES[y[index]]}/{index}"
        for folder in (pictures, recordings):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # Grey values are 0 to 16.
        grey = np.minimum(x[index].astype(int) * 16, 255).astype(np.uint8)
        Image.fromarray(grey).save(pictures / f"{name}.png")
        events = digits_events.recording(int(index))
        arrays: dict[str, Any] = {key: getattr(events, key) for key in ("x", "y", "t", "p")}
        np.savez_compressed(recordings / f"{name}.npz", **arrays, height=camera.SENSOR, width=camera.SENSOR)


if __name__ == "__main__":
    pictures, recordings = map(pathlib.Path, sys.argv[1:3])
    write(pictures, recordings)
    print(f"{pictures}, {recordings}: folders {', '.join(CLASSES.values())} of 8x8 pictures, and of recordings of them")
