"""Make ``tests/data/resize.npz``: random frames and their sizes by PyTorch's ``interpolate``, in float64.

    pip install torch numpy && python tools/make_resize_reference.py

Keys are ``NAME.x`` and ``NAME.nearest|bilinear|antialias``, frames ``[H, W]``. Only this script needs PyTorch.
"""

import pathlib
from typing import Any

import numpy as np
import torch

SIZES = {"128to48": ((128, 128), (48, 48)), "34to20": ((34, 34), (20, 20)), "11x7to16x5": ((11, 7), (16, 5))}
MODES: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "antialias": {"mode": "bilinear", "align_corners": False, "antialias": True},
}

rng = np.random.default_rng(0)
arrays: dict[str, Any] = {}
for name, (old, new) in SIZES.items():
    x = rng.poisson(1.0, old).astype(np.uint8)
    arrays[f"{name}.x"] = x
    for mode, options in MODES.items():
        frame = torch.from_numpy(x.astype(np.float64))[None, None]
        arrays[f"{name}.{mode}"] = torch.nn.functional.interpolate(frame, new, **options)[0, 0].numpy()
np.savez_compressed(pathlib.Path(__file__).parent.parent / "tests" / "data" / "resize.npz", **arrays)
