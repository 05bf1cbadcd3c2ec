"""Run the released PyTorch code, from clones of its repositories, and write its checkpoints and logits.

    python -m experiments.parity.released FOLDER

FOLDER holds ``sew``, ``tet``, ``tebn``, ``csbp`` and ``ms``, the model files of the repositories named in
csbp_jax/weights/names.py, in their original layout; the entries of those that it lacks stay as they are. Needs torch
and spikingjelly 0.0.0.0.14. In tests/data it writes

    released_keys.json    {network: {key: shape}} of every state dict at full size
    released/NAME.pth     checkpoints as the training scripts save them, of narrow nets with drawn weights
    released_logits.npz   their logits in float32, averaged over time, of the batch cases.batch(..., 0)
"""

import argparse
import contextlib
import functools
import importlib
import json
import math
import pathlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from spikingjelly.clock_driven import layer, neuron
from torch import nn

from csbp_jax.config import Config, Model
from experiments.parity import cases
from experiments.parity.make import FOLDER


@contextlib.contextmanager
def modules(folder: pathlib.Path) -> Iterator[Callable[[str], Any]]:
    """Import from a repository's folder, and remove its modules on exit: repositories share names like ``models``."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if not name.startswith(("torch", "spikingjelly", "numpy")):
                del sys.modules[name]


def released(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """``{name: function that builds the net}``: the names of cases.RELEASED, and the deeper nets for their keys."""
    nets: dict[str, Callable[[], nn.Module]] = {}
    for repositories, build in ((("csbp",), csbp), (("tebn",), tebn), (("tet", "sew"), tet_and_sew), (("ms",), ms)):
        if all((folder / repository).is_dir() for repository in repositories):
            nets |= build(folder)
    return nets


def csbp(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """CSBP's nets for DVS-CIFAR10."""
    with modules(folder / "csbp") as load:
        models = load("models")
    names = ("CNN6", "CNN6_chaos", "CNN7", "CNN7_chaos", "VGGSNN")
    return {f"csbp_{name.lower()}": getattr(models, name) for name in names}


