"""Neuron, norms, layer and network of the PyTorch references.

Tensors are ``[T, N, C, H, W]``, and time is a plain loop.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.parity import cases


class Spike(torch.autograd.Function):
    """Heaviside function of ``u``, 1 at 0 if ``inclusive``, with the surrogate ``derivative(u)`` as its derivative."""

    @staticmethod
    def forward(ctx, u, derivative, inclusive):
        ctx.save_for_backward(derivative(u))
        return (u >= 0 if inclusive else u > 0).to(u)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


DERIVATIVES = {
    "triangle": lambda a: lambda u: (a - u.abs()).clamp(min=0) / a**2,
    "rectangle": lambda a: lambda u: (u.abs() < a / 2).to(u) / a,
    "sigmoid": lambda a: lambda u: a * torch.sigmoid(a * u) * (1 - torch.sigmoid(a * u)),
    "arctan": lambda a: lambda u: a / 2 / (1 + (torch.pi / 2 * a * u) ** 2),
}


class Neuron(nn.Module):
    """Leaky integrate-and-fire neuron with hard reset; with ``learn``, PLIF."""

    def __init__(self, config):
        super().__init__()
        self.config, self.derivative = config, DERIVATIVES[config.surrogate](config.surrogate_param)
        if config.learn == "layer":
            self.w = nn.Parameter(torch.zeros(()))

    def forward(self, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        v, spikes, before = torch.zeros_like(current[0]), [], []
        for x in current:
            if self.config.learn == "layer":
                v = v + (x - v) * torch.sigmoid(self.w)
            elif self.config.scale_input:
                v = v + (x - v) * (1 - self.config.decay)
            else:
                v = self.config.decay * v + x
            before.append(v)
            s = Spike.apply(v - self.config.threshold, self.derivative, self.config.at_threshold == "fire")
            v = v * (1 - (s.detach() if self.config.detach_reset else s))
            spikes.append(s)
        return torch.stack(spikes), v, torch.stack(before)


class Norm(nn.Module):
    """Batch norm over time and batch, tdBN, TEBN, or BNTT."""

    def __init__(self, kind, channels, steps, gain):
        super().__init__()
        self.kind, self.gain = kind, gain if kind == "tdbn" else 1.0
        if kind == "bntt":
            self.bn = nn.ModuleList(nn.BatchNorm2d(channels, eps=1e-4) for _ in range(steps))
            for bn in self.bn:
                bn.bias = None
        else:
            self.bn = nn.BatchNorm2d(channels)
        if kind == "tebn":
            self.p = nn.Parameter(torch.ones(steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "bntt":
            return torch.stack([bn(x_t) for bn, x_t in zip(self.bn, x, strict=True)])
        y = self.bn(x.flatten(0, 1)).view(x.shape)
        if self.kind == "tebn":
            return y * self.p.view(-1, 1, 1, 1, 1)
        if self.gain != 1:  # gamma (gain xhat) + beta
            beta = self.bn.bias.view(-1, 1, 1)
            y = self.gain * (y - beta) + beta
        return y


class Layer(nn.Module):
    """Convolution or dense product, norm and neuron, each optional; ``tensors`` holds what can be tapped."""

    def __init__(self, net, inputs, outputs, kernel=None, stride=1, bias=False, norm=True, spike=True, alpha=1.0):
        super().__init__()
        model = net.model
        if kernel:
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        elif inputs:
            self.dense = nn.Linear(inputs, outputs, bias=bias)
        if norm:
            self.norm = Norm(net.norm, outputs, model.time_steps, alpha * model.neuron.threshold)
        if spike:
            self.neuron = net.neuron(model.neuron)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tensors: dict[str, torch.Tensor] = {}
        if hasattr(self, "conv"):
            self.tensors["conv"] = x = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if hasattr(self, "dense"):
            self.tensors["dense"] = x = self.dense(x)
        if hasattr(self, "norm"):
            self.tensors["norm"] = x = self.norm(x)
        if hasattr(self, "neuron"):
            self.tensors["current"] = x
            x, self.tensors["membrane"], self.tensors["membrane_pre"] = self.neuron(x)
        return x


class Net(nn.Module):
    """A network of a config; ``build`` adds its layers."""

    norm = "batch"
    neuron: Callable[..., nn.Module] = Neuron

    def __init__(self, model):
        super().__init__()
        self.model, self.norm = model, model.norm or type(self).norm
        self.inputs = model.input_shape[-1]
        self.build()

    def build(self) -> None:
        """Add the layers."""
        raise NotImplementedError

    def wide(self, n: int) -> int:
        """A number of channels at this width."""
        return max(1, round((self.model.width or 1) * n))

    def add(self, name: str, inputs: int, outputs: int, *arguments: Any, **options: Any) -> int:
        """Add a layer, and return its number of outputs."""
        self.add_module(name, Layer(self, inputs, outputs, *arguments, **options))
        return outputs

    def shown(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat a static image over the time steps."""
        return x.expand(self.model.time_steps, *x.shape[1:]) if cases.is_static(self.model) else x


def pooled(x: torch.Tensor, pool: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Pool 2x2 at every time step."""
    return pool(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def flat(x: torch.Tensor) -> torch.Tensor:
    """Flatten with channels last, the order of this package's dense layers."""
    return x.permute(0, 1, 3, 4, 2).flatten(2)
