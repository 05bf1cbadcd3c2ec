"""Make ``tests/data/operations.npz``: synaptic operations of a small spiking network, counted by NeuroBench itself.

    pip install torch snntorch neurobench && python tools/make_operations_reference.py

``x`` is ``[B, T, H, W, C]``, counts of events; ``conv1``, ``conv2`` and ``readout`` are kernels as Flax has them, some
entries of which are 0. The network: two times a 3x3 convolution and LIF (decay 0.25, threshold 1, hard reset), 2x2
average pooling between them, then dense. ``effective_macs``, ``effective_acs`` and ``dense``, ``[B]``, are what
``neurobench.metrics.workload.SynapticOperations`` counts for each example; ``version`` is NeuroBench's.
"""

import pathlib
from importlib import metadata
from typing import Any

import numpy as np
import torch
from neurobench.metrics.workload.synaptic_operations import SynapticOperations
from neurobench.models.torch_model import TorchModel
from torch import nn


class LIF(nn.Module):
    def forward(self, current, membrane):
        membrane = 0.25 * membrane + current
        spikes = (membrane > 1).to(current.dtype)
        return spikes, (1 - spikes) * membrane


class Network(nn.Module):
    def __init__(self, conv1, conv2, readout):
        super().__init__()
        self.conv1 = nn.Conv2d(*conv1.shape[2:], 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(*conv2.shape[2:], 3, padding=1, bias=False)
        self.readout = nn.Linear(*readout.shape, bias=False)
        self.lif = LIF()
        with torch.no_grad():
            for layer, kernel in ((self.conv1, conv1), (self.conv2, conv2)):
                layer.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
            self.readout.weight.copy_(torch.from_numpy(readout).T)

    def forward(self, x):
        """``[B, T, C, H, W]``."""
        first = second = torch.zeros(())
        logits = []
        for frame in x.unbind(1):
            spikes, first = self.lif(self.conv1(frame), first)
            spikes, second = self.lif(self.conv2(nn.functional.avg_pool2d(spikes, 2)), second)
            logits.append(self.readout(spikes.permute(0, 2, 3, 1).flatten(1)))
        return torch.stack(logits, 1)


def counts(network: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    """Operations of each example separately, since NeuroBench classifies a whole batch as spiking or not."""
    model = TorchModel(network)
    rows = []
    for example in torch.from_numpy(x).permute(0, 1, 4, 2, 3).split(1):
        model.register_hooks()
        with torch.no_grad():
            predicted = model(example)
        rows.append(SynapticOperations()(model, predicted, (example, None)))
        model.cleanup_hooks()
    return {key.lower(): np.array([row[key] for row in rows]) for key in rows[0]}


random = np.random.default_rng(0)
shapes = {"conv1": (3, 3, 2, 6), "conv2": (3, 3, 6, 5), "readout": (4 * 3 * 5, 3)}
kernels: dict[str, Any] = {
    name: np.round(2 * random.normal(size=shape)).astype(np.float32) / 4 for name, shape in shapes.items()
}
x = random.poisson(0.3, (5, 4, 8, 6, 2)).astype(np.float32)
# Some frames hold single events only, which are spikes.
x[:, 1] = np.minimum(x[:, 1], 1)
counted: dict[str, Any] = counts(Network(**kernels), x)
np.savez_compressed(
    pathlib.Path(__file__).parent.parent / "tests" / "data" / "operations.npz",
    version=metadata.version("neurobench"),
    x=x,
    **kernels,
    **counted,
)
print(counted)
