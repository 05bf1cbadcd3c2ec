"""snnTorch's neuron: ``Leaky`` with its delayed reset to zero, through which no gradient flows."""

from collections.abc import Sequence

import snntorch
import torch

from benchmarks.peers import torch_neuron
from benchmarks.worker import Program

VERSIONS = torch_neuron.versions("snntorch")


def triangle(u: torch.Tensor, grad: torch.Tensor, _: object) -> torch.Tensor:
    """The cotangent of u for the triangular surrogate."""
    return grad * torch.relu(1 - u.abs())


def neuron(shape: Sequence[int], decay: float, mode: str | None = None) -> Program:
    bump = snntorch.surrogate.custom_surrogate(triangle)
    layer = snntorch.Leaky(decay, reset_mechanism="zero", spike_grad=bump)

    def run(x):
        membrane, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            spike, membrane = layer(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return torch_neuron.program(run, shape, mode=mode)


PROGRAMS = {"neuron": neuron}
