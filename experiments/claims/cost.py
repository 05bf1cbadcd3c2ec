"""Run the plan of docs/results/claims_cost/plan.md: what the chaos term costs in time, memory and tries.

    python -m experiments.claims.cost [--nets dense conv vgg sew spikformer recurrent] [--pairs 5] [--rounds 30]
        [--out docs/results/claims_cost]

A net that ``cost.json`` has from a quiet machine, with as many pairs and rounds, is not timed again; others are.
``--pairs 0`` measures memory only.
"""

import contextlib
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import steps
from benchmarks.process import Worker, in_rounds
from csbp_jax import configs
from csbp_jax.config import Chaos, Config, Model, to_json
from csbp_jax.reporting.intervals import student
from experiments import study
from experiments.claims import tries
from experiments.study import Content

MODULE = "python -m experiments.claims.cost"
MARGIN = 0.02
"""A step is free if its time is equal within this share."""
BLOCK = 0.25
"""Seconds of a block of steps, roughly."""
QUIET = 0.98
"""Share of the wall clock for which the process has a core, from which on the machine counts as quiet."""
DRAWS = 10_000
PROGRAMS = ("plain", "plain again", "CSBP")

NETS: dict[str, Config] = {
    "dense": Config(
        batch_size=20,
        model=Model("dense", (8, 8, 1), time_steps=4, features=(128, 128)),
        chaos=Chaos(z0=(10.0,), beta=0.8, taps=("fc1.membrane",), reduce="neuron"),
        optimizer=steps.OPTIMIZER,
    ),
    "conv": configs.load("digits_events"),
    "vgg": steps.narrow(steps.NETS["VGGSNN"], 0.25),
    "sew": steps.narrow(steps.NETS["SEW-ResNet-18"], 0.25),
    "spikformer": configs.load("digits_spikformer"),
    "recurrent": configs.load("fsdd"),
}
TITLES = {
    "dense": "dense 128-128 on digits, T = 4, batch 20",
    "conv": "small_conv of digits_events, T = 10, batch 32",
    "vgg": "VGGSNN, a quarter of its width, 48x48 events, T = 4, batch 2",
    "sew": "SEW-ResNet-18, a quarter of its width, 64x64, T = 4, batch 4",
    "spikformer": "Spikformer of 1 block and 64 channels on digits, T = 4, batch 32",
    "recurrent": "recurrent 128 of fsdd, T = 40, batch 64",
}


# --- measurement --------------------------------------------------------------------------------------------------


def measure_pair(config: Config, rounds: int) -> Content:
    """Time the three programs in fresh processes, in blocks of steps whose order is random in every round.

    Returns:
      ``{steps, wall: {program: [rounds]}, cpu: ..., memory: {program: MB}}``, times in seconds per step; only the
      memory if there are no rounds.
    """
    with contextlib.ExitStack() as stack:
        workers, memory = {}, {}
        programs = random.sample(PROGRAMS, len(PROGRAMS)) if rounds else ["plain", "CSBP"]
        for name in programs:
            workers[name] = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
            made = config if name == "CSBP" else steps.plain(config)
            memory[name] = workers[name].ask(make="step", arguments={"config": to_json(made)})["peak_MB"]
        if not rounds:
            return {"memory": memory}
        calls = max(1, round(BLOCK / sum(workers["plain"].ask(time=3)["wall"])))
        clocks = in_rounds(workers, rounds, calls)
    seconds = {
        clock: {name: [float(f"{value:.5g}") for value in clocks[name][clock].sum(1)] for name in PROGRAMS}
        for clock in ("wall", "cpu")
    }
    return {"steps": calls, **seconds, "memory": memory}


# --- analysis -----------------------------------------------------------------------------------------------------


def ratio(pairs: Sequence[Content], clock: str, numerator: str) -> Content:
    """The time of a step over that of plain backpropagation: ratio of block medians, mean over pairs of processes.

    Intervals are by the bootstrap over pairs of processes, and over rounds within each; ``equal`` says whether
    the 90 % interval lies within :data:`MARGIN` of 1 (two one-sided tests at 5 % each).
    """
    generator = np.random.default_rng(0)
    times = np.array([[pair[clock][name] for name in (numerator, "plain")] for pair in pairs])  # [pairs, 2, rounds]

    def of(times: NDArray[np.float64]) -> float:
        medians = np.median(times, axis=2)
        return float(np.exp(np.mean(np.log(medians[:, 0]) - np.log(medians[:, 1]))))

    count, _, rounds = times.shape
    drawn = []
    for _ in range(DRAWS):
        rows = generator.integers(count, size=count)
        columns = generator.integers(rounds, size=(count, rounds))
        drawn.append(of(np.take_along_axis(times[rows], columns[:, None], axis=2)))
    return with_ends(of(times), np.quantile(drawn, (0.025, 0.05, 0.95, 0.975)))


def with_ends(ratio: float, ends: Any) -> Content:
    """A ratio, the ends of its 95 and 90 % intervals in rising order, and whether it equals 1 within the margin."""
    low, low90, high90, high = map(float, ends)
    equal = low90 > 1 - MARGIN and high90 < 1 + MARGIN
    return {"ratio": ratio, "low": low, "high": high, "low90": low90, "high90": high90, "equal": equal}


