"""The compared configs, weights and batches. Needs only numpy, so that the PyTorch side can import it."""

import dataclasses
import math
import zlib
from typing import Any

import numpy as np

from csbp_jax.config import Chaos, Config, Loss, Model, Neuron, Optimizer

STEPS = 5
CSBP = Neuron(decay=0.25)
TET = Neuron(decay=0.5)
TDBN = Neuron(decay=0.25, threshold=0.8)
IF = Neuron(decay=1.0, surrogate="arctan", surrogate_param=2.0, detach_reset=True)
SJ = Neuron(
    decay=0.5, scale_input=True, at_threshold="fire", surrogate="sigmoid", surrogate_param=4.0, detach_reset=True
)
MS = Neuron(decay=0.25, threshold=0.5, surrogate="rectangle", surrogate_param=1.0, detach_reset=True)
PLIF = Neuron(decay=0.5, surrogate="arctan", surrogate_param=2.0, detach_reset=True, learn="layer")


# At full size, as in the papers and their code.
ORIGINALS = {
    "cnn6": Model("cnn6", (48, 48, 2), classes=10, time_steps=10, neuron=CSBP),
    "cnn7": Model("cnn7", (48, 48, 2), classes=10, time_steps=10, neuron=CSBP),
    "vgg9": Model("vgg9", (32, 32, 3), classes=10, time_steps=4, neuron=CSBP),
    "vggsnn": Model("vggsnn", (48, 48, 2), classes=10, time_steps=10, neuron=TET),
    "vggsnn_wo_ap": Model("vggsnn_wo_ap", (48, 48, 2), classes=10, time_steps=10, neuron=TET),
    "resnet19_tet": Model("resnet19_tet", (32, 32, 3), classes=100, time_steps=6, neuron=TET),
    "resnet19_tebn": Model("resnet19_tebn", (32, 32, 3), classes=100, time_steps=6, neuron=CSBP),
    "sew_resnet18": Model("sew_resnet18", (224, 224, 3), classes=1000, time_steps=4, neuron=IF),
    "sew_resnet34": Model("sew_resnet34", (224, 224, 3), classes=1000, time_steps=4, neuron=IF),
    "sew_resnet50": Model("sew_resnet50", (224, 224, 3), classes=1000, time_steps=4, neuron=IF),
    "sew_7b": Model("sew_7b", (128, 128, 2), classes=11, time_steps=16, neuron=PLIF),
    "sew_wide_7b": Model("sew_wide_7b", (128, 128, 2), classes=10, time_steps=16, neuron=PLIF),
    "sew_resnet101": Model("sew_resnet101", (224, 224, 3), classes=1000, time_steps=4, neuron=IF),
    "sew_resnet152": Model("sew_resnet152", (224, 224, 3), classes=1000, time_steps=4, neuron=IF),
    "ms_resnet18": Model("ms_resnet18", (224, 224, 3), classes=1000, time_steps=6, neuron=MS),
    "ms_resnet34": Model("ms_resnet34", (224, 224, 3), classes=1000, time_steps=6, neuron=MS),
    "max_resnet18": Model("max_resnet18", (32, 32, 3), classes=10, time_steps=4, neuron=SJ),
    "plif_mnist": Model("plif_mnist", (28, 28, 1), classes=10, time_steps=8, neuron=PLIF),
    "plif_cifar10": Model("plif_cifar10", (32, 32, 3), classes=10, time_steps=8, neuron=PLIF),
    "plif_cifar10_dvs": Model("plif_cifar10_dvs", (128, 128, 2), classes=10, time_steps=20, neuron=PLIF),
    "plif_dvs_gesture": Model("plif_dvs_gesture", (128, 128, 2), classes=11, time_steps=20, neuron=PLIF),
    "spikformer_cifar": Model("spikformer_cifar", (32, 32, 3), classes=10, time_steps=4, neuron=SJ),
    "spikformer_imagenet": Model("spikformer_imagenet", (224, 224, 3), classes=1000, time_steps=4, neuron=SJ),
    "spikformer_dvs": Model("spikformer_dvs", (128, 128, 2), classes=10, time_steps=16, neuron=SJ),
    "qkformer_cifar": Model("qkformer_cifar", (32, 32, 3), classes=100, time_steps=4, neuron=SJ),
    "qkformer_imagenet": Model("qkformer_imagenet", (224, 224, 3), classes=1000, time_steps=4, neuron=SJ),
    "qkformer_dvs": Model("qkformer_dvs", (128, 128, 2), classes=10, time_steps=16, neuron=SJ),
    "sdt_cifar": Model("sdt_cifar", (32, 32, 3), classes=100, time_steps=4, neuron=SJ),
    "sdt_imagenet": Model("sdt_imagenet", (224, 224, 3), classes=1000, time_steps=4, neuron=SJ),
    "sdt_dvs": Model("sdt_dvs", (64, 64, 2), classes=10, time_steps=16, neuron=SJ),
}