def tebn(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """TEBN's nets."""
    with modules(folder / "tebn") as load:
        models = load("models")
    return {"tebn_vgg9": models.VGG9, "tebn_resnet19": lambda: tebn_resnet19(models)}


def tet_and_sew(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """TET's nets, and SEW's in two versions, of which TET has the older one's container."""
    nets: dict[str, Callable[[], nn.Module]] = {}
    with modules(folder / "tet") as load:
        vgg, resnet = load("models.VGG_models"), load("models.resnet_models")
        nets |= {"tet_vggsnn": vgg.VGGSNN, "tet_vggsnn_wo_ap": vgg.VGGSNNwoAP}
        nets["tet_resnet19"] = lambda: resnet.resnet19(num_classes=100)
        early = load("models.layers").SeqToANNContainer  # SpikingJelly's up to 0.0.0.0.6
    for name, build in sew(folder / "sew").items():
        nets |= {name: functools.partial(contained, build, early), f"{name}_new": build}
    return nets


def ms(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """MS-ResNet's nets, whose module is imported whenever one is built: its layers are subclasses, made narrow then."""

    def build(name: str) -> nn.Module:
        with modules(folder / "ms") as load:
            net: nn.Module = getattr(load("MS_ResNet"), name)()
        return net

    return {f"ms_{name}": functools.partial(build, name) for name in ("resnet18", "resnet34")}


def sew(folder: pathlib.Path) -> dict[str, Callable[[], nn.Module]]:
    """SEW's nets, on CPU neurons in place of the CUDA extension that they import."""
    extension: Any = types.ModuleType("spikingjelly.cext.neuron")
    extension.MultiStepIFNode = neuron.MultiStepIFNode
    extension.MultiStepParametricLIFNode = neuron.MultiStepParametricLIFNode
    package: Any = importlib.import_module("spikingjelly.cext")
    sys.modules["spikingjelly.cext.neuron"] = package.neuron = extension
    with modules(folder / "imagenet") as load:
        resnet = load("sew_resnet")
    nets: dict[str, Callable[[], nn.Module]] = {
        name: functools.partial(getattr(resnet, name), connect_f="ADD", T=4)
        for name in ("sew_resnet18", "sew_resnet34", "sew_resnet50", "sew_resnet101", "sew_resnet152")
    }
    for name, part in (("sew_7b", "dvsgesture"), ("sew_wide_7b", "cifar10dvs")):
        with modules(folder / part) as load:
            nets[name] = functools.partial(load("smodels").SEWResNet, "ADD")
    return nets


def contained(build: Callable[[], nn.Module], container: Any) -> nn.Module:
    """Build a net with ``container`` in place of the installed SpikingJelly's SeqToANNContainer."""
    with mock.patch.object(layer, "SeqToANNContainer", container):
        return build()


def tebn_resnet19(models: Any) -> nn.Module:
    """TEBN's ResNet-19, with ``method`` and ``sn1`` defined, which the released code uses but does not define."""
    basic: Any = models.BasicBlock

    class Block(basic):
        def __init__(self, *arguments, method=None, **options):
            super().__init__(*arguments, **options)
            self.sn1 = models.LIF(tau=self.tau)

    models.ResNet.method = None
    net = models.ResNet(Block)
    net.T = 4  # TEBN's p is written for 4 steps
    return net


@contextlib.contextmanager
def narrow(width: float, classes: int) -> Iterator[None]:
    """Multiply the channels of every layer that is built by ``width``; images and classes keep their sizes."""

    def less(n, keep=()):
        return n if n in keep else round(n * width)

    class Conv2d(nn.Conv2d):
        def __init__(self, inputs, outputs, *arguments, **options):
            super().__init__(less(inputs, (2, 3)), less(outputs), *arguments, **options)

    class Linear(nn.Linear):
        def __init__(self, inputs, outputs, **options):
            super().__init__(less(inputs), classes if outputs == 1000 else less(outputs, (10, 11, 100)), **options)

    class BatchNorm2d(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(less(channels))

    class BatchNorm3d(nn.BatchNorm3d):
        def __init__(self, channels):
            super().__init__(less(channels))

    layers: dict[str, Any] = {kind.__name__: kind for kind in (Conv2d, Linear, BatchNorm2d, BatchNorm3d)}
    with mock.patch.multiple(nn, **layers):
        yield


@torch.no_grad()
def draw(net: nn.Module, generator: torch.Generator) -> None:
    """Draw weights on a scale at which neurons fire, and statistics that differ from their initial values."""
    for key, tensor in net.state_dict().items():
        n = torch.randn(tensor.shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif key.endswith("running_var"):
            tensor.copy_(0.3 * torch.exp(0.3 * n))
        elif tensor.ndim in (2, 4):
            tensor.copy_(n * math.sqrt((8 if tensor.ndim == 2 else 2) / tensor[0].numel()))
        elif key.endswith((".p", "weight")):
            tensor.copy_(1 + 0.1 * n)
        elif key.endswith(".w"):
            tensor.copy_(0.5 * n)
        else:
            tensor.copy_(0.4 + 0.3 * n)


def checkpoint(name: str, net: nn.Module) -> Any:
    """A checkpoint as the repository's training script saves it."""
    if name.startswith("tet"):
        return net.state_dict()
    if name.startswith("ms"):
        return nn.DataParallel(net).state_dict()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 64)
    if name == "sew_7b":  # with momentum; the other files stay small
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    rest = {"optimizer": optimizer.state_dict(), "epoch": 3}
    if name.startswith("sew_wide_7b"):
        return {"net": net.state_dict(), **rest, "lr_scheduler": scheduler.state_dict(), "max_test_acc": 0.5}
    if name.startswith("sew"):
        options = argparse.Namespace(T=4, connect_f="ADD", lr=0.1, amp=True, output_dir=None)
        accuracy = np.float64(12.5)
        return {"model": net.state_dict(), **rest, "lr_scheduler": scheduler.state_dict(), "args": options,
                "max_test_acc1": accuracy}  # fmt: skip
    parallel = nn.DataParallel(net)
    return {"model": parallel.state_dict(), **rest, "scheduler": scheduler.state_dict(), "best_acc": 12.5}


@torch.no_grad()
def logits(name: str, net: Any, model: Model) -> np.ndarray:
    """Logits ``[B, classes]``, averaged over time."""
    x = torch.from_numpy(cases.batch(Config(batch_size=2, model=model), 0)["x"]).float().permute(0, 1, 4, 2, 3)
    if x.shape[1] == 1:
        x = x[:, 0]
    if name == "tet_resnet19":
        net.T = model.time_steps
    y = net.eval()(x.contiguous())
    y = y[0] if isinstance(y, tuple) else y
    return (y.mean(1) if y.ndim == 3 else y).numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    nets = released(parser.parse_args(arguments).folder)
    with torch.device("meta"):
        keys = {name: {k: list(v.shape) for k, v in build().state_dict().items()} for name, build in nets.items()}
    keys = json.loads((FOLDER / "released_keys.json").read_text()) | keys
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(shapes)}" for name, shapes in keys.items())
    (FOLDER / "released_keys.json").write_text(f"{{\n{rows}\n}}\n")
    (FOLDER / "released").mkdir(exist_ok=True)
    values = dict(np.load(FOLDER / "released_logits.npz"))
    for name in filter(nets.__contains__, cases.RELEASED):
        model = cases.released(name)
        with narrow(model.width or 1.0, model.classes):
            net = nets[name]()
        draw(net, torch.Generator().manual_seed(0))
        torch.save(checkpoint(name, net), FOLDER / "released" / f"{name}.pth")
        values[name] = logits(name, net, model)
        print(name, values[name][:, :4].round(3).tolist())
    np.savez_compressed(FOLDER / "released_logits.npz", **values)


if __name__ == "__main__":
    main()
