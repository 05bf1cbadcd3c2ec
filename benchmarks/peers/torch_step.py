"""Training steps of networks of the literature with a torch library's neurons.

The networks are those of experiments/parity/reference.py, whose loops over time are replaced by the library's neuron.
"""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers import torch_neuron
from benchmarks.worker import Program
from experiments.parity import reference


def program(
    node: Callable[..., torch.nn.Module],
    reset: Callable[[torch.nn.Module], None],
    model: dict[str, Any],
    batch_file: str,
    lr: float,
    momentum: float,
    layout: str,
    mode: str | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Program:
    """A step of SGD on the cross-entropy of time-averaged logits.

    node: makes a module ``[T, ...] -> spikes`` of decay, threshold, surrogate, its parameter and detach_reset.
    batch_file: an archive of ``x [B, T or 1, H, W, C]``, ``y [B]``, and this package's parameters.
    layout: in memory, of the kernels and of the images of all time steps; layers and neurons pass it on.
    mode: of ``torch.compile``, for the forward and backward pass; None to run eagerly.
    precision: float32, or bfloat16 by ``torch.autocast``.
    """
    memory_format = torch_neuron.FORMATS[layout]
    net = _network(_namespace(model), node).to(memory_format=memory_format)
    with np.load(batch_file) as arrays:
        x = torch.from_numpy(arrays["x"].transpose(1, 0, 4, 2, 3))
        x = x.flatten(0, 1).clone(memory_format=memory_format).unflatten(0, x.shape[:2])
        y = torch.from_numpy(arrays["y"]).long()
        _load(net, {name: arrays[name] for name in arrays if "/" in name})
    net, x, y = net.to(device), x.to(device), y.to(device)
    forward = torch_neuron.compiled(net, mode)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    losses: list[float] = []

    def step():
        optimizer.zero_grad()
        reset(net)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(forward(x).mean(0), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        info["graph_breaks"] = torch_neuron.graph_breaks()

    info: dict[str, Any] = {"parameters": sum(p.numel() for p in net.parameters())}
    return Program([step], lambda: {"losses": np.array(losses)}, info)


def _namespace(model: dict[str, Any]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**model | {"neuron": types.SimpleNamespace(**model["neuron"])})


def _network(model: types.SimpleNamespace, node: Callable[..., torch.nn.Module]) -> torch.nn.Module:
    """The reference network with the library's neuron in it."""

    class Neuron(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            self.node = node(c.decay, c.threshold, c.surrogate, c.surrogate_param, c.detach_reset)

        def forward(self, current):
            return self.node(current), None, None

    net = type("Net", (reference.NETWORKS[model.name],), {"neuron": Neuron})(model)
    for layer in net.children():
        # The tensors that a reference layer stores for taps would count as the library's memory.
        layer.register_forward_hook(lambda layer, *_: layer.tensors.clear())
    return net


def _load(net: torch.nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Load this package's parameters by name; kernels have channels last, and TEBN's p belongs to the norm."""
    names = {"kernel": "weight", "scale": "weight"}
    state = dict(net.named_parameters())
    for path, values in arrays.items():
        *layer, last = path.split("/")
        key = ".".join([*layer, names.get(last, last)])
        key = key if key in state else ".".join([*layer, "bn", names.get(last, last)])
        values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T if last == "kernel" else values
        with torch.no_grad():
            state.pop(key).copy_(torch.from_numpy(np.ascontiguousarray(values)))
    if state:
        raise ValueError(f"no values for {', '.join(state)}")
