"""Module names of the published PyTorch code of the spiking transformers; see names.py.

Read off the model files of these repositories, which were not run:

    Spikformer    github.com/ZK-Zhou/spikformer
    QKFormer      github.com/zhouchenlin2096/QKFormer
    SDT           github.com/BICLab/Spike-Driven-Transformer
"""

from collections.abc import Sequence

Names = dict[str, str]

BLOCKS = 16
"""Blocks of a stage that have names: more than any published network has, which takes the first of them."""


def conv_norm(layer: str, conv: str, norm: str) -> Names:
    """Name a convolution and its norm."""
    return {f"{layer}/conv": conv, f"{layer}/norm": norm}


def _block(block: str, attention: str, mlp: str, parts: str, synapse: str = "conv") -> Names:
    """Name a block's layers."""
    modules = {part: f"{attention}.{part}" for part in [*parts, "proj"]} | {f"mlp{i}": f"{mlp}{i}" for i in (1, 2)}
    names: Names = {}
    for part, module in modules.items():
        names |= {f"{block}_{part}/dense": f"{module}_{synapse}", f"{block}_{part}/norm": f"{module}_bn"}
    return names


def one_stage(synapse: str) -> Names:
    """Name the layers of Spikformer or SDT, whose synapses in blocks are called ``linear`` or ``conv``."""
    names: Names = {}
    stem = {"stem1": "proj_{}", "stem2": "proj_{}1", "stem3": "proj_{}2", "stem4": "proj_{}3", "position": "rpe_{}"}
    for layer, module in stem.items():
        names |= conv_norm(layer, *(f"patch_embed.{module.format(part)}" for part in ("conv", "bn")))
    for i in range(BLOCKS):
        module = f"block.{i}"
        names |= _block(f"block{i + 1}", f"{module}.attn", f"{module}.mlp.fc", "qkv", synapse)
    return names | {"readout/dense": "head"}


def qkformer(stem: Sequence[str], first: str, stages: int, last: str, mlp: str) -> Names:
    """Name the layers of QKFormer.

    Args:
      stem: names of the stem's convolutions, such as ``proj1``.
      first: name of the first convolution of the other patches.
      stages: their number.
      last: name of attention in the last stage.
      mlp: beginning of the names of a perceptron's layers.
    """
    names: Names = {}
    for stage in range(1, stages + 1):
        module = f"patch_embed{stage}"
        convs = stem if stage == 1 else (first, "proj4")
        prefix = "stem" if stage == 1 else f"patch{stage}_conv"
        for i, conv in enumerate(convs, start=1):
            names |= conv_norm(f"{prefix}{i}", f"{module}.{conv}_conv", f"{module}.{conv}_bn")
        shortcut = "stem_shortcut" if stage == 1 else f"patch{stage}_shortcut"
        names |= conv_norm(shortcut, f"{module}.proj_res_conv", f"{module}.proj_res_bn")
        attention, parts = (last, "qkv") if stage == stages else ("tssa", "qk")
        for i in range(BLOCKS):
            block = f"stage{stage}.{i}"
            names |= _block(f"stage{stage}_block{i + 1}", f"{block}.{attention}", f"{block}.mlp.{mlp}", parts)
    return names | {"readout/dense": "head"}
