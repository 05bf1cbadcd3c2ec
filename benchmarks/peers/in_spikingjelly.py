"""SpikingJelly's neuron, and training steps of plain PyTorch networks with it, in multi-step mode."""

from collections.abc import Sequence
from typing import Any

from spikingjelly.activation_based import functional, neuron, surrogate

from benchmarks.peers import torch_neuron, torch_step
from benchmarks.worker import Program

VERSIONS = torch_neuron.versions("spikingjelly")
SURROGATES = {
    "triangle": lambda width: surrogate.PiecewiseQuadratic(alpha=1 / width),
    "arctan": lambda alpha: surrogate.ATan(alpha=alpha),
}


def node(
    decay: float, threshold: float = 1.0, bump: str = "triangle", param: float = 1.0, detach_reset: bool = False
) -> Any:
    """The neuron ``u = decay v + x`` with hard reset."""
    options = {
        "v_threshold": threshold,
        "v_reset": 0.0,
        "surrogate_function": SURROGATES[bump](param),
        "detach_reset": detach_reset,
        "step_mode": "m",
    }
    if decay == 1:
        return neuron.IFNode(**options)
    return neuron.LIFNode(tau=1 / (1 - decay), decay_input=False, **options)


def time_neuron(shape: Sequence[int], decay: float, mode: str | None = None) -> Program:
    """The neuron over a sequence."""
    layer = node(decay)

    def run(x):
        functional.reset_net(layer)
        return layer(x)

    return torch_neuron.program(run, shape, mode=mode)


def step(**arguments: Any) -> Program:
    """A training step, with the arguments of ``torch_step.program``."""
    return torch_step.program(node, functional.reset_net, **arguments)


PROGRAMS = {"neuron": time_neuron, "step": step}
