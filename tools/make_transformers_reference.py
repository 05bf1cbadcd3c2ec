"""Make ``tests/data/peers_transformers.npz``: logits of the spiking transformers of SpikingJelly 2.0.0.

    pip install torch spikingjelly==2.0.0 && python -m tools.make_transformers_reference

Its QKFormer for ImageNet and its Spike-driven Transformer are written by others than this package's references. Weights
and images are those of the parity cases of these names (experiments/parity/cases.py): ``NAME`` holds the logits in
float64, averaged over time, ``[B, classes]``; ``version`` is SpikingJelly's. Biases that only one side has: where
SpikingJelly has one and this package none, it is 0; where it is the other way round, it is part of the norm's mean.
"""

import pathlib
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import torch
from spikingjelly.activation_based.model.qkformer import QKFormer
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
from torch import nn

from csbp_jax.config import Config
from experiments.parity import cases

SYNAPSES, NORMS = (nn.Conv2d, nn.Conv1d, nn.Linear), (nn.BatchNorm2d, nn.BatchNorm1d)


def block(name: str, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Layers of a block, in the order in which SpikingJelly registers them; some are one layer there."""
    return [
        *(tuple(f"{name}_{p}" for p in part) for part in parts),
        *((f"{name}_{p}",) for p in ("proj", "mlp1", "mlp2")),
    ]


def qkformer(config: Config) -> tuple[nn.Module, list[tuple[str, ...]]]:
    model = config.model
    assert model.embed and model.heads and model.depth
    depths = (1, 2, model.depth - 3)
    net = QKFormer(
        T=model.time_steps,
        num_classes=model.classes,
        embed_dims=model.embed,
        num_heads=(model.heads,) * 3,
        depths=depths,
    )
    layers: list[tuple[str, ...]] = [(f"stem{part}",) for part in ("1", "2", "3", "_shortcut")]
    layers += [(f"patch{i}_{part}",) for i in (2, 3) for part in ("conv1", "conv2", "shortcut")]
    for stage, blocks in enumerate(depths, start=1):
        for i in range(1, blocks + 1):
            layers += block(f"stage{stage}_block{i}", ("qkv",) if stage == 3 else ("qk",))
    return net, layers


def spike_driven(config: Config) -> tuple[nn.Module, list[tuple[str, ...]]]:
    model = config.model
    assert model.embed and model.depth
    net = SpikeDrivenTransformer(
        T=model.time_steps, num_classes=model.classes, embed_dims=model.embed, num_heads=3, depths=model.depth
    )
    layers: list[tuple[str, ...]] = [(layer,) for layer in ("stem1", "stem2", "stem3", "stem4", "position")]
    for i in range(1, model.depth + 1):
        layers += block(f"block{i}", ("q", "k", "v"))
    return net, layers


def pairs(net: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """Synapses and their norms, in the order of registration."""
    modules = [module for module in net.modules() if isinstance(module, (*SYNAPSES, *NORMS))]
    for synapse, after in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(synapse, SYNAPSES):
            yield synapse, after if isinstance(after, NORMS) else None


@torch.no_grad()
def fill(synapse: nn.Module, norm: nn.Module | None, layers: tuple[str, ...], has_bias: bool) -> None:
    """Draw the weights of layers, which are one layer here, one below the other."""

    def drawn(path: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([torch.from_numpy(cases.draw(f"{layer}/{path}", shape).T.copy()) for layer in layers])

    weight = synapse.weight
    outputs = (len(weight) // len(layers),)
    if (isinstance(synapse, nn.Conv2d) and synapse.kernel_size != (1, 1)) or "shortcut" in layers[0]:
        kernel = cases.draw(f"{layers[0]}/conv/kernel", (*weight.shape[2:], weight.shape[1], len(weight)))
        weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
    else:
        weight.copy_(drawn("dense/kernel", (weight.shape[1], *outputs)).reshape(weight.shape))
    bias = drawn("dense/bias", outputs) if has_bias else torch.zeros(len(weight))
    if synapse.bias is not None:
        synapse.bias.copy_(bias)
    if norm is not None:
        norm.weight.copy_(drawn("norm/scale", outputs))
        norm.bias.copy_(drawn("norm/bias", outputs))
        norm.running_var.copy_(drawn("norm/var", outputs))
        norm.running_mean.copy_(drawn("norm/mean", outputs) - (bias if synapse.bias is None else 0))


@torch.no_grad()
def logits(name: str) -> np.ndarray:
    """Logits in evaluation of a parity case."""
    config = cases.CASES[name]
    net, layers = (qkformer if name.startswith("qkformer") else spike_driven)(config)
    for (synapse, norm), layer in zip(pairs(net), [*layers, ("readout",)], strict=True):
        fill(synapse, norm, layer, layer[0].endswith(("proj", "mlp1", "mlp2", "readout")))
    x = torch.from_numpy(cases.batch(config, cases.STEPS)["x"])[:, 0].permute(0, 3, 1, 2)
    values: np.ndarray = net.eval()(x).numpy()
    return values


def main() -> None:
    torch.set_default_dtype(torch.float64)
    values = {name: logits(name) for name in ("qkformer_imagenet", "sdt_imagenet")}
    print({name: rows.round(3).tolist() for name, rows in values.items()})
    folder = pathlib.Path(__file__).parents[1] / "tests" / "data"
    np.savez_compressed(folder / "peers_transformers.npz", version=metadata.version("spikingjelly"), **values)


if __name__ == "__main__":
    main()
