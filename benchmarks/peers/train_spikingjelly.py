"""Train the network of benchmarks.time_to_accuracy in SpikingJelly.

    python -m benchmarks.peers.train_spikingjelly CONFIG.json DATA.npz SEED

CONFIG.json is a config of this package (``small_conv``, max or average pooling, AdamW); DATA.npz has the uint8 images
``train_x [N, H, W, C]``, ``validation_x`` and the labels ``train_y``, ``validation_y``. After each epoch it prints a
line of JSON: ``{"epoch", "accuracy"}`` of the validation split.

Of what makes SpikingJelly fast on a CPU, this is used: multi-step mode; the first convolution and norm once per image,
as their input is the same at all time steps; whole batches of uint8 images augmented by indexing, without worker
processes; the fused AdamW; no transfer to Python within an epoch. It runs eagerly, without ``torch.compile``.
"""

import itertools
import json
import math
import os
import sys
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.in_spikingjelly import node

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # as data.normalise "standard"
PADDING = 4


class Net(nn.Module):
    """``small_conv`` of csbp_jax/models/basic.py, from ``[B, C, H, W]`` to logits averaged over time ``[B, classes]``.

    The weights have the same initial distributions.
    """

    def __init__(self, model: dict[str, Any]):
        super().__init__()
        neuron = model["neuron"]
        features, channels = model["features"], (model["input_shape"][2], *model["features"])
        self.time_steps, side = model["time_steps"], model["input_shape"][0]
        pool = {"max": layer.MaxPool2d, "average": layer.AvgPool2d}[model["pool"] or "average"]
        self.first = nn.Sequential(_convolution(nn, channels[0], channels[1]), nn.BatchNorm2d(channels[1]))
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(channels)):
            if i:
                layers += [_convolution(layer, fan_in, fan_out), layer.BatchNorm2d(fan_out)]
            layers.append(node(neuron["decay"], neuron["threshold"], neuron["surrogate"], neuron["surrogate_param"]))
            if i < len(features) - 1 and side % 2 == 0:
                layers.append(pool(2))
                side //= 2
        self.rest = nn.Sequential(*layers)
        self.readout = nn.Linear(features[-1] * side * side, model["classes"])
        functional.set_step_mode(self.rest, "m")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _truncated_normal(module.weight, 2 / module.weight[0].numel())
        _truncated_normal(self.readout.weight, 1 / self.readout.in_features)
        nn.init.zeros_(self.readout.bias)

    def forward(self, x: Tensor) -> Tensor:
        current = self.first(x)
        spikes = self.rest(current.expand(self.time_steps, *current.shape))
        logits: Tensor = self.readout(spikes.flatten(2).mean(0))  # linear: the mean of the logits of each time step
        return logits


def _convolution(package: Any, fan_in: int, fan_out: int) -> nn.Module:
    made: nn.Module = package.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
    return made


def _truncated_normal(weight: Tensor, variance: float) -> None:
    """Draw from a normal distribution cut off at two deviations, with this variance after the cut, as Flax does."""
    deviation = math.sqrt(variance) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def normalised(x: Tensor) -> Tensor:
    """uint8 images ``[B, H, W, C]`` as float32 ``[B, C, H, W]`` in channels-last memory."""
    scale, shift = 1 / (255 * torch.tensor(DEVIATION)), torch.tensor(MEAN) / torch.tensor(DEVIATION)
    return (x * scale - shift).permute(0, 3, 1, 2)


def augmented(x: Tensor, names: list[str]) -> Tensor:
    """Crop at random from images padded by zeros, and mirror half of them."""
    batch, height, width, _ = x.shape
    rows = torch.arange(height).expand(batch, height)
    columns = torch.arange(width).expand(batch, width)
    if "flip" in names:
        columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
    if "crop" in names:
        x = F.pad(x, (0, 0, PADDING, PADDING, PADDING, PADDING))
        top, left = torch.randint(0, 2 * PADDING + 1, (2, batch, 1))
        rows, columns = rows + top, columns + left
    return x[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def rate(step: int, total: int, warmup: int) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def accuracy(net: Net, x: Tensor, y: Tensor, batch: int) -> float:
    correct = 0
    net.eval()
    with torch.no_grad():
        for images, labels in zip(x.split(batch), y.split(batch), strict=True):
            functional.reset_net(net)
            correct += int((net(normalised(images)).argmax(1) == labels).sum())
    net.train()
    return correct / len(y)


def main() -> None:
    # Importing in_spikingjelly, which is for timing on one core, leaves torch with one thread.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config_file, data_file, seed, how = sys.argv[1:]
    with open(config_file) as file:
        config = json.load(file)
    with np.load(data_file) as arrays:
        x, y, validation_x, validation_y = (
            torch.from_numpy(arrays[name]) for name in ("train_x", "train_y", "validation_x", "validation_y")
        )
    torch.manual_seed(int(seed))
    net, optimiser = Net(config["model"]), config["optimizer"]
    net = net.to(memory_format=torch.channels_last)
    called = torch.compile(net) if how == "compiled" else net
    size, steps = config["batch_size"], len(x) // config["batch_size"]
    total, warmup = config["epochs"] * steps, optimiser["warmup_epochs"] * steps
    update = torch.optim.AdamW(net.parameters(), optimiser["lr"], weight_decay=optimiser["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(update, lambda step: rate(step, total, warmup))
    for epoch in range(1, config["epochs"] + 1):
        for chosen in torch.randperm(len(x))[: steps * size].split(size):
            images = normalised(augmented(x[chosen], config["data"]["augment"]))
            update.zero_grad()
            functional.reset_net(net)
            F.cross_entropy(called(images), y[chosen], label_smoothing=config["loss"]["smoothing"]).backward()
            update.step()
            schedule.step()
        line = {"epoch": epoch, "accuracy": accuracy(called, validation_x, validation_y, config["eval_batch_size"])}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