def is_static(model: Model) -> bool:
    """Whether a network's input is an image, rather than frames of events, which have two channels."""
    return model.input_shape[-1] != 2


def _case(
    name: Any,
    size: int,
    width: float | None,
    neuron: Neuron,
    taps: tuple[str, ...],
    *,
    loss: Any = "rate",
    lam: float = 0.001,
    cut: tuple[float, float] | None = None,
    **options: Any,
) -> Config:
    """A net of true depth and reduced width, without dropout, for smaller images and fewer classes."""
    channels = ORIGINALS[name].input_shape[-1]
    has_dropout = name in ("cnn6", "cnn7", "vgg9", "vggsnn", "resnet19_tebn") or name.startswith("plif")
    dropout = 0.0 if has_dropout else None
    shape = (size, size, channels)
    return Config(
        batch_size=3,
        model=Model(name, shape, classes=7, time_steps=3, width=width, dropout=dropout, neuron=neuron, **options),
        chaos=Chaos(z0=(15.0, 5.0, 10.0)[: len(taps)], beta=0.9, anneal="step", taps=taps, cut=cut),
        loss=Loss(loss, lam),
        optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="constant"),
    )


CASES = {
    "cnn6_tebn": _case("cnn6", 32, 1 / 16, CSBP, ("conv1.membrane", "fc1.dense"), cut=(-10.0, 9.9)),
    "cnn7_tebn": _case("cnn7", 32, 1 / 16, CSBP, ("conv1.membrane", "fc1.dense"), cut=(-10.0, 9.9)),
    "vgg9_tebn": _case("vgg9", 32, 1 / 16, CSBP, ("conv1.conv",)),
    "vgg9_bntt": _case("vgg9", 32, 1 / 16, TET, ("conv2.norm",), norm="bntt"),
    "vggsnn_tet": _case("vggsnn", 32, 1 / 16, TET, ("conv1.membrane",), loss="tet", lam=0.05),
    "vggsnn_tebn": _case("vggsnn", 32, 1 / 16, CSBP, ("conv1.membrane_pre",), norm="tebn"),
    "vggsnn_wo_ap_mse": _case("vggsnn_wo_ap", 32, 1 / 16, TET, ("conv8.norm",), loss="mse"),
    "resnet19_tet": _case("resnet19_tet", 32, 1 / 16, TET, ("stem.membrane",), loss="tet"),
    "resnet19_tdbn": _case("resnet19_tet", 32, 1 / 16, TDBN, ("stem.norm",), norm="tdbn"),
    "resnet19_tebn": _case("resnet19_tebn", 32, 1 / 16, CSBP, ("stage1_block1.current",)),
    "sew_resnet18_add": _case("sew_resnet18", 48, 1 / 16, IF, ("stem.norm",)),
    "sew_resnet18_and": _case("sew_resnet18", 48, 1 / 16, IF, ("stem.conv",), connect="and"),
    "sew_resnet34_iand": _case("sew_resnet34", 48, 1 / 16, IF, ("stem_spike.membrane",), connect="iand"),
    "sew_resnet34_tebn": _case("sew_resnet34", 48, 1 / 16, CSBP, ("stem_spike.current",), norm="tebn"),
    "sew_resnet50_add": _case("sew_resnet50", 48, 1 / 16, IF, ("stage1_block1_conv3.membrane",)),
    "sew_resnet101_add": _case("sew_resnet101", 48, 1 / 16, IF, ("stage3_block23_conv2.membrane", "stem.norm")),
    "sew_resnet152_iand": _case("sew_resnet152", 48, 1 / 16, IF, ("stage2_block1_shortcut.membrane",), connect="iand"),
    "sew_7b": _case("sew_7b", 128, 1 / 8, PLIF, ("conv1.conv", "conv1.norm", "conv1.membrane")),
    "sew_wide_7b": _case("sew_wide_7b", 128, 1 / 16, PLIF, ("conv1.membrane",), connect="iand"),
    "ms_resnet18": _case("ms_resnet18", 48, 1 / 16, MS, ("stage1_block2_spike1.current",)),
    "ms_resnet34_tdbn": _case("ms_resnet34", 48, 1 / 16, MS, ("stem.norm",), norm="tdbn"),
    "max_resnet18": _case("max_resnet18", 16, 1 / 16, SJ, ("stage2_block1_spike2.membrane",)),
    "plif_mnist": _case("plif_mnist", 12, 1 / 16, PLIF, ("conv1.conv",)),
    "plif_cifar10": _case("plif_cifar10", 12, 1 / 16, PLIF, ("conv1_spike.membrane",), loss="mse"),
    "plif_cifar10_dvs": _case("plif_cifar10_dvs", 32, 1 / 16, PLIF, ("readout_spike.membrane_pre",)),
    "spikformer_cifar": _case(
        "spikformer_cifar", 16, None, SJ, ("stem1.membrane", "block1_attention.membrane"), embed=24, heads=3, depth=2
    ),
    "spikformer_dvs": _case("spikformer_dvs", 32, None, SJ, ("block1_q.membrane",), embed=32, heads=4),
    "qkformer_cifar": _case(
        "qkformer_cifar", 16, None, SJ, ("stage1_block1_attention.membrane", "stem1.norm"), embed=32, heads=2
    ),
    "qkformer_imagenet": _case(
        "qkformer_imagenet", 32, None, SJ, ("stem1_spike.membrane",), embed=32, heads=2, depth=5
    ),
    "qkformer_dvs": _case("qkformer_dvs", 32, None, SJ, ("stage2_block1_attention.current",), embed=32, heads=2),
    "sdt_cifar": _case("sdt_cifar", 16, None, SJ, ("block1_attention.membrane", "stem4.norm"), embed=32),
    "sdt_imagenet": _case(
        "sdt_imagenet", 32, None, SJ, ("block2_spike.membrane", "head_spike.current"), embed=24, depth=2
    ),
}  # fmt: skip

