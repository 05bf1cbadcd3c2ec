"""What the studies of claims would cost at full size: counted runs, steps and operations, and an estimate for a GPU.

    python -m experiments.claims.price [--out docs/results/claims]

Writes ``price.json`` and ``price.md``. Runs and steps follow from the studies' code; operations of a step are XLA's
count; its CPU time is measured here, on the cores that the process may use. Hours and dollars of a GPU are no
measurement: they follow from the assumptions below.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, learner
from csbp_jax.config import Chaos, Config, Model, Optimizer
from csbp_jax.runtime import hardware
from experiments import study
from experiments.claims import events, generalisation, runs
from experiments.claims.forest import __main__ as forest
from experiments.claims.forest import methods, training
from experiments.claims.generalisation import DataSet
from experiments.claims.settings import KIND, SETTINGS
from experiments.study import Content

MODULE = "python -m experiments.claims.price"
GPU = "NVIDIA H100 80GB HBM3"
SHARE = 0.05
"""Of the GPU's bfloat16 peak, assumed for the convolutions of a step."""
FASTEST = 1e-3
"""Seconds, assumed: no step is faster, as some hundreds of kernels have to be started."""
DOLLARS = 3.0
"""Of an hour of the GPU, assumed."""
EVALUATED = 100
"""Examples of a batch of evaluation."""


class Program(NamedTuple):
    """A step or an evaluation, to be counted and timed: ``function(*arguments)`` is jitted."""

    function: Any
    arguments: tuple[Any, ...]


class Part(NamedTuple):
    """Runs that share a program: how many, steps and evaluated examples of each (the mean), how to make the program."""

    name: str
    runs: int
    steps: int
    examples: float
    make: Callable[[], tuple[Program, Program]]


class Full(NamedTuple):
    """A study at full size: what it is, its command, and its parts."""

    title: str
    command: str
    parts: Callable[[], Iterator[Part]]


# --- parts of the studies -----------------------------------------------------------------------------------------


def parts_of_generalisation(config: Config, use: DataSet, sizes: tuple[int, int]) -> Iterator[Part]:
    """The runs of a data set, by program; ``sizes``: numbers of validation and test examples.

    P has a second set of test runs, at the rate and width of the others.
    """
    task = runs.Task(config, use.labels, *[(np.empty(0), np.empty(0))] * 3)
    tuning, arms = len(generalisation.TUNING_SEEDS), len(use.wrong)
    for kind in runs.KINDS:
        of_kind = [name for name in SETTINGS if KIND.get(name, "plain") == kind]
        count = sum(tuning * len(SETTINGS[name]) + use.seeds * (2 if name == "P" else 1) for name in of_kind)
        steps = config.epochs * task.steps_per_epoch
        examples = config.epochs * sizes[0] + 2 * sizes[1] + task.size
        yield Part(kind, arms * count, steps, examples, functools.partial(programs_of_run, task, kind))


def programs_of_run(task: runs.Task, kind: str) -> tuple[Program, Program]:
    """The step and the evaluation of a run of the study of generalisation."""
    knobs = {name: jnp.float32(value) for name, value in runs.OFF.items()}
    recipe = runs.make_recipe(task, kind, knobs)
    state = jax.jit(lambda: runs.first_state(task, recipe, jax.random.key(0), knobs))()

    def step(state: learner.State, batch: Any) -> learner.State:
        return learner.train_step(recipe, state, batch)[0]

    evaluate = functools.partial(learner.eval_step, runs.make_recipe(task, "noise", knobs))
    return _programs(task.config, step, evaluate, state)


