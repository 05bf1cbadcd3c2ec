"""Run the plan of docs/results/robustness/plan.md: robustness of the nets of the study of generalisation.

    python -m experiments.claims.robustness [--arms digits cifar10] [--seeds N] [--data-dir data]
        [--nets docs/results/claims/generalisation.json docs/results/claims_events/events.json]
        [--out docs/results/robustness]

Each net is trained again from the setting that the study of generalisation chose, and measured as
``csbp_jax robustness`` does. --seeds: the largest number of seeds; by default the plan's. Measured nets are read from
``robustness.json`` and not measured again; an arm that no file of --nets has, or whose data are not in --data-dir, is
left out.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from csbp_jax import models
from csbp_jax.config import ConfigError, replaced
from csbp_jax.data.source import ArraySource
from csbp_jax.evaluation.robustness import battery
from csbp_jax.evaluation.robustness.measure import Measured, Outcome, Plan, Programs, Subject, measure
from experiments import study
from experiments.claims import events, generalisation, nets, robustness_report, runs
from experiments.claims.generalisation import Job
from experiments.claims.settings import KIND
from experiments.study import Content

MODULE = "python -m experiments.claims.robustness"
ATTACKS = ("pgd", "square")
OTHERS = tuple(name for name in battery.PERTURBATIONS if name not in ATTACKS)
CHUNK = 32
"""Nets that are trained as one program."""


class Arm(NamedTuple):
    """An arm of the plan: its data set, the number of its seeds and of those whose nets are attacked.

    pictures: how many are perturbed, at even distances in the test split; None for all.
    events: whether they are recordings of events, which are not attacked.
    """

    data: str
    seeds: int
    attacked: int
    pictures: int | None = None
    events: bool = False


ARMS = {
    "digits": Arm("digits", 128, 16),
    "digits, wrong labels": Arm("digits", 128, 16),
    "cifar10": Arm("cifar10", 32, 16, 1000),
    "digits_events": Arm("digits_events", 64, 0, events=True),
}


# --- counts of a net ----------------------------------------------------------------------------------------------


def counts(measured: Measured) -> dict[str, tuple[int, int]]:
    """Count what a net classifies correctly: ``{"PERTURBATION SEVERITY": (correct, out of)}``.

    Draws of a perturbation count one by one. PGD has a number for each surrogate, ``pgd EPS SURROGATE``, and one for
    the worst of them; ``both EPS`` counts pictures that survive PGD and the square attack.
    """
    numbers: dict[str, tuple[int, int]] = {}
    for name, outcome in measured.outcomes.items():
        for column, correct in _columns(name, outcome):
            numbers[column] = int(correct.sum()), correct.size
    if set(ATTACKS) <= set(measured.outcomes):
        resisted = np.concatenate([measured.outcomes[name].correct for name in ATTACKS], axis=1)
        for severity, correct in zip(battery.PERTURBATIONS["square"].severities, resisted, strict=True):
            numbers[f"both {severity:g}"] = int(np.sum(correct.all(axis=0))), correct.shape[1]
    return numbers


def _columns(name: str, outcome: Outcome) -> list[tuple[str, Any]]:
    if name == "clean":
        return [(name, outcome.correct)]
    columns: list[tuple[str, Any]] = []
    for severity, correct in zip(battery.PERTURBATIONS[name].severities, outcome.correct, strict=True):
        if name == "pgd":
            columns += [(f"pgd {severity:g} {s}", row) for s, row in zip(outcome.variants, correct, strict=True)]
            correct = correct.all(axis=0)
        columns.append((f"{name} {severity:g}", correct))
    return columns


# --- an arm -------------------------------------------------------------------------------------------------------


class Subjects(NamedTuple):
    """The task of an arm, its test pictures, and those that are perturbed."""

    task: runs.Task
    programs: Programs
    test: ArraySource
    perturbed: ArraySource


def load(arm: Arm, data_dir: str) -> Subjects:
    """Load the data of an arm.

    Raises:
      ConfigError: they are not in the data directory.
    """
    load_task = events.load_recordings if arm.events else functools.partial(nets.load_task, arm.data)
    task = load_task(data_dir)
    network = models.build(task.config.model)
    # The nets are trained on brightness, and on counts of events, as they are.
    config = replaced(replaced(task.config, "data.normalise", "none"), "data.augment", ())
    x, y = task.test
    rows = np.linspace(0, len(y) - 1, arm.pictures or len(y)).round().astype(int)
    classes = config.model.classes
    apply: Any = network.apply
    programs = Programs(config, apply, network.neuron, arm.events)
    return Subjects(task, programs, ArraySource(x, y, classes), ArraySource(x[rows], y[rows], classes))


def measure_net(subjects: Subjects, variables: Mapping[str, Any], attacked: bool) -> dict[str, tuple[int, int]]:
    """Count what a net classifies correctly, of all test pictures (``test``) and under each perturbation."""

    def count(source: ArraySource, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        subject = Subject("net", subjects.programs, variables, source)
        return counts(measure(subject, Plan(tuple(names)), lambda *_: None))

    clean = count(subjects.test, ())["clean"]
    return {"test": clean} | count(subjects.perturbed, (*OTHERS, *(ATTACKS if attacked else ())))


def run_arm(name: str, stored: Content, subjects: Subjects, origin: Content, seeds: int, save: Any) -> None:
    """Train and measure the nets of an arm that are missing, and store their counts.

    Args:
      stored: ``{"columns": {name: out of}, "nets": {condition: {seed: counts}}}``; counts are text, in the order of the
        columns; those of attacks are at the end, and missing where the net was not attacked.
      origin: content of the study of generalisation.
      save: writes the file of the study.
    """
    runner = generalisation.Runner(origin, None, subjects.task)
    for first in range(0, seeds, CHUNK):
        for condition in robustness_report.CONDITIONS:
            done = stored["nets"].setdefault(condition, {})
            span = [seed for seed in range(first, min(first + CHUNK, seeds)) if str(seed) not in done]
            if not span:
                continue
            setting = nets.setting_of(origin["arms"][name], condition)
            knobs = [runner.knobs(Job(name, *setting, seed)) for seed in span]
            draws = [runs.draw(subjects.task, seed, origin["arms"][name]["wrong"]) for seed in span]
            weights = nets.train(subjects.task, KIND.get(condition, "plain"), knobs, draws)
            for number, seed in enumerate(span):
                variables = jax.tree.map(lambda leaf, number=number: leaf[number], weights)
                correct = measure_net(subjects, variables, seed < ARMS[name].attacked)
                stored["columns"] |= {column: size for column, (_, size) in correct.items()}
                done[str(seed)] = " ".join(str(count) for count, _ in correct.values())
            save()
            print(f"{name}, {condition}: {len(span)} nets from seed {span[0]}", flush=True)


def differing(stored: Content, origin: Content) -> dict[str, int]:
    """Count, for each condition, nets whose accuracy on all test pictures is not that of their run in that study."""
    total = stored["columns"]["test"]
    numbers = {}
    for condition, nets_of in stored["nets"].items():
        run, number = nets.setting_of(origin, condition)
        results = origin["runs"][run][str(number)]
        correct = {seed: round(total * results[seed]["test"]) for seed in nets_of}
        numbers[condition] = sum(int(text.split()[0]) != correct[seed] for seed, text in nets_of.items())
    return numbers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "robustness", data_dir=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int)
    options, origin = nets.parse(parser, arguments)
    if options.seeds is not None and options.seeds < 3:
        parser.error("--seeds: from 3 on, which the regression on clean accuracy needs")
    file = options.out / "robustness.json"
    empty: Content = {"arms": {}, "data_marks": {}, "provenance": {}}
    content = study.resume(parser, file, {"nets": nets.other_files(options.nets)}, empty)
    command = study.command_of(parser, MODULE, options)
    for name in options.arms:
        if name not in origin["arms"]:
            print(f"{name} is left out: it is in no file of --nets")
            continue
        try:
            subjects = load(ARMS[name], options.data_dir)
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        stored = content["arms"].setdefault(name, {"columns": {}, "nets": {}})
        seeds = min(ARMS[name].seeds, options.seeds or ARMS[name].seeds)
        conditions = [stored["nets"].get(condition, {}) for condition in robustness_report.CONDITIONS]
        if any(str(seed) not in done for done in conditions for seed in range(seeds)):
            study.begin(parser, file, content, ARMS[name].data, subjects.task.data_mark, command)
        run_arm(name, stored, subjects, origin, seeds, lambda: study.write_json(file, content))
        stored["differing"] = differing(stored, origin["arms"][name])
        robustness_report.write(options.out, content)


if __name__ == "__main__":
    study.run(main)
