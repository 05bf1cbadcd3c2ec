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

import functools
import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from csbp_jax.weights import names_transformers as transformers
from csbp_jax.weights.names_transformers import conv_norm

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
    return TABLES.get(network, ())


Names = dict[str, str]


def _dense(*modules: str) -> Names:
    """Name hidden layers ``fc1``, ... and the read-out."""
    layers = [f"fc{i}" for i in range(1, len(modules))] + ["readout"]
    return {f"{layer}/dense": module for layer, module in zip(layers, modules, strict=True)}


# Of a layer's convolution and norm, and of TEBN's p: "{m}" is the module of the layer or block.
_TEBN = ("{m}.fwd.module", "{m}.bn.bn", "{m}.bn.p")
_TET = ("{m}.fwd.module.0", "{m}.fwd.module.1")


def _named(layer: str, templates: Sequence[str], **parts: object) -> Names:
    """Name convolution, norm and p of a layer, those that have a template."""
    leaves = zip(("conv", "norm", "norm/p"), templates, strict=False)
    return {f"{layer}/{leaf}": template.format(**parts) for leaf, template in leaves if template}


def _plain_net(convs: Sequence[str], templates: Sequence[str], *dense: str) -> Names:
    """Name the layers of a plain net, from the modules of its convolutions and dense layers."""
    names: Names = {}
    for number, module in enumerate(convs, start=1):
        names |= _named(f"conv{number}", templates, m=module)
    return names | _dense(*dense)


def _features(*indices: int) -> list[str]:
    return [f"features.{index}" for index in indices]


def _chaos_features(*indices: int) -> list[str]:
    """Return the modules of nets that output the first membrane, and so have the first layer in its own container."""
    return ["features1.0", *(f"features2.{index}" for index in indices)]


def _residual(
    stages: Sequence[int],
    stem: Sequence[str],
    synapse: Sequence[str],
    shortcut: Sequence[str],
    dense: Sequence[str],
    convs: int = 2,
    widens_from: int = 1,
    otherwise: Sequence[str] = (),
    container: str = "layer{0}",
) -> Names:
    """Name the layers of a residual net.

    Args:
      stages: the number of blocks of each.
      stem: modules of the first layer.
      synapse: templates of the i-th layer of a block; ``{a}`` and ``{b}`` are its and its norm's number in a sequence.
      shortcut: templates of the shortcut of a stage's first block.
      dense: modules of the dense layers.
      convs: layers of a block.
      widens_from: first stage whose first block has such a shortcut.
      otherwise: templates of the other shortcuts.
      container: template of the module of a stage, by its number from 1 or from 2.
    """
    names = _named("stem", stem)
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            layer, module = f"stage{stage}_block{block + 1}", f"{container.format(stage, stage + 1)}.{block}"
            for i in range(1, convs + 1):
                names |= _named(f"{layer}_conv{i}", synapse, m=module, i=i, a=3 * i - 2, b=3 * i - 1)
            widens = not block and stage >= widens_from
            names |= _named(f"{layer}_shortcut", shortcut if widens else otherwise, m=module)
    return names | _dense(*dense)


def _sew_resnet(stages: Sequence[int], convs: int, container: str) -> Names:
    return _residual(
        stages,
        ("conv1", "bn1"),
        (f"{{m}}.conv{{i}}{container}.0", f"{{m}}.conv{{i}}{container}.1"),
        (f"{{m}}.downsample.0{container}.0", f"{{m}}.downsample.0{container}.1"),
        ("fc",),
        convs=convs,
        widens_from=1 if convs == 3 else 2,  # a bottleneck has more channels than the stem
    )


_MS_RESNET = functools.partial(
    _residual,
    stem=("conv1.0", "conv1.1.bn"),
    synapse=("{m}.residual_function.{a}", "{m}.residual_function.{b}.bn"),
    shortcut=("{m}.shortcut.0", "{m}.shortcut.1.bn"),
    dense=("fc",),
    container="conv{1}_x",
)


def _sew_b(widened: Collection[int], container: str) -> Names:
    """Name the layers of 7B-Nets: one sequence of 1x1 layers (at the stages in ``widened``), blocks and poolings."""
    names: Names = {}
    index = 0

    def conv_norm_lif(layer: str, module: str) -> Names:
        synapse = f"{module}.0{container}"
        return conv_norm(layer, f"{synapse}.0", f"{synapse}.1") | {f"{layer}/neuron": f"{module}.1"}

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
TABLES: dict[str, tuple[Table, ...]] = {
    "cnn6": (
        Table("CSBP, CNN6", _plain_net(_features(0, 3, 6, 9), _TEBN, *_HEAD)),
        Table("CSBP, CNN6_chaos", _plain_net(_chaos_features(1, 4, 7), _TEBN, *_HEAD)),
    ),
    "cnn7": (
        Table("CSBP, CNN7", _plain_net(_features(0, 3, 5, 8, 11, 13), _TEBN, *_HEAD)),
        Table("CSBP, CNN7_chaos", _plain_net(_chaos_features(1, 3, 6, 9, 11), _TEBN, *_HEAD)),
    ),
    "vgg9": (Table("TEBN and CSBP, VGG9", _plain_net(_features(0, 2, 5, 7, 10, 12, 14), _TEBN, *_HEAD)),),
    "vggsnn": (
        Table("TET, VGGSNN", _plain_net(_features(0, 1, 3, 4, 6, 7, 9, 10), _TET, "classifier.module")),
        Table("CSBP, VGGSNN", _plain_net(_features(0, 2, 5, 7, 10, 12, 15, 17), _TEBN, _HEAD[0])),
    ),
    "vggsnn_wo_ap": (Table("TET, VGGSNNwoAP", _plain_net(_features(*range(8)), _TET, "classifier.module")),),
    # Each module of this net is registered twice or more.
    "resnet19_tet": (
        Table(
            "TET, resnet19",
            _residual(
                (3, 3, 2),
                ("conv1", "bn1.bn"),
                ("{m}.conv{i}", "{m}.bn{i}.bn"),
                ("{m}.downsample.layer.module", "{m}.downsample.bn.bn"),
                ("fc1", "fc2"),
            ),
            repeats=_RESNET19_TET_REPEATS,
        ),
    ),
    # Down-sampling blocks have a norm that nothing calls.
    "resnet19_tebn": (
        Table(
            "TEBN and CSBP, ResNet",
            _residual(
                (3, 3, 2),
                [template.format(m="conv1") for template in _TEBN],
                [template.replace("{m}", "{m}.conv{i}") for template in _TEBN],
                [template.replace("{m}", "{m}.downsample") for template in _TEBN],
                _HEAD,
                widens_from=2,
                otherwise=("", "{m}.bn.bn", "{m}.bn.p"),
            ),
            r"^layer[23]\.0\.bn\.",
        ),
    ),
    **{
        name: _spikingjelly(f"SEW, imagenet/sew_resnet.py, {name}", functools.partial(_sew_resnet, stages, convs))
        for name, stages, convs in (
            ("sew_resnet18", (2, 2, 2, 2), 2),
            ("sew_resnet34", (3, 4, 6, 3), 2),
            ("sew_resnet50", (3, 4, 6, 3), 3),
            ("sew_resnet101", (3, 4, 23, 3), 3),
            ("sew_resnet152", (3, 8, 36, 3), 3),
        )
    },
    "ms_resnet18": (Table("MS-ResNet, resnet18", _MS_RESNET((2, 2, 2, 2))),),
    "ms_resnet34": (Table("MS-ResNet, resnet34", _MS_RESNET((3, 4, 6, 3))),),
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
