"""Runs examples/torch/csbp_torch.py in an environment with PyTorch: ``python in_torch.py PART FOLDER``.

Reads ``PART.npz`` in the folder, where a part has inputs, and writes ``PART_torch.npz``.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "torch")]

import csbp_torch  # noqa: E402

TERMS = {"chaos": csbp_torch.term, "drift": csbp_torch.drift, "linear": csbp_torch.linear}


def terms(arrays):
    """Value and gradient of each term with each of the given options."""
    results: dict[str, Any] = {}
    for number, (name, target, scale, cut, reduce) in enumerate(json.loads(str(arrays["options"]))):
        h = torch.from_numpy(arrays["h"]).requires_grad_()
        value = TERMS[name](h, target, scale, cut=cut, reduce=reduce)
        value.backward()
        results |= {f"{number}/value": value.detach(), f"{number}/gradient": h.grad}
    return results


def strengths(_):
    """Annealed strengths, at each step and once in three."""
    rows = [[csbp_torch.strength(step, 15.0, 0.9, every) for step in range(9)] for every in (1, 3)]
    return {"z": torch.tensor(rows)}


def mpgd(arrays):
    """Numbers of MPGD for given uniform numbers: of two tensors, ``[N, 2, ...]`` each."""
    results: dict[str, Any] = {}
    for name in ("a", "b"):
        w, state, rows = torch.from_numpy(arrays[f"w_{name}"]), None, []
        for uniform in torch.from_numpy(arrays[f"uniform_{name}"]):
            numbers, state = csbp_torch.mpgd_numbers(w, state, uniform, 0.3, 0.6, 0.2)
            rows.append(numbers)
        results[name] = torch.stack(rows)
    return results


def forces(_):
    """What the forces add to gradients, and what they should, from a generator of the same seed."""
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    results: dict[str, Any] = {}
    sizes = [0.5, 2.0]

    def generator():
        return torch.Generator().manual_seed(7)

    weights[0].grad = torch.ones(3, 4)
    csbp_torch.add_noise(weights, sizes, generator())
    drawn = generator()
    for i, (w, size) in enumerate(zip(weights, sizes, strict=True)):
        expected = size * torch.randn(w.shape, generator=drawn) + (i == 0)
        results |= {f"noise {i}": w.grad, f"noise {i} expected": expected}
        w.grad = None

    force = csbp_torch.MPGD(weights, generator=generator())
    force.add(sizes)
    force.add(sizes)
    drawn, states, totals = generator(), [None, None], [0.0, 0.0]
    for _ in range(2):
        for i, w in enumerate(weights):
            uniform = torch.rand(2, *w.shape, generator=drawn)
            numbers, states[i] = csbp_torch.mpgd_numbers(w.detach(), states[i], uniform)
            totals[i] = totals[i] + sizes[i] * numbers
    for i, w in enumerate(weights):
        results |= {f"mpgd {i}": w.grad, f"mpgd {i} expected": totals[i]}

    h = (weights[0] * torch.arange(4.0)).sum(0)
    used, unused = csbp_torch.rms(3 * csbp_torch.term(h), weights)
    (push,) = torch.autograd.grad(3 * csbp_torch.term((weights[0] * torch.arange(4.0)).sum(0)), weights[:1])
    results |= {"rms": torch.tensor([used, unused]), "rms expected": torch.tensor([(push**2).mean() ** 0.5, 0.0])}
    return {name: value.detach() for name, value in results.items()}


def steps(_):
    """The training steps of the case cnn7_tebn, with the hook in the place of the reference's own tensors."""
    from experiments.parity import cases, make, reference

    config = cases.CASES["cnn7_tebn"]
    net = reference.NETWORKS[config.model.name](config.model)
    make.load(net)
    # The reference's neuron returns (spikes, last membrane, membranes before the reset).
    taps = csbp_torch.Taps(net, {"conv1.neuron": lambda _, output: output[1], "fc1.dense": lambda _, output: output})
    rule = config.optimizer
    optimizer = torch.optim.SGD(net.parameters(), rule.lr, rule.momentum, weight_decay=rule.weight_decay)
    losses = []
    for step in range(cases.STEPS):
        x, y = make.to_torch(cases.batch(config, step))
        task = make.task_loss(net(x), y, config.loss)
        chaos = torch.zeros(())
        for h, z0 in zip(taps.pop().values(), config.chaos.z0, strict=True):
            z = csbp_torch.strength(step, z0, config.chaos.beta)
            chaos = chaos + z * csbp_torch.term(h, config.chaos.target, config.chaos.scale, cut=config.chaos.cut)
        optimizer.zero_grad()
        (task + chaos).backward()
        optimizer.step()
        losses.append(torch.stack([task, chaos]).detach())
    results = {"losses": torch.stack(losses)}
    for key, p in net.named_parameters():
        path, _ = make.path_of(key)
        values = p.detach()
        if values.ndim == 4:
            values = values.permute(2, 3, 1, 0)
        elif path.endswith("kernel"):
            values = values.T
        results[f"weights/{path}"] = values
    return results


