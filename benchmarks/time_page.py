"""The times to an accuracy, as a page."""

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import tables
from benchmarks.tables import table
from csbp_jax.reporting.statistics import student

THRESHOLDS = (0.7, 0.8)
COMPILED = "spikingjelly_compiled"
PEERS = {COMPILED: "under `torch.compile`", "spikingjelly": "eagerly"}
"""How SpikingJelly runs, by the name of its runs in the file; the first is the faster, and counts."""
TARGETS = {COMPILED: 1.5, "spikingjelly": 1.3}
CLOCKS = {"wall": "wall time", "cpu": "CPU time"}

Run = Mapping[str, Any]


def reached(run: Run, threshold: float) -> dict[str, float] | None:
    """The first epoch of a run whose validation accuracy is at least ``threshold``; None if there is none."""
    return next((epoch for epoch in run["epochs"] if epoch["accuracy"] >= threshold), None)


def seconds_to(threshold: float, run: Run, clock: str) -> float | None:
    """Seconds from the start of a run to the end of that epoch."""
    epoch = reached(run, threshold)
    return epoch[clock] if epoch else None


def seconds_to_crossing(threshold: float, run: Run, clock: str) -> float | None:
    """Seconds to where a line between the accuracies at the ends of two epochs crosses the threshold.

    The second of them is the first with at least that accuracy; if it is the run's first, this is its end.
    """
    above, epochs = reached(run, threshold), run["epochs"]
    if above is None:
        return None
    below = epochs[max(epochs.index(above) - 1, 0)]
    ends = [epoch["accuracy"] for epoch in (below, above)], [epoch[clock] for epoch in (below, above)]
    return float(np.interp(threshold, *ends))


def per_epoch(run: Run, clock: str) -> float:
    """Seconds of an epoch and its validation, averaged over all epochs but the first."""
    first, *_, last = run["epochs"]
    return (last[clock] - first[clock]) / (last["epoch"] - first["epoch"])


def ratios(
    content: Mapping[str, Any], value: Callable[[Run, str], float | None], clock: str, name: str = "spikingjelly"
) -> list[float]:
    """SpikingJelly over ours, for each seed where ``value(run, clock)`` is a number for both; name: of PEERS."""
    ours, peer = content["runs"]["csbp_jax"], content["runs"][name]
    pairs = [(value(ours[seed], clock), value(peer[seed], clock)) for seed in ours if seed in peer]
    return [b / a for a, b in pairs if a is not None and b is not None]


def looks(content: Mapping[str, Any]) -> list[int]:
    """Numbers of pairs at which intervals could be looked at: those that the commands of the runs asked for."""
    commands = {run["command"] for of_seed in content["runs"].values() for run in of_seed.values()}
    wanted = {int(re.search(r"--seeds (\d+)", command)[1]) for command in commands}  # type: ignore[index]
    return sorted(wanted - {1})  # a single pair has no interval


def confidence(content: Mapping[str, Any]) -> float:
    """Of each interval of the last look: ``1 - 0.05 / k`` for the k-th look.

    Together the looks err in more than 5 %: a later one does not take back the error of the first.
    """
    return 1 - 0.05 / max(1, len(looks(content)))


