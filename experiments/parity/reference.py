"""PyTorch references of the networks, written from their definitions.

Modules have the names of this package's layers, so that weights can be transferred by name.
"""

import torch
from torch.nn import functional as F

from experiments.parity import reference_transformers
from experiments.parity.reference_layers import Net, flat, pooled
from experiments.parity.reference_resnets import (
    SEW,
    SEW34,
    SEW50,
    SEW101,
    SEW152,
    BNet,
    MaxResNet18,
    MSResNet,
    MSResNet34,
    ResNet19,
    ResNet19TEBN,
    Wide7B,
)


class VGG(Net):
    """CNN6, CNN7, VGG9 or VGGSNN.

    plan: ``(channels, stride, pooled after)`` of each convolution. hidden: units of each dense layer. votes: read-out
    units per class.
    """

    plan: tuple[tuple[int, int, bool], ...]
    hidden: tuple[int, ...] = ()
    votes = 1

    def build(self) -> None:
        c, size = self.inputs, self.model.input_shape[0]
        for i, (out, stride, pool) in enumerate(self.plan, start=1):
            c = self.add(f"conv{i}", c, self.wide(out), 3, stride, bias=True)
            size = (size - 1) // stride + 1
            size = size // 2 if pool else size
        c *= size**2
        for i, out in enumerate(self.hidden, start=1):
            c = self.add(f"fc{i}", c, self.wide(out), bias=True, norm=False, spike=False)
        self.add("readout", c, self.model.classes * self.votes, bias=True, norm=False, spike=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shown(x)
        for i, (_, _, pool) in enumerate(self.plan, start=1):
            x = getattr(self, f"conv{i}")(x)
            x = pooled(x, F.avg_pool2d) if pool else x
        x = flat(x)
        for i in range(1, len(self.hidden) + 1):
            x = getattr(self, f"fc{i}")(x)
        x = self.readout(x)
        return F.avg_pool1d(x, self.votes, self.votes) if self.votes > 1 else x


class CNN6(VGG):
    norm, hidden, plan = "tebn", (512,), ((128, 1, True),) * 4


class CNN7(VGG):
    norm, hidden = "tebn", (1024,)
    plan = ((64, 1, True), (128, 1, False), (128, 1, True), (128, 1, True), (256, 1, False), (256, 1, True))


class VGG9(VGG):
    norm, votes, hidden = "tebn", 10, (1024,)
    plan = tuple((c, 1, i in (1, 3, 6)) for i, c in enumerate((64, 64, 128, 128, 256, 256, 256)))


class VGGSNN(VGG):
    plan = tuple((c, 1, i % 2 == 1) for i, c in enumerate((64, 128, 256, 256, 512, 512, 512, 512)))


class VGGSNNwoAP(VGG):
    plan = tuple((c, 1 + i % 2, False) for i, c in enumerate((64, 128, 256, 256, 512, 512, 512, 512)))


class PLIFNet(Net):
    """Networks of the PLIF paper; ``plan`` has the channels of each convolution and whether pooling follows."""

    plan: tuple[tuple[int, bool], ...] = ((128, True), (128, True))
    hidden = 2048

    def build(self) -> None:
        c, size = self.inputs, self.model.input_shape[0]
        for i, (out, pool) in enumerate(self.plan, start=1):
            c, size = self.add(f"conv{i}", c, self.wide(out), 3, spike=i > 1), size // 2 if pool else size
        self.add("conv1_spike", 0, 0, norm=False)
        c = self.add("fc1", c * size**2, self.wide(self.hidden), norm=False, spike=False)
        self.add("fc1_spike", 0, 0, norm=False)
        self.add("readout", c, self.model.classes * 10, norm=False, spike=False)
        self.add("readout_spike", 0, 0, norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1_spike(self.shown(self.conv1(x)))  # a static image passes the first norm once
        for i, (_, pool) in enumerate(self.plan, start=1):
            x = getattr(self, f"conv{i}")(x) if i > 1 else x
            x = pooled(x, F.max_pool2d) if pool else x
        return F.avg_pool1d(self.readout_spike(self.readout(self.fc1_spike(self.fc1(flat(x))))), 10, 10)


class PLIFCifar10(PLIFNet):
    plan = tuple((256, i % 3 == 2) for i in range(6))


class PLIFCifar10DVS(PLIFNet):
    plan, hidden = ((128, True),) * 4, 512


class PLIFGesture(PLIFNet):
    plan, hidden = ((128, True),) * 5, 512


NETWORKS = {
    "cnn6": CNN6, "cnn7": CNN7, "vgg9": VGG9, "vggsnn": VGGSNN, "vggsnn_wo_ap": VGGSNNwoAP, "resnet19_tet": ResNet19,
    "resnet19_tebn": ResNet19TEBN, "sew_resnet18": SEW, "sew_resnet34": SEW34, "sew_resnet50": SEW50, "sew_7b": BNet,
    "sew_wide_7b": Wide7B, "sew_resnet101": SEW101, "sew_resnet152": SEW152, "ms_resnet18": MSResNet,
    "ms_resnet34": MSResNet34, "max_resnet18": MaxResNet18, "plif_mnist": PLIFNet, "plif_cifar10": PLIFCifar10,
    "plif_cifar10_dvs": PLIFCifar10DVS, "plif_dvs_gesture": PLIFGesture,
}  # fmt: skip
NETWORKS |= reference_transformers.NETWORKS
