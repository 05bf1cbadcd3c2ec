"""The training steps compiled for TPU slices, as a page."""

from typing import Any, NamedTuple

from benchmarks import hlo
from benchmarks.tables import table

SLICES = {
    "v5e 2x2": ("v5e:2x2", 1),
    "v5e 4x4": ("v5e:4x4", 1),
    "v5p 2x2x1": ("v5p:2x2x1", 1),
    "2 x v5e 2x2": ("v5e:2x2", 2),
}
"""Name, the compiler's name of the topology, and the number of slices."""


class Chip(NamedTuple):
    """A chip's dense bfloat16 operations and main-memory bytes per second, and bytes of main memory (data sheets)."""

    flops: float
    bandwidth: float
    memory: float


CHIPS = {"v5e": Chip(197e12, 819e9, 16e9), "v5p": Chip(459e12, 2765e9, 95e9)}

ON_CHIP = 1e8
"""Bytes of temporaries up to which they may lie in on-chip memory."""


def chip_of(key: str) -> Chip:
    """The chip of a program's key, ``NET, SLICE, LAYOUT``."""
    return next(chip for name, chip in CHIPS.items() if name in key)


def page(content: dict[str, Any]) -> str:
    """The text of tpu.md, from the content of tpu.json."""
    programs = content["programs"]
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    fit = sum(_used(n) < chip_of(key).memory for key, n in programs.items())
    slices = ", ".join(sorted({key.split(", ")[1] for key in programs}))
    layouts = ", ".join(sorted({key.split(", ")[2] for key in programs}))
    return f"""# Compiled for TPU slices

Do training steps compile for TPUs, do they fit, and do operations or bytes take longer?

**Compiled, never run: {fit} of {len(programs)} programs fit into a chip's memory, and in {_longer_by_bytes(programs)}
the bytes take longer than the operations.** `make tpu` compiles without a TPU. The numbers are read off XLA's
optimised programs, not measured.

{_rooflines(programs)}

A row is a chip's part of a step on a v5e 2x2 in layout `data`, in bfloat16, as a run compiles it (transforms, metrics
and the check for non-finite values included). `tpu.json` has all programs, for slices {slices} and layouts {layouts},
with their bytes by source, kernels of the neuron and seconds of compilation. The same command goes on with those that
are missing.

- **Bytes**: each kernel reads its operands from main memory and writes its results there once, with tiles filled up
  as the chip stores them; arrays in on-chip memory cost nothing. That is too much where a kernel reads a part of an
  operand, and too little where it reads one twice.
- **Times** are those counts at the chip's peak rates; the larger is an estimate of the least time of a step, and the
  share of the peak one of the most that it can reach. Operations are those before XLA optimises, with what remat
  computes again.{_useful(programs)}
- **Largest batch**: an estimate, with temporaries in proportion to the batch; left out where they may lie in on-chip
  memory.
- Networks of ImageNet have `--model.norm-groups` set to the number of chips: each normalises its own examples, as
  each GPU of SEW's and Spikformer's did. SEW-ResNets and TEBN-ResNet-34 were compiled when neurons of their presets
  were silent at exactly their threshold, where they now fire.

## Bytes by part

Percent of the bytes of a step on a v5e 2x2 in layout `data`, of the programs that were compiled since this is counted:

{_parts(programs)}

A fusion of two parts counts as that of its last operation.

## Collectives

On one slice XLA reduces the gradients of all weights in one all-reduce or a few. Over two, those of 3x3 kernels and
fully connected layers are reduce-scattered within a slice, sent to the other (`send`), added and gathered. Those of
1x1 kernels, of stems of 7x7 and of small kernels are all-reduced within a slice first: nearly half of SEW-ResNet-50's
bytes. With a norm over all chips there are also the statistics of each norm and their gradients, which wait for each
other.

{_collectives(programs)}

Number in the program's text, and MB of their operands.

{_overlap(programs)}{_changes(content)}Versions: {versions}. Without `--code`, the text of a
program is that after XLA's passes, before the code of each kernel is made.
"""


def _overlap(programs: dict[str, Any]) -> str:
    """What XLA makes of options that ask for overlap; empty if no program was compiled with them."""
    with_options = {key: row for key, row in programs.items() if "with overlap asked for" in key}
    if not with_options:
        return ""
    counts = []
    for key, row in with_options.items():
        inside, all_of_them = row["overlapped"], row["collectives"]["all-reduce"]
        megabytes = f"{inside['bytes'] / 1e6:.1f} of {all_of_them['bytes'] / 1e6:.1f} MB"
        counts.append(f"{key.split(', ')[1]}: {inside['count']} of {all_of_them['count']} all-reduces, {megabytes}")
    return f"""By default XLA combines the gradients into one all-reduce at the end, and computes nothing beside it.
With options that ask for overlap (`benchmarks/tpu_programs.py`), fusions with convolutions hold of SEW-ResNet-34's
{"; ".join(counts)}.
More bytes then move, and more memory is needed.

"""


