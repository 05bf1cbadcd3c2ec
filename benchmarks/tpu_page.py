"""The training steps compiled for TPU slices, as a page."""

from typing import Any, NamedTuple

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
    return f"""# Compiled for TPU slices

**Compiled, never run**: `make tpu` compiles training steps for TPUs without one. The numbers are read off XLA's
optimised programs, not measured. Versions: {versions}. Programs that are not in the tables have not been compiled
yet; the same command continues.

All numbers are per chip and step, for the training step of a preset as a run compiles it (transforms, metrics and the
check for non-finite values included), in bfloat16. Networks of ImageNet have `--model.norm-groups` set to the number of
chips: each chip normalises its own examples, as each GPU of SEW's and Spikformer's did. Bytes: each kernel reads its
operands from main memory and writes its results there once, with tiles filled up as the chip stores them; arrays in
on-chip memory cost nothing. That is too much where a kernel reads a part of an operand, and too little where it reads
one twice. Times are those of these counts at the chip's peak rates; the larger is an estimate of the least time of a
step, and the share of the peak one of the most that it can reach. Operations are those before XLA optimises, with
what remat computes again.{_useful(programs)} The
largest batch is an estimate: temporaries are taken to grow in proportion to the batch. It is left out where they may
lie in on-chip memory, which is not counted.

The text of a program is that after XLA's passes, when layouts, schedule and memory are assigned; the generation of
code for each kernel, most of the time of a compilation, is left out unless `--code` is passed. Seconds are wall time
on a busy machine of two cores.

SEW-ResNets and TEBN-ResNet-34 were compiled when neurons of their presets were silent at exactly their threshold, where
they now fire: `>=` in place of `>`, and nothing else.

{_rooflines(programs)}

## Where the bytes are

{_sources(programs)}

## Kernels of the neuron

The layers with neurons; the kernels that hold their operations, in the forward pass and in the reverse pass, which
recomputes the membranes; how many of these kernels also hold a convolution or product; and the share of all bytes that
these kernels move, for a convolution or norm within them too.

{_neurons(programs)}

## Collectives

Number of collectives in the program's text, and MB of their operands. On one slice, XLA reduces the gradients of all
weights in one all-reduce (or a few). Over two, those of 3x3 kernels and fully connected layers are reduce-scattered
within a slice, sent to the other (`send`), added and gathered. Those of 1x1 kernels, of stems of 7x7 and of small
kernels are all-reduced within a slice first: nearly half of SEW-ResNet-50's bytes. Where chips do not have norms of
their own, there are also the statistics of each norm and their gradients, which wait for each other; with a norm per
slice, they wait for none between slices.

{_overlap(programs)}{_collectives(programs)}

{_changes(content)}
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
More bytes then move in main memory, and more memory is needed, as the tables above show.

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

The same count of the same steps at commit 77a775f (with libtpu 0.0.42) and since. The changes: convolutions with time
as a dimension; mean and variance in one pass; a fixed layout of the neuron's input, on each device by itself; of a
layer only its input and the output of its synapse kept for the reverse pass (xla/memory.py); up to 16 time steps
without a loop, whose gradient is rounded to bfloat16 at each (neurons/lif_scan.py); the gradient of a repeated image
summed where it is made; over several slices, mean and variance sent together, and a kernel's gradient before that of
the input.

{table(head, body)}

XLA on TPU partitions an array of a fixed layout only within `shard_map`; otherwise it may gather it on every chip,
which happened with `--model.remat` and over several slices. Over several slices XLA would put the gradients of the
weights last, and hold the cotangents of all layers until then. A convolution's reverse pass now computes that of the
kernel first (xla/convolution.py); that of a fully connected layer does not.

{_growth(programs)}"""


def _growth(programs: dict[str, Any]) -> str:
    """Temporaries on two slices over those on one, of each network in layout ``data``."""
    ratios = [
        f"{net} {programs[key]['temporaries'] / programs[f'{net}, v5e 2x2, data']['temporaries']:.2f}"
        for key in programs
        for net, slice_, layout in [key.split(", ")]
        if (slice_, layout) == ("2 x v5e 2x2", "data") and f"{net}, v5e 2x2, data" in programs
    ]
    return f"Temporaries on two slices over those on one: {', '.join(ratios)}."


def _rooflines(programs: dict[str, Any]) -> str:
    head = ["network", "slice", "layout", "batch", "GB of memory", "fits", "largest batch", "Tflop", "GB moved"]
    head += ["ms, operations", "ms, bytes", "share of the peak (%)", "loops", "kernels", "compile s"]
    body = []
    for key, n in programs.items():
        chip = chip_of(key)
        state = n["arguments"] + n["outputs"]
        used = state + n["temporaries"]
        most = n["batch"] * (chip.memory - state) / max(n["temporaries"], 1)
        by_flops, by_bytes = n["flops"] / chip.flops, n["bytes"] / chip.bandwidth
        cells = [str(n["batch"]), f"{used / 1e9:.2f}", "yes" if used < chip.memory else "**no**"]
        cells += [
            f"{most:,.0f}" if n["temporaries"] > ON_CHIP else "",
            f"{n['flops'] / 1e12:.3g}",
            f"{n['bytes'] / 1e9:.3g}",
        ]
        cells += [f"{1e3 * by_flops:.3g}", f"{1e3 * by_bytes:.3g}", f"{100 * by_flops / max(by_flops, by_bytes):.0f}"]
        cells += [str(n["loops"]), str(n["kernels"]), f"{n['seconds']:.0f}"]
        body.append([*key.split(", "), *cells])
    return table(head, body)


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


def _sources(programs: dict[str, Any]) -> str:
    names = sorted({name for n in programs.values() for name in n["by_source"]})
    body = [
        [
            *key.split(", "),
            *(f"{n['by_source'].get(name, 0) / 1e9:.3g}" for name in names),
        ]
        for key, n in programs.items()
    ]
    return table(["network", "slice", "layout", *(f"GB, {name}" for name in names)], body)


def _neurons(programs: dict[str, Any]) -> str:
    counts = ("layers", "forward", "reverse", "with a convolution")
    body = [
        [
            *key.split(", "),
            *(str(n["neuron"][name]) for name in counts),
            f"{100 * n['neuron']['bytes'] / n['bytes']:.0f}",
        ]
        for key, n in programs.items()
    ]
    return table(["network", "slice", "layout", *counts, "bytes (%)"], body)


def _collectives(programs: dict[str, Any]) -> str:
    kinds = sorted({kind for n in programs.values() for kind in n["collectives"]})
    body = []
    for key, n in programs.items():
        rows = [n["collectives"].get(kind) for kind in kinds]
        body.append(
            [*key.split(", "), *(f"{row['count']}, {row['bytes'] / 1e6:.3g} MB" if row else "" for row in rows)]
        )
    return table(["network", "slice", "layout", *kinds], body)
