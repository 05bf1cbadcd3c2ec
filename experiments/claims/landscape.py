"""Run the plan of docs/results/landscape/plan.md: sharpness, barriers and training loss of CSBP's minima.

    python -m experiments.claims.landscape [--data-dir data] [--seeds N] [--parts nets loss]
        [--nets docs/results/claims/generalisation.json docs/results/claims_events/events.json]
        [--out docs/results/landscape]

nets: sharpness and barriers of the nets of the study of generalisation, which are trained again. loss: training loss at
equal gradient evaluations. --seeds: the largest number of seeds, rounded up to blocks. What is done is read from
``landscape.json`` and not done again; an arm that no file of --nets has, or whose data are not in --data-dir, is left
out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.instruments.barrier import barrier_above_line
from experiments import study
from experiments.claims import generalisation, landscape_report, loss_reached, minima, nets, runs
from experiments.claims.generalisation import Job
from experiments.claims.settings import KIND
from experiments.study import Content

MODULE = "python -m experiments.claims.landscape"
BLOCK = 16
"""Seeds that are trained and measured as one program."""
FIRST_SEEDS = 16
"""Seeds of each arm before part 3 begins."""
OTHER = 1_000_000
"""Added to a seed: the source of the other order of batches, and of other initial weights."""
CONDITIONS = ("P", "B", "C", "D", "S", "SAM")
PAIRS = {
    "P-P'": ("P", "P'"),
    "B-B'": ("B", "B'"),
    "C-C'": ("C", "C'"),
    "D-D'": ("D", "D'"),
    "P-C'": ("P", "C'"),
    "B-C'": ("B", "C'"),
    "C-D'": ("C", "D'"),
    "B-C": ("B", "C"),
    "C-D": ("C", "D"),
    "B-B''": ("B", "B''"),
}
"""End points that are joined by a line; a prime is another order of batches, two are other initial weights too."""


class Arm(NamedTuple):
    """An arm of the plan: its data set, its seeds, those of the barriers, and draws of the noise (with both signs)."""

    data: str
    seeds: int
    lines: int
    draws: int


ARMS = {
    "digits, wrong labels": Arm("digits", 64, 32, 32),
    "digits": Arm("digits", 64, 32, 32),
    "cifar10": Arm("cifar10", 32, 16, 8),
}


# --- nets of the study of generalisation ----------------------------------------------------------------------------


def train_ends(name: str, task: runs.Task, origin: Content, seeds: Sequence[int], lines: bool) -> dict[str, Any]:
    """Train the end points of seeds: those of all conditions and, for lines, the second ends of the pairs."""
    arm, runner = origin["arms"][name], generalisation.Runner(origin, None, task)
    draws = [runs.draw(task, seed, arm["wrong"]) for seed in seeds]
    others = [runs.draw(task, seed + OTHER, arm["wrong"]) for seed in seeds]
    reordered = [drawn._replace(order=other.order) for drawn, other in zip(draws, others, strict=True)]
    restarted = [drawn._replace(key=other.key) for drawn, other in zip(reordered, others, strict=True)]
    used = {"": draws, "'": reordered, "''": restarted}
    ends = [*CONDITIONS, *(["P'", "B'", "C'", "D'", "B''"] if lines else [])]
    weights = {}
    for end in ends:
        condition, prime = end.rstrip("'"), "'" * end.count("'")
        job = Job(name, *nets.setting_of(arm, condition, base="B"), 0)
        knobs = [runner.knobs(job)] * len(seeds)
        weights[end] = nets.train(task, KIND.get(condition, "plain"), knobs, used[prime])
    return weights


def measure_block(name: str, stored: Content, task: runs.Task, origin: Content, seeds: Sequence[int]) -> None:
    """Train and measure the nets of some seeds, and store their numbers."""
    config, lines = task.config, seeds[0] < ARMS[name].lines
    weights = train_ends(name, task, origin, seeds, lines)
    draws = [runs.draw(task, seed, origin["arms"][name]["wrong"]) for seed in seeds]
    x = jnp.asarray(task.train[0][np.stack([drawn.pictures for drawn in draws])])
    y = jnp.asarray(np.stack([drawn.labels for drawn in draws]))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    for condition in CONDITIONS:
        ends = weights[condition]
        measured: Content = {
            "loss": minima.end_losses(config, ends, x, y),
            "train": minima.accuracies(config, ends, x, y),
            "test": minima.accuracies(config, ends, *task.test),
            **minima.sharpness(config, ends, x, y, keys, ARMS[name].draws),
        }
        store(stored["nets"].setdefault(condition, {}), seeds, measured)
    for pair, (first, second) in PAIRS.items() if lines else ():
        a, b = weights[first], weights[second]
        moved = minima.matched(config, a, b)
        compared: Content = {
            "barrier": [barrier_above_line(row) for row in minima.line_losses(config, a, moved, x, y)],
            "unmatched": [barrier_above_line(row) for row in minima.line_losses(config, a, b, x, y)],
            "distance": minima.distances(a, moved),
        }
        store(stored["pairs"].setdefault(pair, {}), seeds, compared)


def store(by_seed: Content, seeds: Sequence[int], numbers: dict[str, Any]) -> None:
    """Store ``{name: values of all seeds}`` by seed, to five digits."""

    def rounded(value: Any) -> Any:
        return [float(f"{v:.5g}") for v in value] if np.ndim(value) else float(f"{value:.5g}")

    for i, seed in enumerate(seeds):
        by_seed[str(seed)] = {name: rounded(values[i]) for name, values in numbers.items()}


Begin = Callable[[str, runs.Task], None]
"""Called with a data set and its task before something is measured on it."""


def run_nets(
    content: Content, origin: Content, data_dir: str, seeds: int, begin: Begin, save: Callable[[], None]
) -> None:
    """Train and measure blocks of all arms, up to a number of seeds."""
    for name, arm in ARMS.items():
        if name not in origin["arms"]:
            print(f"{name} is left out: it is in no file of --nets")
            continue
        stored = content["arms"].setdefault(name, {"wrong": origin["arms"][name]["wrong"], "nets": {}, "pairs": {}})
        blocks = [range(first, first + BLOCK) for first in range(0, min(seeds, arm.seeds), BLOCK)]
        missing = [block for block in blocks if str(block[-1]) not in stored["nets"].get(CONDITIONS[-1], {})]
        try:
            task = nets.load_task(arm.data, data_dir) if missing else None
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        for block in missing:
            assert task is not None
            begin(arm.data, task)
            measure_block(name, stored, task, origin, block)
            save()
            print(f"{name}: nets of seeds {block[0]} to {block[-1]}", flush=True)


def differences(stored: Content, origin: Content) -> dict[str, float]:
    """Differences of test accuracy from the runs of the study of generalisation: ``{largest, mean}``, net by net."""
    by_net: list[float] = []
    for condition, of_seeds in stored["nets"].items():
        run, number = nets.setting_of(origin, condition, base="B")
        results = origin["runs"][run][str(number)]
        by_net += [net["test"] - results[seed]["test"] for seed, net in of_seeds.items()]
    return {"largest": float(np.abs(by_net).max()), "mean": float(np.mean(by_net))}


def run_losses(content: Content, data_dir: str, begin: Begin, save: Callable[[], None]) -> None:
    """Run part 3."""
    for name in loss_reached.NETS:
        try:
            task = loss_reached.load_task(name, data_dir)
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        stored = content["losses"].setdefault(name, {})
        if not loss_reached.finished(name, stored):
            begin(name, task)
        loss_reached.run_arm(name, stored, task, save)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "landscape", data_dir=True)
    parser.add_argument("--seeds", type=int, default=max(arm.seeds for arm in ARMS.values()))
    parser.add_argument("--parts", nargs="+", choices=("nets", "loss"), default=("nets", "loss"))
    options, origin = nets.parse(parser, arguments)
    file = options.out / "landscape.json"
    settings = {"sizes": list(minima.SIZES), "radius": minima.RADIUS, "settings": loss_reached.SETTINGS}
    settings["nets"] = nets.other_files(options.nets)
    content = study.resume(parser, file, settings, {"arms": {}, "losses": {}, "data_marks": {}, "provenance": {}})
    command = study.command_of(parser, MODULE, options)

    def begin(name: str, task: runs.Task) -> None:
        study.begin(parser, file, content, name, task.data_mark, command)

    def save() -> None:
        study.write_json(file, content)

    if "nets" in options.parts:
        run_nets(content, origin, options.data_dir, min(options.seeds, FIRST_SEEDS), begin, save)
    if "loss" in options.parts:
        run_losses(content, options.data_dir, begin, save)
    if "nets" in options.parts:
        run_nets(content, origin, options.data_dir, options.seeds, begin, save)
    for name, stored in content["arms"].items():
        if stored["nets"]:
            stored["differs"] = differences(stored, origin["arms"][name])
    landscape_report.write(options.out, content)


if __name__ == "__main__":
    study.run(main)
