"""Targets of speed and the measured values, from bench.json."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.neuron import faster as faster_program
from benchmarks.neuron import how
from benchmarks.tables import machines
from benchmarks.timing import cell

Content = Mapping[str, Any]
Value = tuple[Mapping[str, float], int, float]
"""``(numbers, digits, unit)``; a number that was not measured in rounds is a median alone."""

Read = Callable[[Content], Value]

TS = ("T=4", "T=16", "T=100")
OTHER_NEURONS = ("cuba", "alif", "clif", "ilif", "psn", "sliding_psn")
NETS = ("CNN7", "VGGSNN", "ResNet-19", "SEW-ResNet-18")


def page(content: Content) -> str:
    """The table in Markdown, with "not measured" where a part is missing, and reasons for missed targets."""
    lines = ["| target | limit | measured | verdict | part |", "|---|---|---|---|---|"]
    missed, outcomes = [], []
    for part, name, limit, read in rows():
        try:
            numbers, digits, unit = read(content)
        except KeyError:
            lines.append(f"| {name} | {limit} | not measured | | {part} |")
            continue
        met = verdict(limit, unit * numbers["median"])
        missed += [] if met else [name]
        resolved = all(verdict(limit, unit * value) == met for value in numbers.values())
        outcome = ("met" if met else "missed") if resolved else f"not resolved, median {'within' if met else 'beyond'}"
        measured = cell(numbers, digits, unit) if len(numbers) > 1 else f"{unit * numbers['median']:.{digits}f}"
        outcomes.append(outcome)
        lines.append(f"| {name} | {limit} | {measured} | {outcome} | {part} |")
    why: dict[str, list[str]] = {}
    for name in missed:
        why.setdefault(reason(name, content), []).append(name)
    reasons = "\n".join(f"- {'; '.join(names)}: {text}" for text, names in why.items())
    text = "\n".join(lines)
    return f"""# Speed: targets

Of {len(outcomes)} targets {outcomes.count("met")} are met and {outcomes.count("missed")} missed; the others are not
resolved: the range of the rounds contains the limit.

Median (minimum-maximum). A number without a range is exact (temporaries) or was measured once (processes), which cannot
say how it varies. `make bench` measures all, `make bench ARGS="--only PART"` a part; here, on {machines(content)}.
PyTorch's libraries {how(content.get("neuron", {}))}. No GPU or TPU was available ([compiled for an H100](h100.md)).

{text}
{f"{chr(10)}Why medians are beyond the limit:{chr(10)}{chr(10)}{reasons}{chr(10)}" if missed else ""}"""


def verdict(limit: str, value: float) -> bool:
    """Whether a value is within a limit such as "<= 1.4 x"."""
    sign, number, *_ = limit.split()
    return value <= float(number) if sign == "<=" else value >= float(number)


def rows() -> Iterator[tuple[str, str, str, Read]]:
    """``(part, target, limit, content -> (numbers, digits, unit))`` of every target."""
    for label in TS:
        yield "neuron", f"lif over minimum traffic, {label}", "<= 1.4 x", neuron(label, "lif", "over_minimum")
    for label in TS:
        learned = neuron(label, "lif, learned decay and threshold", "over_minimum")
        yield "neuron", f"the same with gradients of decay and threshold, {label}", "<= 2.1 x", learned
    for (peer, limit), label in itertools.product(
        {"spyx": 1.6, "spikingjelly": 1.5, "snntorch": 1.5, "norse": 1.5}.items(), TS
    ):
        yield "neuron", f"{peer} over lif, {label}", f">= {limit} x", faster_neuron(label, peer)
    for name, label in itertools.product(OTHER_NEURONS, TS):
        yield "other_neurons", f"{name} over lif, per state, {label}", "<= 1.3 x", per_state(label, name)
    for net in NETS:
        yield "steps", f"SpikingJelly over ours, training step of {net}", ">= 1.5 x", faster(net)
    for net in NETS:
        yield "steps", f"chaos term, share of a step of {net}", "<= 2 %", share(net)
    yield "dispatch", "dispatch of a step", "<= 300 us", lambda c: (c["dispatch"]["us"], 0, 1)
    yield "long", "T=1000 in chunks, time over whole", "<= 1.5 x", lambda c: (c["long"]["chunks_over_whole"], 2, 1)
    yield "long", "T=1000 in chunks, temporaries over those of T=64", "<= 2 x", temporaries
    yield "members", "a member of 8 in a loop over one alone, digits", "<= 1.1 x", member
    yield "experiment", "24 dense runs, time over that of their steps alone", "<= 2 x", over_loop
    yield "processes", "64 processes over one sweep of 64", ">= 3 x", times_less
    for name in ("cifar10_small", "cifar10_dvs_small"):
        yield "waiting", f"waiting for data, {name}", "<= 3 %", waits(name)
    yield "starts", "start to first step, nothing compiled", "<= 10 s", lambda c: (c["starts"]["cold"], 1, 1)
    yield "starts", "start to first step, compiled before", "<= 5 s", lambda c: (c["starts"]["warm"], 1, 1)


def neuron(label: str, program: str, ratio: str) -> Read:
    return lambda c: (c["neuron"][label][program][ratio], 2, 1)


def faster_neuron(label: str, peer: str) -> Read:
    """Of a library's programs the faster: eagerly or compiled."""
    return lambda c: (c["neuron"][label][faster_program(c["neuron"][label], peer)]["over_lif"], 2, 1)


