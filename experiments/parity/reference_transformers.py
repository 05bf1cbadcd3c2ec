"""PyTorch references of the spiking transformers: Spikformer, Spike-driven Transformer, QKFormer.

Tokens are ``[T, N, L, C]``, and attention is written out head by head, in the order in which the articles define it.
"""

import dataclasses

import torch
from torch.nn import functional as F

from experiments.parity.reference_layers import Layer, Net


class TokenLayer(Layer):
    """Dense product, norm and neuron of tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.dense(x)
        self.tensors: dict[str, torch.Tensor] = {"dense": h}
        # As an image of one column, since norms have channels before space.
        current = self.norm(h.transpose(2, 3).contiguous()[..., None])[..., 0].transpose(2, 3)
        self.tensors["norm"] = current
        if not hasattr(self, "neuron"):
            return current
        spikes, self.tensors["membrane"], self.tensors["membrane_pre"] = self.neuron(current)
        return spikes


class Transformer(Net):
    """What the three have in common."""

    embed, depth, heads, patch, ratio, scale = 384, 4, 8, 4, 4, 0.125
    qkv_bias = False

    def build(self) -> None:
        for name in ("embed", "depth", "heads", "patch"):
            setattr(self, name, getattr(self.model, name) or getattr(self, name))
        self.build_patches()
        self.build_blocks()
        self.add("readout", self.embed, self.model.classes, bias=True, norm=False, spike=False)

    def build_patches(self) -> None:
        raise NotImplementedError

    def build_blocks(self) -> None:
        raise NotImplementedError

    def add_tokens(self, name: str, inputs: int, outputs: int, bias: bool, spike: bool = True) -> None:
        """Add a layer of tokens."""
        self.add_module(name, TokenLayer(self, inputs, outputs, bias=bias, spike=spike))

    def add_spike(self, name: str, threshold: float = 1.0) -> None:
        """Add neurons alone, with a factor of their threshold."""
        layer = Layer(self, 0, 0, norm=False)
        config = self.model.neuron
        layer.neuron = self.neuron(dataclasses.replace(config, threshold=threshold * config.threshold))
        self.add_module(name, layer)

    def add_block(self, name: str, c: int, parts: str, currents: bool = False) -> None:
        """Add the layers of a block; with ``currents``, its branches end without neurons."""
        for part in parts:
            self.add_tokens(f"{name}_{part}", c, c, self.qkv_bias)
        self.add_spike(f"{name}_attention", 0.5)
        self.add_tokens(f"{name}_proj", c, c, True, not currents)
        self.add_tokens(f"{name}_mlp1", c, self.ratio * c, True)
        self.add_tokens(f"{name}_mlp2", self.ratio * c, c, True, not currents)

    def call(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Call a layer."""
        return getattr(self, name)(x)

    def mlp(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.call(f"{name}_mlp2", self.call(f"{name}_mlp1", x))

    def self_attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Spiking self-attention: ``(q k^T) v``, scaled."""
        heads = [self.call(f"{name}_{part}", x).chunk(self.heads, -1) for part in "qkv"]
        out = torch.cat([(q @ k.transpose(-1, -2)) @ v * self.scale for q, k, v in zip(*heads, strict=True)], -1)
        return self.call(f"{name}_proj", self.call(f"{name}_attention", out))


def halved(x: torch.Tensor) -> torch.Tensor:
    """Apply 3x3 max pooling of stride 2 at every time step."""
    return F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2])


def tokens(x: torch.Tensor) -> torch.Tensor:
    """Images ``[T, N, C, H, W]`` as ``[T, N, L, C]``."""
    return x.flatten(3).transpose(2, 3)


class Spikformer(Transformer):
    heads, qkv_bias = 12, True

    def build_patches(self) -> None:
        c = self.inputs
        for i, divisor in enumerate((8, 4, 2, 1), start=1):
            c = self.add(f"stem{i}", c, self.embed // divisor, 3)
        self.add("position", c, c, 3)

    def build_blocks(self) -> None:
        for block in range(1, self.depth + 1):
            self.add_block(f"block{block}", self.embed, "qkv")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, size = self.shown(x), self.model.input_shape[0]
        for i in range(1, 5):
            x = self.call(f"stem{i}", x)
            x = halved(x) if size // self.patch * 2 ** (4 - i) < x.shape[-1] else x
        x = tokens(x + self.call("position", x))
        for block in range(1, self.depth + 1):
            x = x + self.self_attention(f"block{block}", x)
            x = x + self.mlp(f"block{block}", x)
        return self.call("readout", x.mean(2))


class SpikformerImageNet(Spikformer):
    embed, depth, heads, patch, qkv_bias = 512, 8, 8, 16, False


class SpikformerDVS(SpikformerImageNet):
    embed, depth, heads, scale = 256, 2, 16, 0.25


class SpikeDriven(Transformer):
    embed, depth = 512, 2

    def build_patches(self) -> None:
        c = self.inputs
        for i, divisor in enumerate((8, 4, 2, 1), start=1):
            c = self.add(f"stem{i}", c, self.embed // divisor, 3, spike=i < 4)
        self.add_spike("stem4_spike")
        self.add("position", c, c, 3, spike=False)

    def build_blocks(self) -> None:
        for block in range(1, self.depth + 1):
            self.add_spike(f"block{block}_spike")
            self.add_spike(f"block{block}_mlp_spike")
            self.add_block(f"block{block}", self.embed, "qkv", currents=True)
        self.add_spike("head_spike")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, size = self.shown(x), self.model.input_shape[0]
        for i in range(1, 5):
            x = self.call(f"stem{i}", x)
            x = halved(x) if size // self.patch * 2 ** (4 - i) < x.shape[-1] else x
        x = tokens(x + self.call("position", self.call("stem4_spike", x)))
        for block in range(1, self.depth + 1):
            name = f"block{block}"
            s = self.call(f"{name}_spike", x)
            q, k, v = (self.call(f"{name}_{part}", s) for part in "qkv")
            mask = self.call(f"{name}_attention", (k * v).sum(2, keepdim=True))
            x = x + self.call(f"{name}_proj", q * mask)
            x = x + self.mlp(name, self.call(f"{name}_mlp_spike", x))
        return self.call("readout", self.call("head_spike", x.mean(2)))


class SpikeDrivenImageNet(SpikeDriven):
    depth, patch = 8, 16


class SpikeDrivenDVS(SpikeDriven):
    embed = 256


class QKFormer(Transformer):
    """The convolutions of the stem, and their pooling; the blocks of each stage; the convolution that is pooled."""

    stem: tuple[tuple[int, bool], ...] = ((2, False), (1, False))
    token_stages: tuple[int, ...] = (1, 1)
    branch, pooled = 1, 2

    def build_patches(self) -> None:
        self.blocks = [*self.token_stages, self.depth - sum(self.token_stages)]
        self.channels = [self.embed // 2**i for i in reversed(range(len(self.blocks)))]
        c, stride = self.inputs, 1
        for i, (divisor, pool) in enumerate(self.stem, start=1):
            c = self.add_conv(f"stem{i}", c, self.channels[0] // divisor, pool)
            if i == self.branch:
                branch = c
            else:
                stride *= 2 if pool and i > self.branch else 1
        self.add("stem_shortcut", branch, c, 1, stride)
        for stage, out in enumerate(self.channels[1:], start=2):
            self.add_conv(f"patch{stage}_conv1", c, out, self.pooled == 1)
            self.add_conv(f"patch{stage}_conv2", out, out, self.pooled == 2)
            self.add(f"patch{stage}_shortcut", c, out, 1, 2)
            c = out

    def build_blocks(self) -> None:
        for stage, (blocks, c) in enumerate(zip(self.blocks, self.channels, strict=True), start=1):
            for block in range(1, blocks + 1):
                self.add_block(f"stage{stage}_block{block}", c, "qkv" if stage == len(self.blocks) else "qk")

    def add_conv(self, name: str, inputs: int, outputs: int, pool: bool) -> int:
        self.add(name, inputs, outputs, 3, spike=not pool)
        if pool:
            self.add_spike(f"{name}_spike")
        return outputs

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = self.call(name, x)
        return self.call(f"{name}_spike", halved(x)) if hasattr(self, f"{name}_spike") else x

    def token_attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        q, k = (self.call(f"{name}_{part}", x).chunk(self.heads, -1) for part in "qk")
        fired = self.call(f"{name}_attention", torch.stack([head.sum(-1) for head in q], -1))
        masked = [fired[..., [i]] * head for i, head in enumerate(k)]
        return self.call(f"{name}_proj", torch.cat(masked, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shown(x)
        for i in range(1, len(self.stem) + 1):
            x = self.conv(f"stem{i}", x)
            if i == self.branch:
                branch = x
        x = x + self.call("stem_shortcut", branch)
        for stage, blocks in enumerate(self.blocks, start=1):
            if stage > 1:
                y = self.conv(f"patch{stage}_conv2", self.conv(f"patch{stage}_conv1", x))
                x = y + self.call(f"patch{stage}_shortcut", x)
            size = x.shape[3:]
            x = tokens(x)
            attention = self.self_attention if stage == len(self.blocks) else self.token_attention
            for block in range(1, blocks + 1):
                x = x + attention(f"stage{stage}_block{block}", x)
                x = x + self.mlp(f"stage{stage}_block{block}", x)
            x = x.transpose(2, 3).unflatten(3, size)
        return self.call("readout", x.mean((3, 4)))


class QKFormerImageNet(QKFormer):
    embed, depth, stem, token_stages, pooled = 512, 10, ((2, True), (1, True), (1, False)), (1, 2), 1


class QKFormerDVS(QKFormer):
    embed, depth, heads, ratio, branch, token_stages = 256, 2, 16, 1, 2, (1,)
    stem = ((8, False), (4, True), (2, True), (1, True))


NETWORKS: dict[str, type[Net]] = {
    "spikformer_cifar": Spikformer, "spikformer_imagenet": SpikformerImageNet, "spikformer_dvs": SpikformerDVS,
    "qkformer_cifar": QKFormer, "qkformer_imagenet": QKFormerImageNet, "qkformer_dvs": QKFormerDVS,
    "sdt_cifar": SpikeDriven, "sdt_imagenet": SpikeDrivenImageNet, "sdt_dvs": SpikeDrivenDVS,
}  # fmt: skip