def membranes(_):
    """Membranes that the hook reads of LIF neurons, and what the equations give: in both libraries, in each way."""
    import snntorch
    from spikingjelly.activation_based import neuron

    current = torch.randn(5, 2, 3, requires_grad=True)  # [T, B, features]

    def expected(decay, scale_input, reset_next):
        v, after = torch.zeros(2, 3), []
        for x in current:
            if reset_next:  # snnTorch subtracts the threshold of the last spike
                v = decay * v + x - (v > 1).to(v)
            else:
                v = decay * v + (1 - decay if scale_input else 1) * x
                v = torch.where(v >= 1, 0.0, v)
            after.append(v)
        return torch.stack(after)

    results: dict[str, Any] = {}
    for every_step in (False, True):
        shown = slice(None) if every_step else -1
        for mode in ("m", "s"):
            net = nn.Sequential(neuron.LIFNode(tau=2.0, step_mode=mode))
            taps = csbp_torch.Taps(net, ["0"], every_step)
            if mode == "m":
                net(current)
            else:
                for x in current:
                    net(x)
            h = taps.pop()["0"]
            results[f"SpikingJelly {mode} {every_step}"] = h[0] if mode == "m" and every_step else h
            results[f"SpikingJelly {mode} {every_step} expected"] = expected(0.5, True, False)[shown]
        for hidden in (False, True):
            net = nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=hidden))
            taps = csbp_torch.Taps(net, ["0"], every_step)
            membrane = net[0].init_leaky()
            for x in current:
                if hidden:
                    net[0](x)
                else:
                    _, membrane = net[0](x, membrane)
            results[f"snnTorch {hidden} {every_step}"] = taps.pop()["0"]
            results[f"snnTorch {hidden} {every_step} expected"] = expected(0.5, False, True)[shown]
    return {name: value.detach() for name, value in results.items()}


def refusals(_):
    """The messages of what is refused."""
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Flatten())
    h = torch.ones(2, 3)

    def spiking():
        step = nn.Sequential(Step())
        taps = csbp_torch.Taps(step, ["0"])
        step(torch.tensor([-1.0, 1.0], requires_grad=True))
        taps.pop()

    def frozen():
        taps = csbp_torch.Taps(net, ["0"])
        net[0].requires_grad_(False)
        net(h)
        net[0].requires_grad_(True)
        taps.pop()

    def evaluated():
        taps = csbp_torch.Taps(net, ["0"])
        with torch.no_grad():
            net(h)
        taps.pop()

    wrong = {
        "no such module": lambda: csbp_torch.Taps(net, ["3"]),
        "spikes": spiking,
        "no gradient": frozen,
        "no_grad": evaluated,
        "target": lambda: csbp_torch.term(h, 1.0),
        "scale": lambda: csbp_torch.term(h, scale=0),
        "cut": lambda: csbp_torch.term(h, cut=(1, 1)),
        "reduce": lambda: csbp_torch.term(h, reduce="all"),
        "whole numbers": lambda: csbp_torch.term(torch.ones(2, dtype=torch.int64)),
        "beta": lambda: csbp_torch.strength(0, 1.0, 1.5),
        "gamma": lambda: csbp_torch.MPGD(net.parameters(), gamma=0.4),
    }
    messages = {}
    for name, call in wrong.items():
        try:
            call()
            messages[name] = "accepted"
        except (KeyError, TypeError, ValueError) as error:
            messages[name] = f"{type(error).__name__}: {error}"
    return messages


class Step(nn.Module):
    """A neuron that returns spikes alone."""

    def forward(self, x):
        return (x > 0).to(x) + 0 * x


PARTS = {part.__name__: part for part in (terms, strengths, mpgd, forces, steps, membranes, refusals)}


def main(part, folder):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    inputs = pathlib.Path(folder, f"{part}.npz")
    arrays = dict(np.load(inputs)) if inputs.exists() else {}
    results = PARTS[part](arrays)
    written: dict[str, Any] = {name: np.asarray(value) for name, value in results.items()}
    np.savez(pathlib.Path(folder, f"{part}_torch.npz"), **written)


if __name__ == "__main__":
    main(*sys.argv[1:])