def per_state(label: str, name: str) -> Read:
    return lambda c: (c["other_neurons"]["rows"][label][name]["over_lif_per_state"], 2, 1)


def faster(net: str) -> Read:
    return lambda c: (c["steps"][net]["programs"]["spikingjelly"]["over_ours"], 2, 1)


def share(net: str) -> Read:
    return lambda c: (c["steps"][net]["chaos_share"], 1, 100)


def waits(name: str) -> Read:
    return lambda c: (c["waiting"][name]["share"], 2, 100)


def member(content: Content) -> Value:
    return content["members"]["digits"]["loop"], 2, 1


def over_loop(content: Content) -> Value:
    return content["experiment"]["over_loop"], 2, 1


def times_less(content: Content) -> Value:
    return {"median": content["processes"]["times_less"]}, 1, 1


def temporaries(content: Content) -> Value:
    programs = content["long"]["programs"]
    return {"median": programs["in chunks"]["temporary_MB"] / programs["64 steps"]["temporary_MB"]}, 2, 1


# Reasons for missed targets, with numbers of the same bench.json; they come from profiles and compiled programs.


def in_place(content: Content, label: str) -> str:
    """The bytes that a loop moves, and the time that copies take where it may not write over its arguments."""
    row = content["neuron"][label]
    lif, copied = (row[name]["ns"]["median"] for name in ("lif", "lif, arguments kept"))
    return (
        f"{LIF_BYTES[label]} bytes move, where minimum traffic moves 24: u is written in a loop and read once more for "
        f"the spikes; and the rows of the loop are written twice, as XLA on CPU has no fusion with two outputs. (Where "
        f"the loop may not write over its arguments, XLA copies them: {copied:.2f} ns in place of {lif:.2f})"
    )


def unrolled(content: Content, label: str) -> str:
    """The time lost at T = 4 where parts of the chain are computed twice, since fusions have a single output."""
    row = content["neuron"][label]
    (ahead, back), (least, least_back) = (
        [stage["median"] for stage in row[name]["stages_ns"]] for name in ("lif", "minimum traffic")
    )
    spikes_only = row["lif, spikes alone"]["stages_ns"][0]["median"]
    return (
        f"XLA on CPU has no fusion with two outputs, so the last membrane's chain is computed from x once more "
        f"(forward {ahead:.2f} ns, {spikes_only:.2f} where only spikes are asked for, as in a network; "
        f"minimum {least:.2f}), "
        f"and so is, for each row of the gradient, that of all later rows (backward {back:.2f} ns, minimum "
        f"{least_back:.2f})"
    )


def convolutions(content: Content, net: str) -> str:
    """The share of convolutions in a step, in this package and in SpikingJelly."""
    steps, convolutions = content["steps"][net]["programs"], content["convolutions"][net]["stages"]["all"]
    ours, jelly = (steps[name]["ms"]["median"] for name in ("ours", "spikingjelly"))
    ours_alone, torch_alone = (convolutions[name]["ms"]["median"] for name in ("ours", "torch"))
    return (
        f"its convolutions alone take {ours_alone:.0f} ms of our {ours:.0f}, and in torch {torch_alone:.0f} of "
        f"SpikingJelly's {jelly:.0f} (tables.md, convolutions alone): ours against oneDNN's; all else takes "
        f"{ours - ours_alone:.0f} and {jelly - torch_alone:.0f} ms, and if ours took none, the ratio would be "
        f"{jelly / ours_alone:.2f}"
    )