def by_student(pairs: Sequence[Content]) -> Content:
    """Ratios by the wall clock with intervals by Student's t over pairs of processes; they are not in the plan.

    The bootstrap over a few pairs is too narrow. The ends of a single pair are NaN.
    """

    def of(name: str) -> Content:
        logs = [float(np.log(np.median(pair["wall"][name]) / np.median(pair["wall"]["plain"]))) for pair in pairs]
        (mean, low, high), (_, low90, high90) = student(logs), student(logs, 0.9)
        return with_ends(float(np.exp(mean)), np.exp(np.array([low, low90, high90, high], float)))

    return {name: of(name) for name in PROGRAMS[1:]}


def analyse(pairs: Sequence[Content]) -> Content:
    """Ratios by both clocks, of CSBP and of plain backpropagation against itself, and whether the machine was quiet."""
    share = float(np.median([np.divide(pair["cpu"][name], pair["wall"][name]) for pair in pairs for name in PROGRAMS]))
    return {
        "share_of_core": share,
        "quiet": share >= QUIET,
        "milliseconds": 1e3 * float(np.median([pair["wall"]["plain"] for pair in pairs])),
        **{clock: {name: ratio(pairs, clock, name) for name in PROGRAMS[1:]} for clock in ("wall", "cpu")},
    }


def finished(net: Content, pairs: int, rounds: int) -> bool:
    """Whether a net has been timed on a quiet machine, with at least as many pairs of as many rounds."""
    if not net.get("analysis", {}).get("quiet"):
        return False
    return len(net["pairs"]) >= pairs and len(net["pairs"][0]["wall"]["plain"]) >= rounds


def verdict(analysis: Mapping[str, Any]) -> str:
    """The word of the plan for the time of a step: free, dearer, cheaper, or not decided."""
    result, control = (analysis["wall"][name] for name in ("CSBP", "plain again"))
    if not analysis["quiet"] or not control["equal"]:
        return "not decided"
    if result["equal"]:
        return "free"
    if result["low"] > 1:
        return "dearer"
    return "cheaper" if result["high"] < 1 else "not decided"


# --- page ---------------------------------------------------------------------------------------------------------


def page(content: Content) -> str:
    """Tables of time, memory and tries."""

    def text(result: Mapping[str, float]) -> str:
        return f"{result['ratio']:.3f} [{result['low']:.3f}, {result['high']:.3f}]"

    again = {name: by_student(net["pairs"]) for name, net in content["nets"].items() if "pairs" in net}
    timed = {name: net for name, net in content["nets"].items() if "analysis" in net}
    rows = [
        [
            TITLES[name],
            f"{net['analysis']['milliseconds']:.3g}",
            text(net["analysis"]["wall"]["CSBP"]),
            text(net["analysis"]["wall"]["plain again"]),
            text(net["analysis"]["cpu"]["CSBP"]),
            f"{100 * net['analysis']['share_of_core']:.0f}",
            verdict(net["analysis"]),
            text(again[name]["CSBP"]),
            verdict(net["analysis"] | {"wall": again[name]}),
        ]
        for name, net in timed.items()
    ]
    head = ["net", "step (ms)", "CSBP / plain, wall clock", "plain / plain, wall clock"]
    head += ["CSBP / plain, CPU time", "share of a core (%)", "verdict"]
    head += ["CSBP / plain, Student's t over sets (not planned)", "verdict by it"]
    memory = [
        [TITLES[name], f"{plain:.3f}", f"{csbp:.3f}", f"{100 * (csbp / plain - 1):+.2f}"]
        for name, net in content["nets"].items()
        if "memory" in net
        for plain, csbp in [(net["memory"]["plain"], net["memory"]["CSBP"])]
    ]
    memory_head = ["net", "plain (MB)", "CSBP (MB)", "difference (%)"]
    parts = ["### Time of a step", study.table(head, rows)] if rows else []
    parts += ["### Peak memory of the compiled step", study.table(memory_head, memory)]
    return "\n\n".join([*parts, "### Accuracy at equal tries", tries.table(content["tries"])])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "claims_cost")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--pairs", type=int, default=5, help="fresh processes of each program")
    parser.add_argument("--rounds", type=int, default=30, help="blocks of steps in each process")
    options = parser.parse_args(arguments)
    random.seed(0)
    file = options.out / "cost.json"
    content = study.resume(parser, file, {}, {"nets": {}, "provenance": {}})
    content["tries"] = {
        f"{arm} ({path.parent.name})": tries.compare(result)
        for path in tries.FILES
        if path.exists()
        for arm, result in json.loads(path.read_text())["arms"].items()
        if result["chosen"].keys() >= set(tries.TERMS)
    }
    for name in options.nets:
        net = content["nets"].setdefault(name, {})
        if finished(net, options.pairs, options.rounds) or (not options.pairs and "memory" in net):
            continue
        print(f"{name}: load average {os.getloadavg()[0]:.1f}", flush=True)
        pairs = [measure_pair(NETS[name], options.rounds) for _ in range(options.pairs)]
        net["memory"] = (pairs or [measure_pair(NETS[name], 0)])[0].pop("memory")
        if pairs:
            net |= {"pairs": pairs, "analysis": analyse(pairs), "provenance": study.provenance(MODULE)}
        study.store(file, content, MODULE)
    study.write(options.out, "cost", content, page(content))


if __name__ == "__main__":
    study.run(main)
