"""Timing of the convolutions of a network, beside torch's: most of a training step on CPU."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import ours_step, peers
from benchmarks.process import Worker, in_rounds
from benchmarks.timing import spread
from csbp_jax import learner, losses, models
from csbp_jax.config import Config
from csbp_jax.learner import optimizer
from csbp_jax.xla.platform import traced_for

KEYS = ("x", "kernel", "stride", "pad")
STAGES = ("forward", "gradient in input", "gradient in kernel")
TORCH = "benchmarks.peers.torch_convolution"


def measure(nets: Mapping[str, Config], python: str | None, rounds: int) -> dict[str, Any]:
    """CPU time of a step's convolutions on one core: ``{net: {stages: {stage: {program: {ms, over_ours}}}, differ}}``.

    stage: of STAGES, or "all".
    program: torch is timed in both layouts of ``peers.LAYOUTS``; each convolution has the numbers of the faster.

    python: of an environment with torch; None times only ours.
    differ: the largest difference of a value between programs, over the largest value.
    """
    wanted = {net: shapes(config) for net, config in nets.items()}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
        default = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
        workers: dict[str, tuple[Worker, dict[str, Any]]] = {
            "ours": (ours, {}),
            "XLA by default": (default, {"default": True}),
        }
        if python:
            for layout in peers.LAYOUTS:
                workers[layout] = stack.enter_context(Worker(python, TORCH)), {"layout": layout}
        seconds: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
        differences: dict[tuple[Any, ...], float] = {}
        for convolution in dict.fromkeys(key for convolutions in wanted.values() for key in convolutions):
            for worker, extra in workers.values():
                worker.ask(make="convolution", arguments={**dict(zip(KEYS, convolution, strict=True)), **extra})
            clocks = in_rounds({name: worker for name, (worker, _) in workers.items()}, rounds, warm=1)
            if python:
                clocks["torch"] = clocks[peers.fastest(clocks, peers.LAYOUTS)]
            seconds[convolution] = {name: clock["cpu"] for name, clock in clocks.items() if name not in peers.LAYOUTS}
            differences[convolution] = _largest_difference([worker.check() for worker, _ in workers.values()])
    return {
        net: {"differ": max(differences[key] for key in convolutions), "stages": _row(convolutions, seconds)}
        for net, convolutions in wanted.items()
    }


def shapes(config: Config) -> Counter[tuple[Any, ...]]:
    """``{(shape of x, of the kernel, stride, padding): count}`` of a network, in the order of its layers."""
    model, tx = models.build(config.model), optimizer.build(config.optimizer, config.epochs, 10_000)
    init, _, evaluate = learner.make(model, tx, losses.build(config.loss), config, 10_000)
    batch = ours_step.batch_of(config) | {"mask": np.ones(config.batch_size, bool)}
    with traced_for("gpu"):  # each as one equation
        program = jax.make_jaxpr(evaluate)(jax.eval_shape(init, jax.random.key(0)), batch)
    return Counter(_convolutions(program.jaxpr))


def _convolutions(program: Any) -> Iterator[tuple[Any, ...]]:
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            (stride, _), ((pad, _), _) = equation.params["window_strides"], equation.params["padding"]
            yield (*(operand.aval.shape for operand in equation.invars), stride, pad)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _convolutions(inner)


def _largest_difference(checks: Sequence[Mapping[str, np.ndarray]]) -> float:
    first, *others = checks
    return max(float(np.abs(other[name] - a).max() / np.abs(a).max()) for other in others for name, a in first.items())


def _row(
    convolutions: Mapping[tuple[Any, ...], int], seconds: Mapping[tuple[Any, ...], Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Sums over a network, without the gradient in the network's input, which training does not need."""
    first, row = next(iter(convolutions)), dict[str, Any]()
    programs = seconds[first]
    total = {
        name: np.sum([count * seconds[key][name] for key, count in convolutions.items()], axis=0) for name in programs
    }
    for name in programs:
        total[name] = total[name] - seconds[first][name] * np.array([0, 1, 0])
    parts = {stage: {name: times[:, i] for name, times in total.items()} for i, stage in enumerate(STAGES)}
    for stage, times in {**parts, "all": {name: times.sum(1) for name, times in total.items()}}.items():
        row[stage] = {
            name: {"ms": spread(1e3 * s), "over_ours": spread(s / times["ours"])} for name, s in times.items()
        }
    return row
