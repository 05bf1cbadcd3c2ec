"""Timing of a torch convolution: forward, its gradient in the input, its gradient in the kernel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.peers import torch_neuron
from benchmarks.worker import Program, drawn

VERSIONS = torch_neuron.versions()


def convolution(x: Sequence[int], kernel: Sequence[int], stride: int, pad: int, layout: str) -> Program:
    """A convolution of spikes; shapes have channels last, as in this package, and ``layout`` is that in memory."""

    def tensor(values: np.ndarray, axes: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(values.transpose(axes)).clone(memory_format=torch_neuron.FORMATS[layout])

    spikes = tensor((drawn(x) > 1).astype(np.float32), (0, 3, 1, 2))
    weights = tensor(drawn(kernel, 1), (3, 2, 0, 1))
    out = torch.nn.functional.conv2d(spikes, weights, stride=stride, padding=pad)
    bars = tensor(drawn(bars_shape(out), 2), (0, 3, 1, 2))
    results: dict[str, Any] = {}
    strides, pads = [stride] * 2, [pad] * 2

    def forward():
        results["forward"] = torch.nn.functional.conv2d(spikes, weights, stride=stride, padding=pad)

    def backward(name, wanted):
        gradients = torch.ops.aten.convolution_backward(
            bars, spikes, weights, None, strides, pads, [1, 1], False, [0, 0], 1, [wanted == 0, wanted == 1, False]
        )
        results[name] = gradients[wanted]

    def check():
        orders = {"forward": (0, 2, 3, 1), "input": (0, 2, 3, 1), "kernel": (2, 3, 1, 0)}
        return {name: results[name].numpy().transpose(order) for name, order in orders.items()}

    return Program([forward, lambda: backward("input", 0), lambda: backward("kernel", 1)], check)


def bars_shape(out: torch.Tensor) -> tuple[int, ...]:
    """Shape of the cotangent with channels last."""
    batch, channels, *size = out.shape
    return batch, *size, channels


PROGRAMS = {"convolution": convolution}
