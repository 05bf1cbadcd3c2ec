"""Run the plan of docs/results/ergodic/plan.md: is chaotic training at fixed strength ergodic and pseudo-random?

    python -m experiments.ergodic [--starts 64] [--steps 20000] [--out docs/results/ergodic]

Finished systems are read from ``ergodic.json`` and not repeated.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import study
from experiments.cbp import net as cbp
from experiments.ergodic import known, measure, pages, systems
from experiments.ergodic.systems import System
from experiments.study import Content, finite_or_none
from experiments.xor import net as xor

MODULE = "python -m experiments.ergodic"

CHECKED: dict[str, Callable[[np.random.Generator, int], known.Array]] = {
    "white noise": known.white,
    "AR(1), 0.9": functools.partial(known.ar1, 0.9),
}
"""Linear noise that the test of random-like series is checked on."""


class Family(NamedTuple):
    """A training with its strengths: the chaotic system, its controls, and what is compared in functions visited.

    noises: systems that replace the term by noise of its size, or add it to the control.
    """

    strengths: tuple[float, ...]
    chaos: Callable[[], System]
    controls: Mapping[str, Callable[[], System]]
    noises: Mapping[str, Callable[[], System]] = {}


FAMILIES = {
    "one neuron": Family((8.6,), systems.neuron, {"10 sub-steps": lambda: systems.neuron(10)}),
    "XOR": Family(
        (20.0, 30.0, 54.6),
        systems.spiking_xor,
        {"10 sub-steps": lambda: systems.spiking_xor(xor.Kind(substeps=10))},
        {
            "noise alone": lambda: systems.spiking_xor(xor.Kind(alone=True), noisy=True),
            "sub-steps + noise": lambda: systems.spiking_xor(xor.Kind(substeps=10), noisy=True),
        },
    ),
    "CBP": Family(
        (11.0, 14.0, 24.0),
        systems.cbp_xor,
        {"20 sub-steps": lambda: systems.cbp_xor(cbp.Kind(substeps=20))},
        {
            "noise alone": lambda: systems.cbp_xor(cbp.Kind(kick=None), noisy=True),
            "sub-steps + noise": lambda: systems.cbp_xor(cbp.Kind(substeps=20), noisy=True),
        },
    ),
    "digits": Family(
        (0.25,),
        lambda: systems.digits("chaos"),
        {"drift": lambda: systems.digits("drift"), "z = 0": lambda: systems.digits("chaos", plain=True)},
    ),
}


def measured(system: System, strength: float, options: argparse.Namespace) -> Content:
    """All measures of a system without noise."""
    record = measure.record(system, strength, options.starts, options.steps)
    exponents, errors = ([finite_or_none(v) for v in of] for of in measure.exponents(system, record.states))
    content: Content = {"exponents": exponents, "stderr": errors, "pushes": record.pushes}
    content["chaotic"] = measure.is_chaotic(exponents, errors)
    content["finite"] = bool(np.isfinite(record.orbits).all())
    if content["finite"]:
        content |= measure.ergodic(system, record.orbits)
        if content["chaotic"]:
            content["series"] = measure.pseudo_random(system, record.orbits)
    if record.functions is not None:
        content["visits"] = measure.visits(record.functions)
    return content


def noisy(system: System, strength: float, sizes: Any, options: argparse.Namespace) -> Content:
    """Functions that a system with noise visits."""
    states = measure.begin(system, strength, options.starts, sizes)
    functions, _ = measure.functions_from_start(system, states, options.steps)
    assert functions is not None
    return {"visits": measure.visits(functions)}


def run(family: str, strength: float, content: Content, options: argparse.Namespace, file: pathlib.Path) -> None:
    """Measure the conditions of a family at a strength that the content lacks."""
    family_of = FAMILIES[family]
    results = content["systems"].setdefault(f"{family}, z {strength:g}", {})
    for name, make in {"chaos": family_of.chaos, **family_of.controls, **family_of.noises}.items():
        if name not in results:
            if name in family_of.noises:
                results[name], word = noisy(make(), strength, results["chaos"]["pushes"], options), "functions counted"
            else:
                results[name] = measured(make(), strength, options)
                word = results[name].get("ergodic", "not finite")
            study.store(file, content, MODULE)
            print(f"{family} {strength:g}, {name}: {word}", flush=True)


def checked(name: str, count: int) -> list[Content]:
    """The random-like series among linear noise."""
    drawn = CHECKED[name](np.random.default_rng(0), count)
    return [measure.random_like(series, seed) for seed, series in enumerate(drawn)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "ergodic", starts=64, steps=20_000, checks=200)
    options = parser.parse_args(arguments)
    if options.starts < measure.ORBITS or options.steps < 2 * measure.LENGTH:
        parser.error(f"--starts: from {measure.ORBITS} on; --steps: from {2 * measure.LENGTH} on")
    file = options.out / "ergodic.json"
    sizes = {name: getattr(options, name) for name in ("starts", "steps", "checks")}
    content = study.resume(parser, file, sizes, {"systems": {}, "noise": {}})
    with study.float64():
        for family, settings in FAMILIES.items():
            for strength in settings.strengths:
                run(family, strength, content, options, file)
    for name in CHECKED:
        if name not in content["noise"]:
            content["noise"][name] = checked(name, options.checks)
            study.store(file, content, MODULE)
    content |= pages.conclusions(content["systems"])
    pages.draw(content, options.out)
    study.write(options.out, "ergodic", content, pages.page(content))


if __name__ == "__main__":
    study.run(main)
