"""Module names of the published PyTorch code for the layers of this package.

A table gives the PyTorch module for each module of a network, in the order of the forward pass; the leaves below it
have PyTorch's names (``LEAVES``). Read off the repositories' code, and compared with the keys and shapes that this code
gives at full size (tests/data/released_keys.json):

    SEW   github.com/fangwei123456/Spike-Element-Wise-ResNet
    TET   github.com/brain-intelligence-lab/temporal_efficient_training
    TEBN  github.com/ChaotengDuan/TEBN
    CSBP  github.com/Wangzj000/CSBP, folder "Reproduction of TEBN and comparison with CSBP"
    MS    github.com/Ariande1/MS-ResNet

Of CSBP's DVS-Gesture net only a checkpoint was released (DVS-Gesture/model/checkpoint_max_test_acc1.pth), whose keys
are the source of its table. Not known: the names of CSBP's nets for ImageNet and with TET.

In this file ``layer`` is a name of this package and ``module`` one of PyTorch.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from csbp_jax.weights import names_transformers as transformers

LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "p": "p",
    "w": "w",
}


class Table(NamedTuple):
    """Module names of one published form of a network.

    source: the code that it is from; names: ``{"conv1/norm": "features.0.bn.bn"}``; unused: a regular expression of
    keys that the forward pass does not read; repeats: ``(pattern, replacement)``, substituted in this order, which turn
    the second key of a tensor that is registered twice into its first.
    """

    source: str
    names: dict[str, str]
    unused: str = "$^"
    repeats: tuple[tuple[str, str], ...] = ()

    def first_key(self, key: str) -> str:
        """Return the key under which a tensor is read: the key itself, unless it repeats another."""
        for pattern, replacement in self.repeats:
            key = re.sub(pattern, replacement, key)
        return key


def of(network: str) -> tuple[Table, ...]:
    """Return the tables of a network, one per published form; none if its names are not known."""
    return _TABLES.get(network, ())


def networks() -> tuple[str, ...]:
    """Return the names of all networks that have a table."""
    return tuple(_TABLES)


Names = dict[str, str]


def _dense(*modules: str) -> Names:
    """Name hidden layers ``fc1``, ... and the read-out."""
    layers = [f"fc{i}" for i in range(1, len(modules))] + ["readout"]
    return {f"{layer}/dense": module for layer, module in zip(layers, modules, strict=True)}


def _tebn(layer: str, module: str) -> Names:
    """Name the modules of TEBN's TEBNLayer."""
    return {
        f"{layer}/conv": f"{module}.fwd.module",
        f"{layer}/norm": f"{module}.bn.bn",
        f"{layer}/norm/p": f"{module}.bn.p",
    }


def _tebn_net(convs: Sequence[str], *dense: str) -> Names:
    """Name the layers of TEBN's and CSBP's plain nets, from the modules of their convolutions and dense layers."""
    names: Names = {}
    for number, module in enumerate(convs, start=1):
        names |= _tebn(f"conv{number}", module)
    return names | _dense(*dense)


def _tet_net(indices: Sequence[int]) -> Names:
    """Name the layers of TET's plain nets, whose Layer is a container of convolution and norm."""
    names: Names = {}
    for number, index in enumerate(indices, start=1):
        module = f"features.{index}.fwd.module"
        names |= {f"conv{number}/conv": f"{module}.0", f"conv{number}/norm": f"{module}.1"}
    return names | _dense("classifier.module")


def _features(*indices: int) -> list[str]:
    return [f"features.{index}" for index in indices]


def _chaos_features(*indices: int) -> list[str]:
    """Return the modules of nets that output the first membrane, and so have the first layer in its own container."""
    return ["features1.0", *(f"features2.{index}" for index in indices)]


def _blocks(stages: Sequence[int]) -> Iterator[tuple[str, str, int, bool]]:
    """Yield ``("stageI_blockJ", "layerI.J-1", I, whether it is the first block of the stage)`` of a residual net."""
    for stage, blocks in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            yield f"stage{stage}_block{block}", f"layer{stage}.{block - 1}", stage, block == 1


def _resnet19_tet() -> Names:
    names = {"stem/conv": "conv1", "stem/norm": "bn1.bn"}
    for block, module, _, first in _blocks((3, 3, 2)):
        for i in (1, 2):
            names |= {f"{block}_conv{i}/conv": f"{module}.conv{i}", f"{block}_conv{i}/norm": f"{module}.bn{i}.bn"}
        if first:
            down = f"{module}.downsample"
            names |= {f"{block}_shortcut/conv": f"{down}.layer.module", f"{block}_shortcut/norm": f"{down}.bn.bn"}
    return names | _dense("fc1", "fc2")


