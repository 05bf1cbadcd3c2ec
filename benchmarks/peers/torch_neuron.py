"""Timing of a torch library's neuron: forward over the sequence, and backward."""

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch._dynamo

from benchmarks.worker import Program, drawn

torch.set_num_threads(1)

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def versions(*packages: str) -> dict[str, str]:
    """Versions of torch and of some packages."""
    return {name: metadata.version(name) for name in ("torch", *packages)}


def compiled(function: Any, mode: str | None) -> Any:
    """The function under ``torch.compile``, forward and backward, for fixed shapes; itself if the mode is None."""
    if mode is None:
        return function
    torch._dynamo.reset()  # or a second shape would be compiled for all shapes, whose code is slower
    torch._dynamo.utils.counters.clear()
    return torch.compile(function, mode=mode, dynamic=False)


def graph_breaks() -> int:
    """Where the compiler gave up and went on in a new graph, since the last program was made."""
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def program(
    run: Callable[[torch.Tensor], torch.Tensor], shape: Sequence[int], scale: float = 1.0, mode: str | None = None
) -> Program:
    """The program of ``run(x [T, B, N]) -> spikes``.

    shape: [B, T, N]. scale: factor of the input in the library's convention; the gradient is in the unscaled input.
    mode: of ``torch.compile``; None to run eagerly.
    """
    run = compiled(run, mode)
    x, bars = (np.moveaxis(drawn(shape, seed), 1, 0) for seed in (0, 1))
    current = torch.from_numpy(np.ascontiguousarray(scale * x)).requires_grad_()
    cotangent = torch.from_numpy(np.ascontiguousarray(bars))
    results: dict[str, Any] = {}

    def forward():
        results["spikes"] = run(current)

    def backward():
        (results["gradient"],) = torch.autograd.grad(results["spikes"], current, cotangent)
        results["spikes"] = results["spikes"].detach()

    def check():
        return {
            "spikes": np.moveaxis(results["spikes"].numpy(), 0, 1),
            "gradient": scale * np.moveaxis(results["gradient"].numpy(), 0, 1),
        }

    return Program([forward, backward], check)
