"""PyTorch references of the residual networks: ResNet-19, SEW-ResNets, 7B-Nets."""

import torch
from torch.nn import functional as F

from experiments.parity.reference_layers import Net, flat, pooled


class ResNet19(Net):
    """TET's ResNet-19; TEBN's differs in the stem's channels, the biases, the norm on the identity, and the head."""

    stem_channels, bias, identity_norm = 64, False, False

    def build(self) -> None:
        c = self.add("stem", self.inputs, self.wide(self.stem_channels), 3, bias=self.bias)
        self.names = []
        for stage, (channels, blocks) in enumerate(((128, 3), (256, 3), (512, 2)), start=1):
            for block in range(1, blocks + 1):
                name, out, stride = f"stage{stage}_block{block}", self.wide(channels), 1 + (stage > 1 and block == 1)
                current = {"bias": self.bias, "spike": False, "alpha": 0.5**0.5}
                self.add(f"{name}_conv1", c, out, 3, stride, bias=self.bias)
                self.add(f"{name}_conv2", out, out, 3, **current)
                if c != out or stride == 2:
                    self.add(f"{name}_shortcut", c, out, 1, stride, **current)
                elif self.identity_norm:
                    self.add(f"{name}_shortcut", 0, out, spike=False, alpha=0.5**0.5)
                self.add(name, 0, 0, norm=False)
                self.names.append(name)
                c = out
        self.build_head(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.shown(x))
        for name in self.names:
            y = getattr(self, f"{name}_conv2")(getattr(self, f"{name}_conv1")(x))
            shortcut = getattr(self, f"{name}_shortcut")(x) if hasattr(self, f"{name}_shortcut") else x
            x = getattr(self, name)(y + shortcut)
        return self.head(x)

    def build_head(self, c: int) -> None:
        c = self.add("fc1", c, self.wide(256), bias=True, norm=False, spike=False)
        self.add("fc1_spike", 0, 0, norm=False)
        self.add("readout", c, self.model.classes, bias=True, norm=False, spike=False)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.fc1_spike(self.fc1(x.mean((3, 4)))))


class ResNet19TEBN(ResNet19):
    norm, stem_channels, bias, identity_norm = "tebn", 128, True, True

    def build_head(self, c: int) -> None:
        c = self.add(
            "fc1", c * (self.model.input_shape[0] // 8) ** 2, self.wide(256), bias=True, norm=False, spike=False
        )
        self.add("readout", c, self.model.classes, bias=True, norm=False, spike=False)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.fc1(flat(pooled(x, F.avg_pool2d))))


CONNECT = {"add": lambda y, x: y + x, "and": lambda y, x: y * x, "iand": lambda y, x: x * (1 - y)}


class SEW(Net):
    """SEW-ResNet: basic or bottleneck blocks in four stages."""

    blocks, bottleneck = (2, 2, 2, 2), False

    def build(self) -> None:
        c = self.add("stem", self.inputs, self.wide(64), 7, 2, spike=False)
        self.add("stem_spike", 0, 0, norm=False)
        self.names = []
        for stage, blocks in enumerate(self.blocks, start=1):
            for block in range(1, blocks + 1):
                name, width, stride = (
                    f"stage{stage}_block{block}",
                    self.wide(32 * 2**stage),
                    1 + (stage > 1 and block == 1),
                )
                plan: tuple[tuple[int, int, int], ...] = ((width, 3, stride), (width, 3, 1))
                if self.bottleneck:
                    plan = ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))
                inputs = c
                for i, (out, kernel, s) in enumerate(plan, start=1):
                    inputs = self.add(f"{name}_conv{i}", inputs, out, kernel, s)
                if c != inputs or stride == 2:
                    self.add(f"{name}_shortcut", c, inputs, 1, stride)
                c = inputs
                self.names.append((name, len(plan)))
        self.add("readout", c, self.model.classes, bias=True, norm=False, spike=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As in the original, convolution and norm see an image once; TEBN needs it at each time step.
        x = self.stem(self.shown(x)) if self.norm == "tebn" else self.shown(self.stem(x))
        x = self.stem_spike(x)
        x = F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2])
        for name, depth in self.names:
            y = x
            for i in range(1, depth + 1):
                y = getattr(self, f"{name}_conv{i}")(y)
            shortcut = getattr(self, f"{name}_shortcut")(x) if hasattr(self, f"{name}_shortcut") else x
            x = CONNECT[self.model.connect or "add"](y, shortcut)
        return self.readout(x.mean((3, 4)))