def mean_ratio(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """Geometric mean with its interval, by Student's t of the logarithms."""
    mean, low, high = student([math.log(value) for value in values], confidence)
    return math.exp(mean), None if low is None else math.exp(low), None if high is None else math.exp(high)


def page(content: Mapping[str, Any]) -> str:
    """The text of the page, from the content of the file of a network."""
    config = content["config"]
    model, data, optimiser = config["model"], config["data"], config["optimizer"]
    runs = [run for of_seed in content["runs"].values() for run in of_seed.values()]
    versions = ", ".join(f"{name} {number}" for name, number in runs[0]["versions"].items())
    loads = [run["load"] for run in runs]
    features = ", ".join(map(str, model["features"]))
    cores = f"{content['cores']} core{'s' if content['cores'] > 1 else ''}"
    alone = ""
    if "convolutions" in content:
        alone = tables.convolutions(content["convolutions"]["nets"]) + "\n\nCPU time of one core.\n\n"
    level, added = f"{100 * confidence(content):.4g}", ""
    if len(looked_at := looks(content)) > 1:
        numbers = " and ".join(map(str, looked_at))
        errors = [5 / look for look in range(1, len(looked_at) + 1)]
        levels = " and ".join(f"{100 - error:.4g}" for error in errors)
        added = f" Intervals were looked at with {numbers} pairs, at {levels} %: "
        added += f"together they err in at most {sum(errors):.4g} %."
    return f"""# Time to an accuracy

How long does training take to a validation accuracy, against SpikingJelly?

**SpikingJelly's time over ours: {"; ".join(_answer(content, name) for name in run_here(content))}, by the clock.**

{_ratios(content)}

Geometric mean over pairs of runs [{level} % interval of Student's t]. Target: at least
{TARGETS[COMPILED]} under `torch.compile`, {TARGETS["spikingjelly"]} eagerly. A pair has a ratio if both runs reached
the accuracy. "Between epochs": to where a line between the accuracies at the ends of two epochs crosses it.{added}

{" ".join(_accuracy_difference(content, name) for name in run_here(content))}{_why_missed(content)}

## Design

`{runs[0]["command"].split(" --seeds")[0]}` on {content["machine"]}; all pinned to the same {cores}.
Load average before each run, to which the run before adds up to the number of cores: {min(loads):.1f} to
{max(loads):.1f}. Where it is above that number, other programs shared the cores, and CPU time is the one to
compare.{_remark(content)}

CIFAR-10's images (in the runs published here, re-encoded as JPEG), of which one tenth is the validation split, whose
accuracy this page is about. `small_conv` with {features} channels and {model["pool"]} pooling,
T = {model["time_steps"]}, batch {config["batch_size"]}, {config["epochs"]} epochs, AdamW with a rate of
{optimiser["lr"]} (linear warm-up over {optimiser["warmup_epochs"]:g} epoch, then a cosine to 0) and a weight decay of
{optimiser["weight_decay"]}, label smoothing {config["loss"]["smoothing"]:g}, augmentation:
{", ".join(data["augment"])}. Plain backpropagation. Data, splits, loss, optimiser and distribution of initial
weights are the same; the random numbers are not. Seconds count from the start of the process, with imports, compilation
(nothing was compiled before) and validation after each epoch.

Ours is `csbp_jax train`, compiled, with its metrics, its check of every step for non-finite numbers, checkpoints and
log. SpikingJelly has multi-step mode, the first convolution and norm once per image (ours too), whole batches of uint8
images that are augmented by indexing, channels last, the fused AdamW, and no metrics or log within an epoch
(`benchmarks/peers/train_spikingjelly.py`); its neurons are those of its backend `torch`, the only one for CPUs.

{alone}Versions: {versions}; {", ".join(content["peers"])}. The file beside this page holds each epoch of each run.
"""


def run_here(content: Mapping[str, Any]) -> list[str]:
    """The names of PEERS that have runs."""
    return [name for name in PEERS if content["runs"].get(name)]


def _pairs(content: Mapping[str, Any], name: str) -> int:
    return len(content["runs"]["csbp_jax"].keys() & content["runs"][name].keys())


def _answer(content: Mapping[str, Any], name: str) -> str:
    """The ratios by wall time that every pair has, in words."""
    level, pairs = confidence(content), _pairs(content, name)
    rows: dict[str, Callable[[Run, str], float | None]] = {
        "to 70 %": functools.partial(seconds_to, THRESHOLDS[0]),
        "an epoch": per_epoch,
    }
    values_of = {label: ratios(content, value, "wall", name) for label, value in rows.items()}
    texts = [f"{_cell(values, level)} {label}" for label, values in values_of.items() if 0 < len(values) == pairs]
    return f"{PEERS[name]} {', '.join(texts) or 'not reached in every run'}"


def _remark(content: Mapping[str, Any]) -> str:
    """What a reader must know of these runs alone; it is written into the file by hand."""
    return f"\n\n{content['remark']}" if "remark" in content else ""


def _ratios(content: Mapping[str, Any]) -> str:
    head = ["", "SpikingJelly", *(f"{label}, it / ours" for label in CLOCKS.values()), "pairs"]
    head += [f"target, {label}" for label in CLOCKS.values()]
    rows: list[tuple[str, Callable[[Run, str], float | None]]] = [
        (f"to {100 * threshold:.0f} %{where}", functools.partial(seconds, threshold))
        for threshold in THRESHOLDS
        for where, seconds in (("", seconds_to), (", between epochs", seconds_to_crossing))
    ]
    rows.append(("an epoch, without start and compilation", per_epoch))
    level, body = confidence(content), list[list[str]]()
    for (label, value), name in itertools.product(rows, run_here(content)):
        both, pairs = [ratios(content, value, clock, name) for clock in CLOCKS], _pairs(content, name)
        if not (number := len(both[0])):
            continue
        cells = [_cell(values, level) for values in both]
        verdicts = ["not reached in every run"] * len(CLOCKS)
        if 0 < number == pairs:
            verdicts = [_verdict(*mean_ratio(values, level), TARGETS[name]) for values in both]
        body.append([label, PEERS[name], *cells, f"{number} of {pairs}", *verdicts])
    return table(head, body)


def _accuracy_difference(content: Mapping[str, Any], name: str) -> str:
    ours, peer = content["runs"]["csbp_jax"], content["runs"][name]
    last = [[of[seed]["epochs"][-1]["accuracy"] for seed in ours if seed in peer] for of in (ours, peer)]
    if not last[0]:
        return ""
    differences = [100 * (a - b) for a, b in zip(*last, strict=True)]
    mean, low, high = student(differences, confidence(content))
    interval = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    difference = f"{mean:+.2f}{interval} points"
    return f"Validation accuracy after the last epoch, ours minus SpikingJelly's {PEERS[name]}: {difference}."


def _why_missed(content: Mapping[str, Any]) -> str:
    """Why an epoch misses its target under torch.compile; empty if it does not, or if convolutions are not timed."""
    values = ratios(content, per_epoch, "wall", COMPILED) if content["runs"].get(COMPILED) else []
    if not values or "convolutions" not in content:
        return ""
    if _verdict(*mean_ratio(values, confidence(content)), TARGETS[COMPILED]) != "missed":
        return ""
    (net,) = content["convolutions"]["nets"].values()
    torch = net["stages"]["all"]["torch"]["over_ours"]["median"]
    cpu, _, _ = mean_ratio(ratios(content, per_epoch, "cpu", COMPILED))
    return f"""

An epoch misses its target under `torch.compile`: convolutions are the largest [part of our step](README.md), and
alone they take torch {torch:.2f} times our time (below). By CPU time an epoch takes it {cpu:.2f} times ours: a second
core speeds our step up less."""


def _cell(values: Sequence[float], confidence: float) -> str:
    if not values:
        return ""
    mean, low, high = mean_ratio(values, confidence)
    return f"{mean:.2f}" if low is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _verdict(mean: float, low: float | None, high: float | None, target: float = TARGETS["spikingjelly"]) -> str:
    if low is None or high is None or low < target <= high:
        return f"not resolved, mean {'above' if mean >= target else 'below'}"
    return "met" if low >= target else "missed"