def products(content: Content, label: str, steps: int, moved: int) -> str:
    """The operations and bytes of a PSN, of one element at one time step."""
    rate = 6 * steps / (1.3 * content["other_neurons"]["rows"][label]["lif"]["ns"]["median"])
    return (
        "products of all pairs of time steps, one in the forward pass and two in the backward pass, are at least "
        f"6 T = {6 * steps} operations an element, which alone would have to run at {rate:.0f} Gflop/s of one core; "
        f"and a product is a kernel of its own, so that {moved} bytes move, where lif moves {LIF_BYTES[label]}"
    )


def passes(content: Content, label: str) -> str:
    """The bytes of a sliding PSN of order 2, of one element at one time step."""
    del content
    return (
        f"48 bytes move, where lif moves {LIF_BYTES[label]}: 8 in the forward pass, and in the backward pass 12 for "
        "the cotangent of u, 8 for that of x, 8 for each of two weights and 4 for the threshold, since XLA on CPU "
        "computes each sum in a loop of its own"
    )


def sums(content: Content, label: str) -> str:
    """What the gradients of decay and threshold add to the backward pass, in long rows over in short ones."""

    def added(label: str) -> float:
        learned, fixed = (
            content["neuron"][label][name]["stages_ns"][1]["median"]
            for name in ("lif, learned decay and threshold", "lif")
        )
        return float(learned - fixed)

    return (
        f"their sums over time are rows [B, N], read and written at each step; that costs "
        f"{added(label) / added('T=100'):.1f} times as much an element here, where a row has 4 MB, as at T=100, where "
        "it has 0.4 MB (tables.md, backward). A sum over neurons at each step was tried instead: faster at T=4, slower "
        "at T=16 and 100"
    )


LIF_BYTES = {"T=4": 24, "T=16": 28, "T=100": 28}
"""Bytes that lif reads and writes for an element at one time step. Beyond T=4, in a loop, u is read again for the
spikes."""

IN_A_LOOP = """. In a loop, as beyond T=4, the neuron alone would take 0.7 times as long, which is torch's time, but \
steps of networks up to 1.03 times: there its chain is fused with the norm before it \
([tried](../../design/decisions.md#speed-on-cpus))"""

REASONS: dict[str, str | Callable[[Content], str]] = {
    **{f"SpikingJelly over ours, training step of {net}": functools.partial(convolutions, net=net) for net in NETS},
    "lif over minimum traffic, T=4": functools.partial(unrolled, label="T=4"),
    **{
        f"{ratio}, {label}": functools.partial(in_place, label=label)
        for ratio in ("lif over minimum traffic", "spyx over lif")
        for label in ("T=16", "T=100")
    },
    **{
        f"{peer} over lif, {label}": (
            "torch's compiler writes several outputs in one loop over an element, so that each pass reads and writes "
            "everything once; XLA on CPU has no fusion with two outputs (above)" + IN_A_LOOP * (label == "T=4")
        )
        for peer in ("spikingjelly", "snntorch")
        for label in ("T=4", "T=16")
    },
    **{
        f"the same with gradients of decay and threshold, {label}": functools.partial(sums, label=label)
        for label in ("T=4", "T=16")
    },
    **{
        f"clif over lif, per state, {label}": (
            "two hyperbolic tangents at each time step, in the forward pass and again in the backward pass, where "
            "keeping them would move 16 bytes more an element; its rows of 4 MB (T=4 and 16) are also read several "
            "times, since a fusion has a single output"
        )
        for label in TS
    },
    **{
        f"alif over lif, per state, {label}": (
            "rows of 4 MB (T=4 and 16) are read several times, since a fusion has a single output and two states are "
            "written; and in a loop (beyond T=4) the buffer of the adaptation is filled with zeros first, since there "
            "is nothing that it could be written over"
        )
        for label in TS
    },
    **{
        f"psn over lif, per state, {label}": functools.partial(products, label=label, steps=steps, moved=moved)
        for label, steps, moved in (("T=4", 4, 56), ("T=16", 16, 56), ("T=100", 100, 48))
    },
    **{f"sliding_psn over lif, per state, {label}": functools.partial(passes, label=label) for label in TS},
    "start to first step, nothing compiled": (
        "three programs are compiled, for the initial state, the norms of the gradients and the step, which takes most "
        "of the time on this processor"
    ),
    "dispatch of a step": (
        "most of it is JAX handing over the state's leaves (tables.md, a step that only increments a counter), and "
        "some the allocator's single arena (also there)"
    ),
}


def reason(name: str, content: Content) -> str:
    """The reason why a target was missed, or "not measured" if its numbers are missing."""
    text = REASONS.get(name, "unknown")
    try:
        return text if isinstance(text, str) else text(content)
    except KeyError:
        return "not measured"