def _resnet19_tebn() -> Names:
    names = _tebn("stem", "conv1")
    for block, module, stage, first in _blocks((3, 3, 2)):
        names |= _tebn(f"{block}_conv1", f"{module}.conv1") | _tebn(f"{block}_conv2", f"{module}.conv2")
        if first and stage > 1:
            names |= _tebn(f"{block}_shortcut", f"{module}.downsample")
        else:
            names |= {f"{block}_shortcut/norm": f"{module}.bn.bn", f"{block}_shortcut/norm/p": f"{module}.bn.p"}
    return names | _dense("fc1.module.1", "fc2.module.1")


def _sew_resnet(stages: Sequence[int], convs: int, container: str) -> Names:
    names = {"stem/conv": "conv1", "stem/norm": "bn1"}
    for block, module, stage, first in _blocks(stages):
        for i in range(1, convs + 1):
            synapse = f"{module}.conv{i}{container}"
            names |= {f"{block}_conv{i}/conv": f"{synapse}.0", f"{block}_conv{i}/norm": f"{synapse}.1"}
        if first and (stage > 1 or convs == 3):  # a bottleneck has more channels than the stem
            synapse = f"{module}.downsample.0{container}"
            names |= {f"{block}_shortcut/conv": f"{synapse}.0", f"{block}_shortcut/norm": f"{synapse}.1"}
    return names | _dense("fc")


def _ms_resnet(stages: Sequence[int]) -> Names:
    names = {"stem/conv": "conv1.0", "stem/norm": "conv1.1.bn"}
    for block, module, stage, first in _blocks(stages):
        module = module.replace(f"layer{stage}", f"conv{stage + 1}_x")
        for i, index in ((1, 1), (2, 4)):
            branch = f"{module}.residual_function"
            names |= {f"{block}_conv{i}/conv": f"{branch}.{index}", f"{block}_conv{i}/norm": f"{branch}.{index + 1}.bn"}
        if first:
            shortcut = f"{module}.shortcut"
            names |= {f"{block}_shortcut/conv": f"{shortcut}.0", f"{block}_shortcut/norm": f"{shortcut}.1.bn"}
    return names | _dense("fc")


def _sew_b(widened: Collection[int], container: str) -> Names:
    """Name the layers of 7B-Nets: one sequence of 1x1 layers (at the stages in ``widened``), blocks and poolings."""
    names: Names = {}
    index = 0

    def conv_norm_lif(layer: str, module: str) -> Names:
        synapse = f"{module}.0{container}"
        return {f"{layer}/conv": f"{synapse}.0", f"{layer}/norm": f"{synapse}.1", f"{layer}/neuron": f"{module}.1"}

    for stage in range(1, 8):
        if stage in widened:
            names |= conv_norm_lif(f"conv{stage}", f"conv.{index}")
            index += 1
        for i in (1, 2):
            names |= conv_norm_lif(f"block{stage}_conv{i}", f"conv.{index}.conv.{i - 1}")
        index += 2  # the block, and its pooling
    return names | _dense("out")


def _csbp_7b(container: str) -> Names:
    """Name the layers of CSBP's 7B-Net, whose first layer is outside the sequence."""
    first = {"conv1/conv": "conv0", "conv1/norm": "bn0", "conv1/neuron": "act0"}
    return first | _sew_b((), container)


def _spikingjelly(
    source: str, names: Callable[[str], Names], repeats: tuple[tuple[str, str], ...] = ()
) -> tuple[Table, ...]:
    """Return the tables of a net for two versions of SpikingJelly, whose container first had a ``module``."""
    versions = {"up to 0.0.0.0.6": ".module", "from 0.0.0.0.8": ""}
    return tuple(
        Table(f"{source}, with SpikingJelly {version}", names(container), repeats=repeats)
        for version, container in versions.items()
    )


