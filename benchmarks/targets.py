"""Each target of speed beside what was measured, from bench.json."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

from benchmarks.timing import cell

TS = ("T=4", "T=16", "T=100")
NETS = ("CNN7", "VGGSNN", "ResNet-19", "SEW-ResNet-18")


def page(content):
    """The table in Markdown; a target whose part was not measured says so."""
    lines = ["| target | limit | measured | verdict | command |", "|---|---|---|---|---|"]
    missed = []
    for part, name, limit, read in rows():
        try:
            numbers, digits, unit = read(content)
        except KeyError:
            lines.append(f"| {name} | {limit} | not measured | | {command(part)} |")
            continue
        met = verdict(limit, unit * numbers["median"])
        missed += [] if met else [name]
        measured, said = cell(numbers, digits, unit), "met" if met else "missed"
        lines.append(f"| {name} | {limit} | {measured} | {said} | {command(part)} |")
    reasons = "\n".join(f"- {name}: {reason(name, content)}" for name in missed)
    text = "\n".join(lines)
    return f"""# Speed: targets

Median (minimum-maximum). `make bench` measures all of them. The tests assert the residual, temporaries and numbers of
compilations. No GPU or TPU was available; there is a page on [programs compiled for an H100](h100.md).

{text}
{f"{chr(10)}Why targets were missed:{chr(10)}{chr(10)}{reasons}{chr(10)}" if missed else ""}"""


def command(part):
    return f'`make bench ARGS="--only {part}"`'


def verdict(limit, value):
    """Is ``value`` within a limit such as "<= 1.4 x"?"""
    sign, number, *_ = limit.split()
    return value <= float(number) if sign == "<=" else value >= float(number)


def rows():
    """``(part, target, limit, content -> (numbers, digits, unit))``."""
    for label in TS:
        yield "neuron", f"lif over minimum traffic, {label}", "<= 1.4 x", neuron(label, "lif", "over_minimum")
    for label in TS:
        learned = neuron(label, "lif, learned decay and threshold", "over_minimum")
        yield "neuron", f"the same with gradients of decay and threshold, {label}", "<= 2.1 x", learned
    for (peer, limit), label in itertools.product(
        {"spyx": 1.6, "spikingjelly": 3, "snntorch": 3, "norse": 3}.items(), TS
    ):
        yield "neuron", f"{peer} over lif, {label}", f">= {limit} x", neuron(label, peer, "over_lif")
    for net in NETS:
        yield "steps", f"SpikingJelly over ours, training step of {net}", ">= 1.2 x", faster(net)
    for net in NETS:
        yield "steps", f"chaos term, share of a step of {net}", "<= 2 %", share(net)
    yield "steps", "dispatch of a step", "<= 300 us", lambda c: (c["dispatch"]["us"], 0, 1)
    yield "long", "T=1000 in chunks, time over whole", "<= 1.5 x", lambda c: (c["long"]["chunks_over_whole"], 2, 1)
    yield "long", "T=1000 in chunks, temporaries over those of T=64", "<= 2 x", temporaries
    yield "members", "a member of 8 in a loop over one alone, digits", "<= 1.1 x", member
    yield "processes", "64 processes over one sweep of 64", ">= 3 x", times_less
    for name in ("cifar10", "cifar10_dvs"):
        yield "waiting", f"waiting for data, {name}", "<= 3 %", waits(name)
    yield "starts", "start to first step, nothing compiled", "<= 10 s", lambda c: (c["starts"]["cold"], 1, 1)
    yield "starts", "start to first step, compiled before", "<= 5 s", lambda c: (c["starts"]["warm"], 1, 1)


def neuron(label, program, ratio):
    return lambda c: (c["neuron"][label][program][ratio], 2, 1)


def faster(net):
    return lambda c: (c["steps"][net]["programs"]["spikingjelly"]["over_ours"], 2, 1)


def share(net):
    return lambda c: (c["steps"][net]["chaos_share"], 1, 100)


def waits(name):
    return lambda c: (c["waiting"][name]["share"], 2, 100)


def member(content):
    return content["members"]["digits"]["loop"], 2, 1


def times_less(content):
    return same(content["processes"]["times_less"]), 1, 1


def temporaries(content):
    programs = content["long"]["programs"]
    return same(programs["in chunks"]["temporary_MB"] / programs["64 steps"]["temporary_MB"]), 2, 1


def same(value):
    """One number that was not measured in rounds."""
    return dict.fromkeys(("median", "min", "max"), value)


# With numbers of the same bench.json; what they tell of was found in profiles and compiled programs.


def zeros(content, label, ratio, inverse=False):
    """``ratio`` of lif as it would be without the two sequences of zeros, and what they take."""
    row = content["neuron"][label]
    lif, filled = row["lif"]["ns"]["median"], 2 * row["one sequence of zeros"]["ns"]["median"]
    share = 1 - filled / lif
    without = row[ratio]["over_lif"]["median"] / share if inverse else row["lif"]["over_minimum"]["median"] * share
    return (
        f"XLA on CPU fills a loop's buffer with zeros before writing it, one buffer in each pass (jax.lax.empty does "
        f"so too). This takes {filled:.2f} of {lif:.2f} ns; without it the ratio would be {without:.2f}"
    )


def unrolled(content, label):
    """The fastest way at T = 4 computes some of the chain twice, for want of fusions with two outputs."""
    row = content["neuron"][label]
    (ahead, back), (least, least_back) = (
        [stage["median"] for stage in row[name]["stages_ns"]] for name in ("lif", "minimum traffic")
    )
    alone = row["lif, spikes alone"]["stages_ns"][0]["median"]
    return (
        f"XLA on CPU has no fusion with two outputs, so the last membrane's chain is computed from x once more "
        f"(forward {ahead:.2f} ns, {alone:.2f} where only spikes are asked for, as in a network; minimum {least:.2f}), "
        f"and so is, for each row of the gradient, that of all later rows (backward {back:.2f} ns, minimum "
        f"{least_back:.2f}); loops have no such chains but are filled with zeros first"
    )


def convolutions(content, net):
    """What of a step is convolution, here and in SpikingJelly, and what is not."""
    whole, alone = content["steps"][net]["programs"], content["convolutions"][net]["stages"]["all"]
    ours, theirs = (whole[name]["ms"]["median"] for name in ("ours", "spikingjelly"))
    mine, torchs = (alone[name]["ms"]["median"] for name in ("ours", "torch"))
    return (
        f"its convolutions alone take {mine:.0f} ms of our {ours:.0f}, and in torch {torchs:.0f} of SpikingJelly's "
        f"{theirs:.0f} (tables.md, convolutions alone): Eigen's against oneDNN's; all else takes {ours - mine:.0f} and "
        f"{theirs - torchs:.0f} ms"
    )


SUMS = (
    "their sums over time are rows [B, N], read and written at each step; that costs twice as much an element where a "
    "row has 4 MB (T=4 and 16) as where it has 0.4 MB (T=100): tables.md, backward. A sum over neurons at each step "
    "was tried instead: faster at T=4, slower at T=16 and 100"
)
REASONS: dict[str, str | Callable[[dict[str, Any]], str]] = {
    **{f"SpikingJelly over ours, training step of {net}": functools.partial(convolutions, net=net) for net in NETS},
    "lif over minimum traffic, T=4": functools.partial(unrolled, label="T=4"),
    **{
        f"lif over minimum traffic, {label}": functools.partial(zeros, label=label, ratio="minimum traffic")
        for label in ("T=16", "T=100")
    },
    **{
        f"spyx over lif, {label}": functools.partial(zeros, label=label, ratio="spyx", inverse=True)
        for label in ("T=16", "T=100")
    },
    **{f"the same with gradients of decay and threshold, {label}": SUMS for label in ("T=4", "T=16")},
    "dispatch of a step": (
        "most of it is JAX handing over the state's leaves (tables.md, a step that only increments a counter)"
    ),
}


def reason(name, content):
    """Why a target was missed; a reason whose numbers were not measured is none."""
    found = REASONS.get(name, "unknown")
    try:
        return found if isinstance(found, str) else found(content)
    except KeyError:
        return "not measured"
