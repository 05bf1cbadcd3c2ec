"""Pages and a figure of the results.

``python -m benchmarks.page [FOLDER]`` makes them from the folder's bench.json.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import neuron, targets
from benchmarks.tables import donation, machines, table, tables
from benchmarks.timing import cell
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.study import Content

PUBLISHED = pathlib.Path(__file__).parent.parent / "docs" / "checks" / "bench"
PEERS = ("spyx", "spikingjelly", "snntorch", "norse")


def write(folder: pathlib.Path, content: Content) -> None:
    """Write README.md (the neuron), tables.md (the other parts), targets.md and speed.png (.pdf)."""
    (folder / "README.md").write_text(readme(content))
    load = ", ".join(f"{part} {value}" for part, value in content["load"].items())
    head = (
        f"# Speed: tables\n\n{machines(content)}. Load average of the machine, our own processes included, before each "
        f"part: {load}."
    )
    (folder / "tables.md").write_text("\n\n".join([head, *tables(content)]) + "\n")
    (folder / "targets.md").write_text(targets.page(content))
    if "neuron" in content:
        study.save_figure(figure(content), folder, "speed")


def readme(content: Content) -> str:
    """The text of README.md: the answer, the neuron, and what made it."""
    versions = {name: number for of in content.get("versions", {}).values() for name, number in of.items()}
    return f"""# Speed

How fast are the neuron and a training step on a CPU, beside other libraries as fast as they run, eagerly or compiled?

{answer(content)}
{neurons(content) if "neuron" in content else ""}
Training steps and all else: [tables](tables.md), [targets](targets.md), [time to an accuracy](time_to_accuracy.md).
**No GPU or TPU has run it**; there are pages on programs compiled for [an H100](h100.md) and for
[TPU slices](tpu.md).

Profiled once (commit 0645732f), a step of seven nets on one core spends 61 to 88 % of its time in convolutions, 3 to
8 % in the neuron, and up to 2 % in the chaos term. With nothing compiled before, a start of the small network takes
9.0 CPU-seconds, SpikingJelly's 2.7 eagerly and 22.0 compiled (once, commit 9c84c9f6).

`make bench{" ARGS=--quick" if content["quick"] else ""}` on {machines(content)}; CPU time on one core, median
(minimum-maximum) over interleaved rounds; `bench.json` holds the numbers. Versions:
{", ".join(f"{n} {v}" for n, v in versions.items())}.
"""


def answer(content: Content) -> str:
    """The medians of the neuron and of training steps, in bold; empty if neither was measured."""

    def between(values: Sequence[float]) -> str:
        return " to ".join(f"{value:.2f}" for value in sorted({min(values), max(values)}))

    nets = [row["programs"] for row in content.get("steps", {}).values()]
    steps = [programs["spikingjelly"]["over_ours"]["median"] for programs in nets if "spikingjelly" in programs]
    said = [f"A training step takes SpikingJelly, compiled or eagerly, {between(steps)} times ours"] if steps else []
    if rows := list(content.get("neuron", {}).values()):
        alone = [row[neuron.faster(row, "spikingjelly")]["over_lif"]["median"] for row in rows if "spikingjelly" in row]
        said += [f"its neuron alone {between(alone)} times ours"] if alone else []
        lif = [row["lif"]["over_minimum"]["median"] for row in rows]
        said += [f"ours {between(lif)} times the least memory traffic"]
    return f"**{'; '.join(said)}.**" if said else ""


def neurons(content: Content) -> str:
    """The table and picture of the neuron."""
    peers = [name for name in PEERS if name in content["agreement"]]
    rows = [
        [
            label,
            cell(row["lif"]["ns"]),
            cell(row["lif"]["over_minimum"]),
            *(cell(row[neuron.faster(row, name)]["over_lif"], 1) for name in peers),
        ]
        for label, row in content["neuron"].items()
    ]
    head = ["1e6 neurons (T=100: 1e5)", "lif, ns", "lif / minimum traffic", *(f"{name} / lif" for name in peers)]
    if content["quick"]:
        head[0] = "1e5 neurons (T=100: 1e4)"
    same = "; ".join(f"{name}: {content['agreement'][name]['same']}" for name in peers)
    same += "." + donation(content["neuron"])
    return f"""
{table(head, rows)}

Forward and backward of the neuron as two programs, float32, hard reset, nanoseconds per element and time step.
Minimum traffic: two elementwise programs that move 24 bytes, without the recurrence. PyTorch's
libraries {neuron.how(content["neuron"])}; spyx is compiled, as lif is. Agreement with lif: {same}

![time of each library](speed.png)
"""


def figure(content: Content) -> Any:
    """Bars of each program's nanoseconds, a panel for each T, with lines from the fastest round to the slowest."""
    panels = content["neuron"]
    drawn = empty_figure(4 * len(panels), 3.5)
    shown: dict[str, Any] = {}
    for axes, (label, row) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        names = sorted(row, key=lambda name: row[name]["ns"]["median"], reverse=True)
        for i, name in enumerate(names):
            ns = row[name]["ns"]
            ours = name.startswith("lif")
            bar = axes.barh(i, ns["median"], color=PALETTE[0 if ours else 5])
            (line,) = axes.plot([ns["min"], ns["max"]], [i, i], color=PALETTE[6], linewidth=1)
            shown |= {"csbp_jax, median" if ours else "others, median": bar, "fastest to slowest round": line}
        axes.set_yticks(range(len(names)), [name.replace(", learned", ",\nlearned") for name in names], fontsize=7)
        axes.set(xlabel="ns per element and time step", title=label)
    drawn.legend(shown.values(), shown, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return drawn


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]) if sys.argv[1:] else PUBLISHED
    write(target, json.loads((target / "bench.json").read_text()))
