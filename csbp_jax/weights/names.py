"""What the layers here are called in the published PyTorch code.

A table gives for each module of a network here the module there, in the order of the forward pass; what hangs below it
has PyTorch's names (``LEAVES``). Read off the repositories' code, and compared with the keys and shapes that this code
gives at full size (tests/data/released_keys.json):

    SEW   github.com/fangwei123456/Spike-Element-Wise-ResNet
    TET   github.com/brain-intelligence-lab/temporal_efficient_training
    TEBN  github.com/ChaotengDuan/TEBN
    CSBP  github.com/Wangzj000/CSBP, folder "Reproduction of TEBN and comparison with CSBP"

Not known: the names of CSBP's DVS-Gesture net, of which only a checkpoint was released (its first layer has conv0, bn0
and act0 where SEW's has conv.0), and of their nets for ImageNet and with TET.
"""

from typing import NamedTuple

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
    """source: whose names; names: ``{"conv1/norm": "features.0.bn.bn"}``; unused: keys, as a regular expression, that
    the forward pass does not read, or reads under another name too."""

    source: str
    names: dict[str, str]
    unused: str = "$^"


def of(network: str) -> tuple[Table, ...]:
    """The tables of a network, one for each of its published forms; none if it was not published."""
    return _TABLES.get(network, ())


def networks() -> tuple[str, ...]:
    """All networks that have a table."""
    return tuple(_TABLES)


def _dense(*there):
    """Hidden layers ``fc1``, ... and the read-out, by their modules there."""
    here = [f"fc{i}" for i in range(1, len(there))] + ["readout"]
    return {f"{name}/dense": module for name, module in zip(here, there, strict=True)}


def _tebn(layer, there):
    """TEBNLayer."""
    return {
        f"{layer}/conv": f"{there}.fwd.module",
        f"{layer}/norm": f"{there}.bn.bn",
        f"{layer}/norm/p": f"{there}.bn.p",
    }


def _tebn_net(convs, *dense):
    """TEBN's and CSBP's plain nets, the modules of whose convolutions are given."""
    names = {}
    for number, there in enumerate(convs, start=1):
        names |= _tebn(f"conv{number}", there)
    return names | _dense(*dense)


def _tet_net(places):
    """TET's plain nets: Layer is a container of convolution and norm."""
    names = {}
    for number, place in enumerate(places, start=1):
        there = f"features.{place}.fwd.module"
        names |= {f"conv{number}/conv": f"{there}.0", f"conv{number}/norm": f"{there}.1"}
    return names | _dense("classifier.module")


def _features(*places):
    return [f"features.{place}" for place in places]


def _chaos_features(*places):
    """The forms that hand out the first membrane have it in a part of its own."""
    return ["features1.0", *(f"features2.{place}" for place in places)]


def _blocks(stages):
    """``("stageI_blockJ", "layerI.J-1", first of a stage)`` of a residual net."""
    for stage, blocks in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            yield f"stage{stage}_block{block}", f"layer{stage}.{block - 1}", stage, block == 1


def _resnet19_tet():
    names = {"stem/conv": "conv1", "stem/norm": "bn1.bn"}
    for here, there, _, first in _blocks((3, 3, 2)):
        for i in (1, 2):
            names |= {f"{here}_conv{i}/conv": f"{there}.conv{i}", f"{here}_conv{i}/norm": f"{there}.bn{i}.bn"}
        if first:
            down = f"{there}.downsample"
            names |= {f"{here}_shortcut/conv": f"{down}.layer.module", f"{here}_shortcut/norm": f"{down}.bn.bn"}
    return names | _dense("fc1", "fc2")


def _resnet19_tebn():
    names = _tebn("stem", "conv1")
    for here, there, stage, first in _blocks((3, 3, 2)):
        names |= _tebn(f"{here}_conv1", f"{there}.conv1") | _tebn(f"{here}_conv2", f"{there}.conv2")
        if first and stage > 1:
            names |= _tebn(f"{here}_shortcut", f"{there}.downsample")
        else:
            names |= {f"{here}_shortcut/norm": f"{there}.bn.bn", f"{here}_shortcut/norm/p": f"{there}.bn.p"}
    return names | _dense("fc1.module.1", "fc2.module.1")


def _sew_resnet(stages, convs, container):
    names = {"stem/conv": "conv1", "stem/norm": "bn1"}
    for here, there, stage, first in _blocks(stages):
        for i in range(1, convs + 1):
            module = f"{there}.conv{i}{container}"
            names |= {f"{here}_conv{i}/conv": f"{module}.0", f"{here}_conv{i}/norm": f"{module}.1"}
        if first and (stage > 1 or convs == 3):  # a bottleneck has more channels than the stem
            module = f"{there}.downsample.0{container}"
            names |= {f"{here}_shortcut/conv": f"{module}.0", f"{here}_shortcut/norm": f"{module}.1"}
    return names | _dense("fc")


def _sew_b(widened, container):
    """7B-Nets: one sequence of 1x1 layers (at the stages in ``widened``), blocks and poolings."""
    names, place = {}, 0

    def layer(here, there):
        synapse = f"{there}.0{container}"
        return {f"{here}/conv": f"{synapse}.0", f"{here}/norm": f"{synapse}.1", f"{here}/neuron": f"{there}.1"}

    for stage in range(1, 8):
        if stage in widened:
            names |= layer(f"conv{stage}", f"conv.{place}")
            place += 1
        for i in (1, 2):
            names |= layer(f"block{stage}_conv{i}", f"conv.{place}.conv.{i - 1}")
        place += 2  # the block, and its pooling
    return names | _dense("out")


def _sew(source, names, *arguments):
    """SpikingJelly's container of several layers kept them in ``module`` at first."""
    versions = {"up to 0.0.0.0.6": ".module", "from 0.0.0.0.8": ""}
    return tuple(
        Table(f"SEW, {source}, with SpikingJelly {version}", names(*arguments, container))
        for version, container in versions.items()
    )


_HEAD = ("fc1.module.1", "fc2.module.1")
_TABLES = {
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
    "resnet19_tet": (Table("TET, resnet19", _resnet19_tet(), r"(^|\.)(conv1|conv2|fc1|fc2)_s\.|\.seqbn\."),),
    # Down-sampling blocks have a norm that nothing calls.
    "resnet19_tebn": (Table("TEBN and CSBP, ResNet", _resnet19_tebn(), r"^layer[23]\.0\.bn\."),),
    "sew_resnet18": _sew("imagenet/sew_resnet.py, sew_resnet18", _sew_resnet, (2, 2, 2, 2), 2),
    "sew_resnet34": _sew("imagenet/sew_resnet.py, sew_resnet34", _sew_resnet, (3, 4, 6, 3), 2),
    "sew_resnet50": _sew("imagenet/sew_resnet.py, sew_resnet50", _sew_resnet, (3, 4, 6, 3), 3),
    "sew_7b": _sew("dvsgesture/smodels.py, SEWResNet", _sew_b, {1}),
    "sew_wide_7b": _sew("cifar10dvs/smodels.py, SEWResNet", _sew_b, {1, 5}),
}
