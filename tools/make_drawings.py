"""Draw the digits of ``examples/drawings``: ``python -m tools.make_drawings``.

Each is a white stroke on black, 32x32 pixels as the forms of the UCI digits were before they were averaged to 8x8. The
recording is that of the 7 by the synthetic event camera.
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

from csbp_jax.data import digits
from csbp_jax.data.events import camera

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "drawings"

STROKES = {
    3: [(10, 6), (15, 4), (20, 6), (21, 10), (18, 14), (14, 15), (19, 16), (22, 20), (21, 25), (16, 28), (10, 26)],
    7: [(8, 5), (23, 5), (19, 13), (15, 20), (13, 28)],
}


def draw(digit: int) -> Image.Image:
    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).line(STROKES[digit], fill=255, width=4, joint="curve")
    return picture


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for digit in STROKES:
        draw(digit).save(FOLDER / f"{digit}.png", optimize=True)
    grey = np.rint(digits.from_picture(np.asarray(draw(7))[..., None])[None, ..., 0] * 16).astype(int)
    (events,) = camera.record(grey, np.array([0]))
    x, y, p = (column.astype(np.uint8) for column in (events.x, events.y, events.p))
    np.savez_compressed(FOLDER / "7.npz", x=x, y=y, t=events.t.astype(np.int32), p=p)
