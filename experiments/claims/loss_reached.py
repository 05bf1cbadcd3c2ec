"""Part 3 of the plan of docs/results/landscape/plan.md: training loss after equal gradient evaluations."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from csbp_jax.config import replaced
from experiments.claims import minima, nets, runs
from experiments.study import Content

LABELS, BATCH_SIZE, EPOCHS, CHUNK = 100, 50, 40, 32
"""Labels of a class, batch size and epochs of a run, and runs that are trained as one program."""
TUNING_SEEDS = (2000, 2001, 2002, 2003)


class Net(NamedTuple):
    """The widths of the network of an arm, and its number of test seeds."""

    features: tuple[int, ...]
    seeds: int


class Condition(NamedTuple):
    """The program and the term of a condition, and its epochs."""

    kind: str
    term: str | None
    epochs: int = EPOCHS


NETS = {"digits": Net((6, 6), 128), "cifar10": Net((16, 16), 64)}
CONDITIONS = {
    "P": Condition("plain", None),
    "C": Condition("plain", "chaos"),
    "D": Condition("plain", "drift"),
    "S": Condition("substeps", "chaos", EPOCHS // runs.SUBSTEPS),
    "S0": Condition("substeps", "chaos"),
}


def draw_settings(tries: int = 24) -> list[Content]:
    """The random settings that all conditions are tuned over."""
    generator = np.random.default_rng(20240602)
    ranges = {"lr": (0.01, 1.0), "width": (0.3, 3.0), "flips": (0.001, 1.0), "left": (1e-4, 0.5)}
    return [
        {name: float(f"{np.exp(generator.uniform(*np.log(ends))):.4g}") for name, ends in ranges.items()}
        for _ in range(tries)
    ]


SETTINGS = draw_settings()


def load_task(name: str, data_dir: str) -> runs.Task:
    """The task of an arm: more labels and a narrower network than in the study of generalisation.

    Raises:
      ConfigError: its data are not in the data directory.
    """
    task = nets.load_task(name, data_dir, labels=LABELS, epochs=EPOCHS)
    config = replaced(replaced(task.config, "model.features", NETS[name].features), "batch_size", BATCH_SIZE)
    return task._replace(config=replaced(config, "chaos.anneal", "step"))


def knobs_of(condition: Condition, setting: Content, unit: float, steps: int) -> runs.Knobs:
    """Knobs of a run; ``unit`` is the flip ratio at z = 1 with a rate of 0.1."""
    knobs = runs.OFF | {"lr": setting["lr"], "width": setting["width"], "chaos": 0.0}
    if condition.term is None:
        return knobs
    strength = {"z0": setting["flips"] / unit * 0.1 / setting["lr"], "beta": setting["left"] ** (1 / steps)}
    return knobs | strength | {condition.term: 1.0}


def train(task: runs.Task, name: str, unit: float, jobs: Sequence[tuple[int, int]]) -> Content:
    """Train jobs, pairs of setting and seed: ``{"log loss", "seconds"}``, the latter CPU time of a run."""
    condition = CONDITIONS[name]
    task = task._replace(config=replaced(task.config, "epochs", condition.epochs))
    knobs = [knobs_of(condition, SETTINGS[number], unit, condition.epochs * task.steps_per_epoch) for number, _ in jobs]
    draws = [runs.draw(task, seed, 0.0) for _, seed in jobs]
    x = jnp.asarray(task.train[0][np.stack([drawn.pictures for drawn in draws])])
    begin = time.process_time()
    weights = nets.train(task, condition.kind, knobs, draws)
    loss = minima.end_losses(task.config, weights, x, jnp.asarray(np.stack([drawn.labels for drawn in draws])))
    return {"log loss": np.log(loss).tolist(), "seconds": (time.process_time() - begin) / len(jobs)}


def finished(name: str, stored: Content) -> bool:
    """Whether all conditions of an arm are tuned and tested."""
    tested = [stored.get("conditions", {}).get(condition, {}).get("test", {}) for condition in CONDITIONS]
    return all(len(seeds) >= NETS[name].seeds for seeds in tested)


def run_arm(name: str, stored: Content, task: runs.Task, save: Callable[[], None]) -> None:
    """Tune and test all conditions of an arm.

    Args:
      stored: filled with ``{unit, conditions: {name: {tuning: {setting: {seed: log loss}}, chosen, test, seconds}}}``.
      save: writes the file of the study.
    """
    if "unit" not in stored:
        ratios = [runs.flip_ratio(task, runs.OFF, runs.draw(task, seed, 0.0)) for seed in TUNING_SEEDS]
        stored["unit"] = float(np.mean(ratios))
    for condition in CONDITIONS:
        result = stored.setdefault("conditions", {}).setdefault(condition, {"tuning": {}, "test": {}})
        tuning = result["tuning"]
        jobs = [(number, seed) for number in range(len(SETTINGS)) for seed in TUNING_SEEDS]
        missing = [(n, seed) for n, seed in jobs if str(seed) not in tuning.setdefault(str(n), {})]
        for (number, seed), value in train_in_chunks(task, condition, stored["unit"], missing, result):
            tuning[str(number)][str(seed)] = value
        save()
        result["chosen"] = int(np.argmin([mean_or_infinite(tuning[str(n)]) for n in range(len(SETTINGS))]))
        jobs = [(result["chosen"], seed) for seed in range(NETS[name].seeds)]
        missing = [(n, seed) for n, seed in jobs if str(seed) not in result["test"]]
        for (_, seed), value in train_in_chunks(task, condition, stored["unit"], missing, result):
            result["test"][str(seed)] = value
        save()
        print(f"{name}, {condition}: {len(result['test'])} tested", flush=True)


def train_in_chunks(
    task: runs.Task, condition: str, unit: float, jobs: Sequence[tuple[int, int]], result: Content
) -> Iterator[tuple[tuple[int, int], float | None]]:
    """Train jobs, and yield each with its log loss to five digits; ``result`` keeps the least CPU time of a run."""
    for first in range(0, len(jobs), CHUNK):
        chunk = jobs[first : first + CHUNK]
        trained = train(task, condition, unit, chunk)
        result["seconds"] = min(result.get("seconds", np.inf), trained["seconds"])
        for job, value in zip(chunk, trained["log loss"], strict=True):
            yield job, float(f"{value:.5g}") if np.isfinite(value) else None


def mean_or_infinite(values: dict[str, Any]) -> float:
    """The mean of numbers; infinite if one is not finite."""
    return float(np.mean([np.inf if value is None else value for value in values.values()]))
