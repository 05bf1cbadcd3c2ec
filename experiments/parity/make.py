"""Run the PyTorch references and write their results: ``python -m experiments.parity.make [CASE ...]``."""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from csbp_jax.config import Chaos, Config, Loss, Model
from experiments.parity import cases, reference

FOLDER = pathlib.Path("tests/data")
NAMES = {"running_mean": "mean", "running_var": "var", "weight": "scale"}


Tensors = dict[str, list[torch.Tensor]]


def load(net: nn.Module) -> Tensors:
    """Draw all weights and statistics; return the running statistics under this package's paths."""
    statistics: Tensors = {}
    grouped: Tensors = {}
    for key, tensor in net.state_dict(keep_vars=True).items():
        if key.endswith("num_batches_tracked"):
            continue
        path, step = path_of(key)
        if step is None:
            put(tensor, path, cases.draw(path, layout(tensor)))
        else:
            grouped.setdefault(path, []).append(tensor)
        if path.endswith(("mean", "var")):
            statistics.setdefault(path, []).append(tensor)
    for path, tensors in grouped.items():  # batch norms of each time step
        for tensor, row in zip(tensors, cases.draw(path, (len(tensors), *tensors[0].shape)), strict=True):
            put(tensor, path, row)
    return statistics


def path_of(key: str) -> tuple[str, int | None]:
    """This package's path of a tensor of the reference, and the time step of a batch norm that is one step's alone."""
    *layer, last = key.split(".")
    layer = [part for part in layer if part != "bn"]
    step = int(layer.pop()) if layer[-1].isdigit() else None
    return "/".join([*layer, "kernel" if last == "weight" and layer[-1] != "norm" else NAMES.get(last, last)]), step


def layout(tensor: torch.Tensor) -> tuple[int, ...]:
    """Shape in this package: kernels are ``[height, width, inputs, outputs]`` or ``[inputs, outputs]``."""
    return tuple(tensor.shape[i] for i in (2, 3, 1, 0)) if tensor.ndim == 4 else tuple(reversed(tensor.shape))


def put(tensor: torch.Tensor, path: str, values: np.ndarray) -> None:
    """Copy values in this package's layout into a tensor."""
    if values.ndim == 4:
        values = values.transpose(3, 2, 0, 1)
    elif path.endswith("kernel"):
        values = values.T
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(values)))


def to_torch(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch with time first and channels before space."""
    return torch.from_numpy(batch["x"]).permute(1, 0, 4, 2, 3), torch.from_numpy(batch["y"])


def task_loss(logits: torch.Tensor, y: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Task loss of logits ``[T, B, C]``."""
    mean = logits.mean(0)
    if loss.name == "rate":
        return F.cross_entropy(mean, y)
    if loss.name == "mse":
        return F.mse_loss(mean, F.one_hot(y, mean.shape[-1]).to(mean))
    cross = sum(F.cross_entropy(o, y) for o in logits) / len(logits)
    return (1 - loss.lam) * cross + loss.lam * F.mse_loss(logits, torch.ones_like(logits))


def chaos_loss(net: nn.Module, chaos: Chaos, step: int) -> torch.Tensor:
    """Sum over the taps of z times the chaos term."""
    total = torch.zeros((), dtype=torch.float64)
    for tap, z0 in zip(chaos.taps, chaos.z0, strict=True):
        layer, _, kind = tap.partition(".")
        h = getattr(net, layer).tensors[kind]
        if chaos.cut:
            low, high = (torch.full_like(h, edge) for edge in chaos.cut)
            h = torch.where(h >= high, high, torch.where(h <= low, low, h))
        u = h / chaos.scale
        term = -(chaos.target * F.logsigmoid(u) + (1 - chaos.target) * F.logsigmoid(-u)).mean()
        total = total + z0 * chaos.beta**step * term
    return total


def run(config: Config) -> dict[str, Any]:
    """Logits, losses, gradient norms and running statistics of the reference's training steps."""
    torch.set_default_dtype(torch.float64)
    net = reference.NETWORKS[config.model.name](config.model)
    statistics = load(net)
    optimizer = torch.optim.SGD(
        net.parameters(), config.optimizer.lr, config.optimizer.momentum, weight_decay=config.optimizer.weight_decay
    )
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("task_loss", "chaos_loss", "grad_norm", "logits")}

    def evaluate():
        net.eval()
        with torch.no_grad():
            logits: np.ndarray = net(to_torch(cases.batch(config, cases.STEPS))[0]).transpose(0, 1).numpy()
        return logits

    before = evaluate()
    net.train()
    for step in range(cases.STEPS):
        x, y = to_torch(cases.batch(config, step))
        logits = net(x)
        task, chaos = task_loss(logits, y, config.loss), chaos_loss(net, config.chaos, step)
        optimizer.zero_grad()
        (task + chaos).backward()
        norm = sum((p.grad**2).sum() for p in net.parameters() if p.grad is not None) ** 0.5
        optimizer.step()
        for name, value in zip(rows, (task, chaos, norm, logits.transpose(0, 1)), strict=True):
            rows[name].append(value.detach().numpy())
    moved = {f"statistics/{path}": torch.stack(tensors).squeeze(0).numpy() for path, tensors in statistics.items()}
    return {"before": before, **{k: np.stack(v) for k, v in rows.items()}, "after": evaluate(), **moved}


def size(model: Model) -> dict[str, Any]:
    """Number of parameters and shape of logits ``[1, T, C]`` of a network at full size; nothing is computed."""
    with torch.device("meta"):
        net = reference.NETWORKS[model.name](model)
        steps = 1 if cases.is_static(model) else model.time_steps
        height, width, channels = model.input_shape
        logits = net(torch.zeros(steps, 1, channels, height, width)).transpose(0, 1)
    return {"parameters": sum(p.numel() for p in net.parameters()), "logits": list(logits.shape)}


def main(names: Sequence[str]) -> None:
    sizes = {name: size(model) for name, model in cases.ORIGINALS.items()}
    (FOLDER / "parity_sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    for name in names or cases.CASES:
        values = run(cases.CASES[name])
        np.savez_compressed(FOLDER / f"parity_{name}.npz", **values)
        print(name, *(f"{quantity} {values[quantity].round(3)}" for quantity in ("task_loss", "grad_norm")))


if __name__ == "__main__":
    main(sys.argv[1:])
