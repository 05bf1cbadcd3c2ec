"""The chaos term in a network of SpikingJelly. ``python examples/torch/with_spikingjelly.py``"""

import csbp_torch
import digits
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn import functional as F


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(64, 64), neuron.LIFNode(tau=2.0), layer.Linear(64, 10))
    functional.set_step_mode(net, "m")  # tensors are [T, B, features]
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    taps = csbp_torch.Taps(net, ["1"])  # CSBP 1/3: the membranes of LIFNode
    for step, x, y in digits.batches("train", epochs):
        loss = F.cross_entropy(net(x).mean(0), y)
        z = csbp_torch.strength(step, z0, beta=0.98)  # CSBP 2/3: the strength, annealed at each step
        loss += sum(z * csbp_torch.term(h, reduce="neuron") for h in taps.pop().values())  # CSBP 3/3: the loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
    return digits.accuracy(lambda x: net(x).mean(0))


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
