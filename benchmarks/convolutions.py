"""The convolutions of the networks of steps.py alone, beside torch's: the larger part of a training step on CPU."""

import contextlib
import sys
from collections import Counter

import jax
import numpy as np

from benchmarks import ours_step, steps
from benchmarks.process import Worker, in_rounds
from benchmarks.timing import spread
from csbp_jax import learner, losses, models
from csbp_jax.learner import optimizer

KEYS = ("x", "kernel", "stride", "pad")
STAGES = ("forward", "gradient in input", "gradient in kernel")
TORCH = "benchmarks.peers.torch_convolution"


def measure(python, rounds, width=None):
    """``{network: {stages: {stage or "all": {program: {ms, over_ours}}}, differ}}``.

    python: of an environment with torch, or None, for ours alone.
    differ: the largest difference of a value over the largest value, between programs.
    """
    nets = {n: steps.narrow(config, width) if width else config for n, config in steps.NETS.items()}
    wanted = {net: shapes(config) for net, config in nets.items()}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
        default = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
        workers = {"ours": (ours, {}), "XLA by default": (default, {"default": True})}
        if python:
            workers["torch"] = stack.enter_context(Worker(python, TORCH)), {}
        seconds, apart = {}, {}
        for one in dict.fromkeys(key for convolutions in wanted.values() for key in convolutions):
            for worker, extra in workers.values():
                worker.ask(make="convolution", arguments={**dict(zip(KEYS, one, strict=True)), **extra})
            clocks = in_rounds({name: worker for name, (worker, _) in workers.items()}, rounds, warm=1)
            seconds[one] = {name: clock["cpu"] for name, clock in clocks.items()}
            apart[one] = _apart([worker.check() for worker, _ in workers.values()])
    return {
        net: {"differ": max(apart[one] for one in convolutions), "stages": _row(convolutions, seconds)}
        for net, convolutions in wanted.items()
    }


def shapes(config):
    """``{(shape of x, of the kernel, stride, padding): how many}`` of a network, the first one first."""
    model, tx = models.build(config.model), optimizer.build(config.optimizer, config.epochs, 10_000)
    init, _, evaluate = learner.make(model, tx, losses.build(config.loss), config, 10_000)
    batch = ours_step.batch_of(config) | {"mask": np.ones(config.batch_size, bool)}
    program = jax.make_jaxpr(evaluate)(jax.eval_shape(init, jax.random.key(0)), batch)
    return Counter(_convolutions(program.jaxpr))


def _convolutions(program):
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            (stride, _), ((pad, _), _) = equation.params["window_strides"], equation.params["padding"]
            yield (*(operand.aval.shape for operand in equation.invars), stride, pad)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _convolutions(inner)


def _apart(checks):
    first, *others = checks
    return max(float(np.abs(other[name] - a).max() / np.abs(a).max()) for other in others for name, a in first.items())


def _row(convolutions, seconds):
    """Sums over a network; nothing asks for the gradient in a network's input."""
    first, row = next(iter(convolutions)), {}
    programs = seconds[first]
    total = {name: sum(count * seconds[one][name] for one, count in convolutions.items()) for name in programs}
    for name in programs:
        total[name] = total[name] - seconds[first][name] * np.array([0, 1, 0])
    parts = {stage: {name: times[:, i] for name, times in total.items()} for i, stage in enumerate(STAGES)}
    for stage, times in {**parts, "all": {name: times.sum(1) for name, times in total.items()}}.items():
        row[stage] = {
            name: {"ms": spread(1e3 * one), "over_ours": spread(one / times["ours"])} for name, one in times.items()
        }
    return row
