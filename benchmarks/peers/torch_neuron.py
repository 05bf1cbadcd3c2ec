"""A neuron of a torch library, timed: forward over the whole sequence, and backward."""

from importlib import metadata

import numpy as np
import torch

from benchmarks.worker import Program, drawn

torch.set_num_threads(1)


def versions(*packages):
    return {name: metadata.version(name) for name in ("torch", *packages)}


def program(run, shape, scale=1.0):
    """``run(x [T, B, N]) -> spikes``; the input is multiplied by ``scale``, in what a library's convention wants it.

    shape: [B, T, N]; the gradient is of the input before scaling.
    """
    x, bars = (np.moveaxis(drawn(shape, seed), 1, 0) for seed in (0, 1))
    x = torch.from_numpy(np.ascontiguousarray(scale * x)).requires_grad_()
    bars = torch.from_numpy(np.ascontiguousarray(bars))
    kept = {}

    def forward():
        kept["spikes"] = run(x)

    def backward():
        (kept["gradient"],) = torch.autograd.grad(kept["spikes"], x, bars)
        kept["spikes"] = kept["spikes"].detach()

    def check():
        return {
            "spikes": np.moveaxis(kept["spikes"].numpy(), 0, 1),
            "gradient": scale * np.moveaxis(kept["gradient"].numpy(), 0, 1),
        }

    return Program([forward, backward], check)