# Checkpoints of the released code (released.py), in float32: name of a file in tests/data/released, and the network
# that reads it. T is the constant of that code, at any size.
RELEASED: dict[str, tuple[str, dict[str, Any]]] = {
    "csbp_cnn6_chaos": ("cnn6", {"width": 1 / 32, "time_steps": 10}),
    "csbp_cnn7": ("cnn7", {"width": 1 / 32, "time_steps": 10}),
    "csbp_cnn7_chaos": ("cnn7", {"width": 1 / 32, "time_steps": 10}),
    "csbp_vggsnn": ("vggsnn", {"width": 1 / 32, "time_steps": 10, "norm": "tebn", "neuron": CSBP}),
    "tebn_vgg9": ("vgg9", {"width": 1 / 32, "time_steps": 4}),
    "tebn_resnet19": ("resnet19_tebn", {"width": 1 / 32, "time_steps": 4}),
    "tet_vggsnn": ("vggsnn", {"width": 1 / 32}),
    "tet_vggsnn_wo_ap": ("vggsnn_wo_ap", {"width": 1 / 32}),
    "tet_resnet19": ("resnet19_tet", {"width": 1 / 32}),
    "sew_resnet18": ("sew_resnet18", {"width": 1 / 32, "classes": 10, "input_shape": (64, 64, 3)}),
    "sew_7b": ("sew_7b", {"width": 1 / 8, "time_steps": 6}),
    "ms_resnet18": ("ms_resnet18", {"width": 1 / 32, "classes": 10, "input_shape": (64, 64, 3)}),
    "sew_wide_7b_new": ("sew_wide_7b", {"width": 1 / 16, "time_steps": 6}),
}


def released(name: str) -> Model:
    """The network that reads the released code's checkpoint of this name."""
    network, changes = RELEASED[name]
    return dataclasses.replace(ORIGINALS[network], **changes)


def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a weight or statistic from its path, such as ``conv1/norm/scale``, on a scale at which neurons fire."""
    n = np.asarray(_generator(path).standard_normal(shape))
    synapse, kind = path.split("/")[-2:]
    if kind == "kernel":
        return n * math.sqrt((8 if synapse == "dense" else 2) / math.prod(shape[:-1]))
    if kind == "var":
        return 0.3 * np.exp(0.3 * n)
    centre = {"scale": 1.0, "p": 1.0, "bias": 0.4 if synapse == "norm" else 0.0}
    spread = {"w": 0.5, "bias": 0.3}
    return centre.get(kind, 0.0) + spread.get(kind, 0.1) * n


def batch(config: Config, step: int) -> dict[str, np.ndarray]:
    """Static images ``[B, 1, H, W, 1 or 3]`` or event counts ``[B, T, H, W, 2]``, and labels."""
    generator, model = _generator(f"batch {step}"), config.model
    if is_static(model):
        x = generator.standard_normal((config.batch_size, 1, *model.input_shape))
    else:
        x = generator.poisson(0.05, (config.batch_size, model.time_steps, *model.input_shape)).astype(np.float64)
    return {"x": x, "y": generator.integers(0, model.classes, config.batch_size)}


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
