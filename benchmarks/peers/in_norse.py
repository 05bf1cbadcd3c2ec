"""norse's neuron ``lif_box``; it multiplies its input by 1 - decay, so the input is divided by that."""

from collections.abc import Sequence

import torch
from norse.torch.functional import lif_box

from benchmarks.peers import torch_neuron
from benchmarks.worker import Program

VERSIONS = torch_neuron.versions("norse")


def neuron(shape: Sequence[int], decay: float, mode: str | None = None) -> Program:
    parameters = lif_box.LIFBoxParameters(tau_mem_inv=torch.tensor((1 - decay) * 1000), method="triangle", alpha=1.0)

    def run(x):
        state, spikes = lif_box.LIFBoxFeedForwardState(v=torch.zeros_like(x[0])), []
        for current in x.unbind(0):
            spike, state = lif_box.lif_box_feed_forward_step(current, state, parameters)
            spikes.append(spike)
        return torch.stack(spikes)

    return torch_neuron.program(run, shape, 1 / (1 - decay), mode=mode)


PROGRAMS = {"neuron": neuron}