def _changes(content: dict[str, Any]) -> str:
    programs = content["programs"]
    compiled = {key: before for key, before in content.get("before", {}).items() if key in programs}
    if not compiled:
        return ""
    head = ["network", "slice", "GB moved", "ratio", "GB of temporaries", "ratio", "kernels", "all-reduces"]
    body = []
    for key, before in compiled.items():
        after = programs[key]

        def change(name: str, before: dict[str, Any] = before, after: dict[str, Any] = after) -> list[str]:
            return [f"{before[name] / 1e9:.3g} to {after[name] / 1e9:.3g}", f"{after[name] / before[name]:.2f}"]

        counts = [[n["kernels"], n["collectives"]["all-reduce"]["count"]] for n in (before, after)]
        cells = [f"{a} to {b}" for a, b in zip(*counts, strict=True)]
        body.append([*key.split(", ")[:2], *change("bytes"), *change("temporaries"), *cells])
    return f"""## Before and after

The same steps at commit 77a775f (with libtpu 0.0.42) and since. The changes: convolutions with time as a dimension;
mean and variance in one pass; a fixed layout of the neuron's input, on each device by itself (XLA partitions it only
within `shard_map`); of a layer only its input and the output of its synapse kept for the reverse pass
(xla/memory.py); up to 16 time steps without a loop, whose gradient is rounded to bfloat16 at each
(neurons/lif_scan.py); the gradient of a repeated image summed where it is made; over several slices, mean and
variance sent together, and a convolution's gradient of the kernel before that of the input (xla/convolution.py),
since XLA would hold the cotangents of all layers until the end.

{table(head, body)}

{_growth(programs)}

"""


def _growth(programs: dict[str, Any]) -> str:
    """Temporaries on two slices over those on one, of each network in layout ``data``."""
    ratios = [
        f"{net} {programs[key]['temporaries'] / programs[f'{net}, v5e 2x2, data']['temporaries']:.2f}"
        for key in programs
        for net, slice_, layout in [key.split(", ")]
        if (slice_, layout) == ("2 x v5e 2x2", "data") and f"{net}, v5e 2x2, data" in programs
    ]
    return f"Temporaries on two slices over those on one: {', '.join(ratios)}."


def _used(n: dict[str, Any]) -> int:
    """Bytes of main memory that a program needs."""
    return int(n["arguments"] + n["outputs"] + n["temporaries"])


def _seconds(key: str, n: dict[str, Any]) -> tuple[float, float]:
    """Least seconds of a program by its operations and by its bytes."""
    return n["flops"] / chip_of(key).flops, n["bytes"] / chip_of(key).bandwidth


def _longer_by_bytes(programs: dict[str, Any]) -> int:
    return sum(by_bytes > by_flops for by_flops, by_bytes in map(_seconds, programs.keys(), programs.values()))


def _rooflines(programs: dict[str, Any]) -> str:
    head = ["network", "batch", "GB of memory", "largest batch", "Tflop", "GB moved", "ms, operations", "ms, bytes"]
    head += ["share of the peak (%)", "kernels"]
    body = []
    for key, n in programs.items():
        net, slice_, layout = key.split(", ")
        if (slice_, layout) != ("v5e 2x2", "data"):
            continue
        most = n["batch"] * (chip_of(key).memory + n["temporaries"] - _used(n)) / max(n["temporaries"], 1)
        by_flops, by_bytes = _seconds(key, n)
        cells = [net, str(n["batch"]), f"{_used(n) / 1e9:.2f}", f"{most:,.0f}" if n["temporaries"] > ON_CHIP else ""]
        cells += [f"{n['flops'] / 1e12:.3g}", f"{n['bytes'] / 1e9:.3g}", f"{1e3 * by_flops:.3g}"]
        cells += [f"{1e3 * by_bytes:.3g}", f"{100 * by_flops / max(by_flops, by_bytes):.0f}", str(n["kernels"])]
        body.append(cells)
    return table(head, body)


def _parts(programs: dict[str, Any]) -> str:
    keys = [key for key, n in programs.items() if key.endswith(", v5e 2x2, data") and "parts" in n]
    return hlo.traffic({key.split(", ")[0]: programs[key]["parts"] for key in keys})


def _useful(programs: dict[str, Any]) -> str:
    """The share of the peak without what remat computes again; empty if a step was not compiled with and without it."""
    key = "SEW-ResNet-34{}, v5e 2x2, data"
    if not {key.format(""), key.format(" with remat")} <= programs.keys():
        return ""
    plain, remat = programs[key.format("")], programs[key.format(" with remat")]
    chip = CHIPS["v5e"]
    least = max(remat["flops"] / chip.flops, remat["bytes"] / chip.bandwidth)
    share = 100 * plain["flops"] / chip.flops / least
    return f" Counted without that, SEW-ResNet-34 with remat has {share:.0f} % of the peak."


def _collectives(programs: dict[str, Any]) -> str:
    of = [
        key for key in programs if key.startswith(("SEW-ResNet-34", "SEW-ResNet-50")) and key.endswith("v5e 2x2, data")
    ]
    shown = {key: programs[key]["collectives"] for key in of if "remat" not in key and "overlap" not in key}
    kinds = sorted({kind for n in shown.values() for kind in n})
    body = []
    for key, n in shown.items():
        rows = [n.get(kind) for kind in kinds]
        cells = [f"{row['count']}, {row['bytes'] / 1e6:.3g} MB" if row else "" for row in rows]
        body.append([*key.split(", ")[:2], *cells])
    return table(["network", "slice", *kinds], body)