def parts_of_forest(options: Any) -> Iterator[Part]:
    """The runs of the plug-in forest on CIFAR-10, by method."""
    use = methods.DATA_SETS["cifar10"]._replace(side=options.side, labels=options.labels, epochs=options.epochs)
    tuning, tests = 2 * (len(forest.RATES) + len(forest.FACTORS) + 2 * len(forest.FLIPS)), 3 * options.seeds
    examples = (500 * tuning + 2500 * tests) / (tuning + tests)
    for name, method in methods.METHODS.items():
        config = methods.with_method(forest_config(use, options.width), method, options.width)
        steps = use.epochs * (use.labels * 10 // use.batch_size)
        yield Part(name, tuning + tests, steps, examples, functools.partial(programs_of_method, config))


def forest_config(use: methods.DataSet, width: float) -> Config:
    """The config of the forest's first method on CIFAR-10."""
    features = tuple(round(width * channels) for channels in methods.CHANNELS)
    model = Model("small_conv", (use.side, use.side, 3), classes=10, time_steps=use.time_steps, features=features)
    return Config(
        epochs=use.epochs,
        batch_size=use.batch_size,
        model=model,
        chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",), reduce="neuron"),
        optimizer=Optimizer(name="sgd", momentum=0.9),
    )


def programs_of_method(config: Config) -> tuple[Program, Program]:
    """The step and the evaluation of a method of the forest."""
    recipe = training.make_recipe(config, 100, 0.0)
    plain = training.make_recipe(dataclasses.replace(config, loss=Config().loss), 100, 0.0)
    state = jax.jit(lambda: learner.init(recipe, jax.random.key(0), {"lr": 0.1, "z0": 0.0}))()

    def step(state: learner.State, batch: Any) -> learner.State:
        return learner.train_step(recipe, state, batch)[0]

    return _programs(config, step, functools.partial(learner.eval_step, plain), state)


def _programs(config: Config, step: Any, evaluate: Any, state: learner.State) -> tuple[Program, Program]:
    def batch(size: int) -> dict[str, Any]:
        x = np.random.default_rng(0).random((size, 1, *config.model.input_shape), np.float32)
        return {"x": jnp.asarray(x), "y": jnp.zeros(size, jnp.int32)}

    masked = batch(EVALUATED) | {"mask": jnp.ones(EVALUATED, bool)}
    return (
        Program(jax.jit(step), (state, batch(config.batch_size))),
        Program(jax.jit(evaluate), (state, masked)),
    )


# --- studies at full size -----------------------------------------------------------------------------------------


def still(name: str, network: str, **changes: Any) -> Callable[[], Iterator[Part]]:
    """Parts of the study of generalisation on pictures."""

    def parts() -> Iterator[Part]:
        use = generalisation.DATA_SETS[name]._replace(**changes)
        model = {"input_shape": (use.side, use.side, 1), "time_steps": 4}
        yield from parts_of_generalisation(
            generalisation.small_net(configs.load(name), use, model, network), use, (1000, 10_000)
        )

    return parts


def of_events() -> Iterator[Part]:
    """Parts of the study on events, on recordings."""
    use = events.DATA_SETS["digits_events"]._replace(labels=100, epochs=60)
    config = generalisation.small_net(configs.load("digits_events"), use, {"input_shape": (use.side, use.side, 2)})
    yield from parts_of_generalisation(config, use, (180, 359))


class ForestOptions(NamedTuple):
    """Options of the forest at full size."""

    side: int = 32
    labels: int = 500
    epochs: int = 60
    width: float = 8.0
    seeds: int = 32


FULL = {
    "fashion": Full(
        "generalisation (A), pictures: convolutions on MNIST and Fashion-MNIST, 100 labels a class",
        "generalisation --data mnist fashion_mnist --network conv --labels 100 --epochs 30",
        lambda: (part for name in ("mnist", "fashion_mnist") for part in still(name, "conv", labels=100, epochs=30)()),
    ),
    "cifar10": Full(
        "generalisation (A), pictures: convolutions on CIFAR-10 at 32x32, 500 labels a class",
        "generalisation --data cifar10 --network conv --side 32 --labels 500 --epochs 60",
        still("cifar10", "conv", side=32, labels=500, epochs=60),
    ),
    "events": Full(
        "generalisation (B), events: 100 labels a class",
        "events --data digits_events --labels 100 --epochs 60",
        of_events,
    ),
    "forest": Full(
        "any method (G): the nine methods on CIFAR-10 at 32x32, eight times as wide, 500 labels a class",
        "forest --data cifar10 --side 32 --width 8 --labels 500 --epochs 60 --seeds 32",
        lambda: parts_of_forest(ForestOptions()),
    ),
}


# --- counting -----------------------------------------------------------------------------------------------------


def count(part: Part) -> Content:
    """Operations and CPU seconds of a step and of an evaluated example of a part."""
    step, evaluate = part.make()
    numbers = {
        "step": hardware.flops(step.function, *step.arguments),
        "example": hardware.flops(evaluate.function, *evaluate.arguments) / EVALUATED,
        "step seconds": cpu_seconds(step),
        "example seconds": cpu_seconds(evaluate) / EVALUATED,
    }
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


def cpu_seconds(program: Program, enough: float = 1.0) -> float:
    """CPU time of a call: the least of three blocks of calls, or of one block if it takes ``enough`` seconds."""
    compiled = program.function.lower(*program.arguments).compile(hardware.compiler_options())
    calls = 1
    while (seconds := _block(compiled, program.arguments, calls)) < enough / 3:
        calls *= 2
    blocks = [] if seconds > enough else [_block(compiled, program.arguments, calls) for _ in range(2)]
    return min(seconds, *blocks, np.inf) / calls


def _block(compiled: Any, arguments: tuple[Any, ...], calls: int) -> float:
    begin = time.process_time()
    for _ in range(calls):
        result = compiled(*arguments)
    jax.block_until_ready(result)
    return time.process_time() - begin


def total(parts: Sequence[Content]) -> Content:
    """Sums over the parts of a study, and the estimate for a GPU."""
    peak = SHARE * hardware.PEAK_FLOPS[GPU]
    steps = sum(part["runs"] * part["steps"] for part in parts)
    operations = sum(
        part["runs"] * (part["steps"] * part["step"] + part["examples"] * part["example"]) for part in parts
    )
    core = sum(
        part["runs"] * (part["steps"] * part["step seconds"] + part["examples"] * part["example seconds"])
        for part in parts
    )
    gpu = sum(
        part["runs"] * (part["steps"] * max(FASTEST, part["step"] / peak) + part["examples"] * part["example"] / peak)
        for part in parts
    )
    return {
        "runs": sum(part["runs"] for part in parts),
        "steps": steps,
        "operations": operations,
        "core hours": core / 3600,
        "GPU hours": gpu / 3600,
        "dollars": DOLLARS * gpu / 3600,
    }


def rounded(value: float) -> str:
    """A number to two digits, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}"


def page(content: Content) -> str:
    """The price list."""
    rows = []
    for name, full in FULL.items():
        sums = total(content["studies"][name])
        rows.append(
            [
                full.title,
                f"`{full.command}`",
                f"{sums['runs']:,}",
                rounded(sums["steps"] / 1e6) + " million",
                rounded(sums["operations"] / 1e15),
                rounded(sums["core hours"]),
                rounded(sums["GPU hours"]),
                rounded(sums["dollars"]),
            ]
        )
    head = ["study", "`python -m experiments.claims.`...", "runs", "steps", "operations (1e15)"]
    head += ["hours of a core", "hours of an H100, estimate", "USD, estimate"]
    assumed = (
        "Runs and steps are counted from the studies' code, operations by XLA before it optimises (the loop over "
        "sub-steps once); hours of a core are the measured CPU time of a step, compiled alone, times the number of "
        "steps (in the program of a whole run, convolutions on a CPU can be slower). **The last "
        f"two columns are no measurement**, as no GPU was at hand: they assume {100 * SHARE:g} % of the H100's "
        f"bfloat16 peak, at least {1e3 * FASTEST:g} ms a step, one run at a time, and {DOLLARS:g} USD an hour (check "
        "the current price), and leave out compilation. Each command needs an `--out` of its own."
    )
    return f"{study.table(head, rows)}\n\n{assumed}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "claims")
    options = parser.parse_args(arguments)
    content: Content = {"studies": {}, "provenance": study.provenance(MODULE)}
    for name, full in FULL.items():
        parts = content["studies"][name] = []
        for part in full.parts():
            counted = {key: value for key, value in part._asdict().items() if key != "make"}
            parts.append(counted | count(part))
            print(f"{name}, {part.name}: {part.runs} runs of {part.steps} steps", flush=True)
    write(options.out, content)


def write(folder: pathlib.Path, content: Content) -> None:
    """Write ``price.json`` and ``price.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    study.write_json(folder / "price.json", content)
    (folder / "price.md").write_text(page(content) + "\n")
    print(json.dumps({name: total(parts) for name, parts in content["studies"].items()}, indent=1))


if __name__ == "__main__":
    study.run(main)
