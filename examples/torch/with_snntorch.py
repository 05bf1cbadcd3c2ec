"""The chaos term in a network of snnTorch. ``python examples/torch/with_snntorch.py``"""

import csbp_torch
import digits
import snntorch
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """A hidden layer of spiking neurons; a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.lif, self.out = nn.Linear(64, 64), snntorch.Leaky(beta=0.5), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[T, B, 64]`` to logits ``[B, 10]``."""
        membrane, spikes = self.lif.init_leaky(), []
        for x_t in x:
            spike, membrane = self.lif(self.hidden(x_t), membrane)
            spikes.append(spike)
        return self.out(torch.stack(spikes).mean(0))


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    taps = csbp_torch.Taps(net, ["lif"], every_step=True)  # CSBP 1/3: the membranes of Leaky at all time steps
    for step, x, y in digits.batches("train", epochs):
        loss = F.cross_entropy(net(x), y)
        z = csbp_torch.strength(step, z0, beta=0.98)  # CSBP 2/3: the strength, annealed at each step
        loss += sum(z * csbp_torch.term(h, reduce="neuron") for h in taps.pop().values())  # CSBP 3/3: the loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return digits.accuracy(net)


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
