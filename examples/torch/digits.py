"""The digits of csbp_jax as tensors, for the examples beside this file."""

import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parents[2] / "csbp_jax" / "data"
TIME_STEPS = 4


def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images ``[N, 64]`` in [0, 1] and classes ``[N]`` of "train", "validation" or "test"."""
    chosen = json.loads((FOLDER / "digits_split.json").read_text())[split]
    with np.load(FOLDER / "digits.npz") as arrays:
        images, classes = arrays["x"][chosen], arrays["y"][chosen]
    return torch.from_numpy(images).flatten(1) / 16, torch.from_numpy(classes).long()


def batches(split: str, epochs: int, size: int = 64) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield shuffled ``(step, x [T, B, 64], y [B])``; an image is shown at each of 4 time steps."""
    images, classes = load(split)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(classes))
        for chosen in order.split(size):
            yield step, images[chosen].expand(TIME_STEPS, -1, -1), classes[chosen]
            step += 1


@torch.no_grad()
def accuracy(logits_of: Callable[[torch.Tensor], torch.Tensor], split: str = "test") -> float:
    """Return the share of a split that a network classifies correctly."""
    images, classes = load(split)
    logits = logits_of(images.expand(TIME_STEPS, -1, -1))
    return float((logits.argmax(-1) == classes).double().mean())
