"""Training steps of the networks of the literature, built of a torch library's neurons.

The networks are those of experiments/parity/reference.py, whose loops over time are replaced by the library's neuron.
"""

import types

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.worker import Program
from experiments.parity import reference


def program(node, reset, model, batch_file, lr, momentum):
    """A step of SGD on the cross-entropy of time-averaged logits.

    node: ``(decay, threshold, surrogate, its parameter, detach_reset)`` to a module ``[T, ...] -> spikes``.
    batch_file: an archive of ``x [B, T or 1, H, W, C]``, ``y [B]``, and parameters as the other side has them.
    """
    model = _namespace(model)
    net = _network(model, node)
    with np.load(batch_file) as arrays:
        x = torch.from_numpy(np.ascontiguousarray(arrays["x"].transpose(1, 0, 4, 2, 3)))
        y = torch.from_numpy(arrays["y"]).long()
        _load(net, {name: arrays[name] for name in arrays if "/" in name})
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    losses = []

    def step():
        optimizer.zero_grad()
        reset(net)
        loss = F.cross_entropy(net(x).mean(0), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    about = {"parameters": sum(p.numel() for p in net.parameters())}
    return Program([step], lambda: {"losses": np.array(losses)}, about)


def _namespace(model):
    return types.SimpleNamespace(**model | {"neuron": types.SimpleNamespace(**model["neuron"])})


def _network(model, node):
    """The reference network with the library's neuron in it."""

    class Neuron(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            self.node = node(c.decay, c.threshold, c.surrogate, c.surrogate_param, c.detach_reset)

        def forward(self, current):
            return self.node(current), None, None

    class Net(reference.NETWORKS[model.name]):
        neuron = Neuron

    net = Net(model)
    for layer in net.children():
        # The tensors that a reference layer stores for taps would count as the library's memory.
        layer.register_forward_hook(lambda layer, *_: layer.tensors.clear())
    return net


def _load(net, arrays):
    """Our parameters, by the name of their layer: kernels channels last, TEBN's p among the norm's."""
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