class SEW34(SEW):
    blocks = (3, 4, 6, 3)


class SEW50(SEW34):
    bottleneck = True


class SEW101(SEW50):
    blocks = (3, 4, 23, 3)


class SEW152(SEW50):
    blocks = (3, 8, 36, 3)


class MSResNet(Net):
    """MS-ResNet: each block adds the current of ``spike-conv-norm-spike-conv-norm`` to its input."""

    stages: tuple[tuple[int, int, int], ...] = ((64, 2, 2), (128, 2, 2), (256, 2, 2), (512, 2, 2))
    stem_kernel, stem_stride, pooled = 7, 2, False

    def build(self) -> None:
        c = self.add("stem", self.inputs, self.wide(64), self.stem_kernel, self.stem_stride, spike=False)
        self.plan = []
        for stage, (channels, blocks, first_stride) in enumerate(self.stages, start=1):
            for block in range(1, blocks + 1):
                name, out, stride = f"stage{stage}_block{block}", self.wide(channels), first_stride if block == 1 else 1
                self.add(f"{name}_spike1", 0, 0, norm=False)
                self.add(f"{name}_conv1", c, out, 3, 1 if self.pooled else stride, spike=False)
                self.add(f"{name}_spike2", 0, 0, norm=False)
                self.add(f"{name}_conv2", out, out, 3, spike=False)
                if c != out or stride == 2:
                    self.add(f"{name}_shortcut", c, out, 1, stride, spike=False)
                self.plan.append((name, self.pooled and stride == 2))
                c = out
        self.add("last_spike", 0, 0, norm=False)
        self.add("readout", c, self.model.classes, bias=True, norm=False, spike=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.shown(x))
        for name, halved in self.plan:
            y = getattr(self, f"{name}_conv1")(getattr(self, f"{name}_spike1")(x))
            y = F.max_pool2d(y.flatten(0, 1), 3, 2, 1).unflatten(0, y.shape[:2]) if halved else y
            y = getattr(self, f"{name}_conv2")(getattr(self, f"{name}_spike2")(y))
            x = y + (getattr(self, f"{name}_shortcut")(x) if hasattr(self, f"{name}_shortcut") else x)
        return self.readout(self.last_spike(x).mean((3, 4)))


class MSResNet34(MSResNet):
    stages = ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class MaxResNet18(MSResNet):
    stages = ((128, 3, 1), (256, 3, 2), (512, 2, 2))
    stem_kernel, stem_stride, pooled = 3, 1, True


class BNet(Net):
    """7B-Net: blocks of two convolutions, each followed by max pooling."""

    channels: tuple[int, ...] = (32,) * 7

    def build(self) -> None:
        c, size = self.inputs, self.model.input_shape[0]
        for i, out in enumerate(map(self.wide, self.channels), start=1):
            if c != out:
                c = self.add(f"conv{i}", c, out, 1)
            self.add(f"block{i}_conv1", c, c, 3)
            self.add(f"block{i}_conv2", c, c, 3)
            size //= 2
        self.add("readout", c * size**2, self.model.classes, bias=True, norm=False, spike=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, 8):
            x = getattr(self, f"conv{i}")(x) if hasattr(self, f"conv{i}") else x
            y = getattr(self, f"block{i}_conv2")(getattr(self, f"block{i}_conv1")(x))
            x = pooled(CONNECT[self.model.connect or "add"](y, x), F.max_pool2d)
        return self.readout(flat(x))


class Wide7B(BNet):
    channels = (64, 64, 64, 64, 128, 128, 128)