_RESNET19_TET_REPEATS = (
    (r"\.seqbn\.module\.(\w+)$", r".bn.\1"),
    (r"(^|\.)(conv\d|fc\d)_s\.layer\.module\.(\w+)$", r"\1\2.\3"),
    (r"(^|\.)conv(\d)_s\.bn\.bn\.(\w+)$", r"\1bn\2.bn.\3"),
)
# Convolution and norm of the first layer, in a container beside them.
_CSBP_7B_REPEATS = (
    (r"^conv0_\.(?:.+\.)?0\.(\w+)$", r"conv0.\1"),
    (r"^conv0_\.(?:.+\.)?1\.(\w+)$", r"bn0.\1"),
)
_HEAD = ("fc1.module.1", "fc2.module.1")
_LAYER_NORMS = r"^block\.\d+\.norm[12]\."
_SDT = Table("SDT, SpikeDrivenTransformer", transformers.one_stage("conv"), r"\.talking_heads\.")
_TABLES: dict[str, tuple[Table, ...]] = {
    "cnn6": (
        Table("CSBP, CNN6", _tebn_net(_features(0, 3, 6, 9), *_HEAD)),
        Table("CSBP, CNN6_chaos", _tebn_net(_chaos_features(1, 4, 7), *_HEAD)),
    ),
    "cnn7": (
        Table("CSBP, CNN7", _tebn_net(_features(0, 3, 5, 8, 11, 13), *_HEAD)),
        Table("CSBP, CNN7_chaos", _tebn_net(_chaos_features(1, 3, 6, 9, 11), *_HEAD)),
    ),
    "vgg9": (Table("TEBN and CSBP, VGG9", _tebn_net(_features(0, 2, 5, 7, 10, 12, 14), *_HEAD)),),
    "vggsnn": (
        Table("TET, VGGSNN", _tet_net((0, 1, 3, 4, 6, 7, 9, 10))),
        Table("CSBP, VGGSNN", _tebn_net(_features(0, 2, 5, 7, 10, 12, 15, 17), _HEAD[0])),
    ),
    "vggsnn_wo_ap": (Table("TET, VGGSNNwoAP", _tet_net(range(8))),),
    # Each module of this net is registered twice or more.
    "resnet19_tet": (Table("TET, resnet19", _resnet19_tet(), repeats=_RESNET19_TET_REPEATS),),
    # Down-sampling blocks have a norm that nothing calls.
    "resnet19_tebn": (Table("TEBN and CSBP, ResNet", _resnet19_tebn(), r"^layer[23]\.0\.bn\."),),
    "sew_resnet18": _spikingjelly(
        "SEW, imagenet/sew_resnet.py, sew_resnet18", lambda c: _sew_resnet((2, 2, 2, 2), 2, c)
    ),
    "sew_resnet34": _spikingjelly(
        "SEW, imagenet/sew_resnet.py, sew_resnet34", lambda c: _sew_resnet((3, 4, 6, 3), 2, c)
    ),
    "sew_resnet50": _spikingjelly(
        "SEW, imagenet/sew_resnet.py, sew_resnet50", lambda c: _sew_resnet((3, 4, 6, 3), 3, c)
    ),
    "sew_resnet101": _spikingjelly(
        "SEW, imagenet/sew_resnet.py, sew_resnet101", lambda c: _sew_resnet((3, 4, 23, 3), 3, c)
    ),
    "sew_resnet152": _spikingjelly(
        "SEW, imagenet/sew_resnet.py, sew_resnet152", lambda c: _sew_resnet((3, 8, 36, 3), 3, c)
    ),
    "ms_resnet18": (Table("MS-ResNet, resnet18", _ms_resnet((2, 2, 2, 2))),),
    "ms_resnet34": (Table("MS-ResNet, resnet34", _ms_resnet((3, 4, 6, 3))),),
    "sew_7b": (
        *_spikingjelly("SEW, dvsgesture/smodels.py, SEWResNet", lambda c: _sew_b({1}, c)),
        *_spikingjelly("CSBP, DVS-Gesture, SEWResNet", _csbp_7b, _CSBP_7B_REPEATS),
    ),
    "sew_wide_7b": _spikingjelly("SEW, cifar10dvs/smodels.py, SEWResNet", lambda c: _sew_b({1, 5}, c)),
    "spikformer_cifar": (Table("Spikformer, cifar10/model.py", transformers.one_stage("linear"), _LAYER_NORMS),),
    "spikformer_imagenet": (Table("Spikformer, imagenet/model.py", transformers.one_stage("conv"), _LAYER_NORMS),),
    "spikformer_dvs": (
        Table(
            "Spikformer, cifar10dvs/model.py", transformers.one_stage("conv"), rf"{_LAYER_NORMS}|^pos_embed$|^norm\."
        ),
    ),
    "qkformer_cifar": (
        Table("QKFormer, cifar10/model.py", transformers.qkformer(("proj", "proj1"), "proj3", 3, "ssa", "mlp")),
    ),
    "qkformer_imagenet": (
        Table(
            "QKFormer, imagenet/qkformer.py",
            transformers.qkformer(("proj", "proj1", "proj2"), "proj3", 3, "attn", "fc"),
        ),
    ),
    "qkformer_dvs": (
        Table(
            "QKFormer, cifar10-dvs/model.py",
            transformers.qkformer(("proj", "proj1", "proj2", "proj3"), "proj", 2, "ssa", "mlp"),
        ),
    ),
    **{f"sdt_{variant}": (_SDT,) for variant in ("cifar", "imagenet", "dvs")},
}
