"""The commands, each from its words to the function that does it.

That function is imported within: JAX takes a second to import, and a wrong option shall not wait for it.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from csbp_jax import configs
from csbp_jax.cli.options import count, one, read, read_field, read_paths
from csbp_jax.config import ConfigError
from csbp_jax.runtime.preemption import on_signals


def train(argv: Sequence[str]) -> None:
    given = {"--name": None, "--fresh": False, "--runs": "runs", "--checkpoints": None, "--distributed": "off"}
    given |= {"--profile": None}
    options, config, own = read("train", argv, given)
    _deterministic(config)
    with on_signals() as stop:
        from csbp_jax.runtime import multihost
        from csbp_jax.training.loop import train

        with multihost.connected(options.distributed, stop) as stop_all:
            train(
                config,
                name=options.name,
                fresh=options.fresh,
                root=options.runs,
                data_dir=options.data_dir,
                stop=stop_all,
                own=own,
                profile=options.profile or "",
                checkpoints=options.checkpoints,
            )


def _deterministic(config):
    """To be called before JAX starts, which reads XLA_FLAGS then."""
    if config.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"


def evaluate(argv: Sequence[str]) -> None:
    named = configs.known("".join(argv[:1])) or any(word.partition("=")[0] == "--weights" for word in argv)
    if named or argv == ["--environment"]:
        options, config, own = read("evaluate", argv, {})
        if own.parts:
            raise ConfigError(f"{own.place}: has parts of your own; evaluate takes a run of it: csbp_jax evaluate RUN")
        from csbp_jax.evaluation.evaluate import evaluate

        evaluate(config, data_dir=options.data_dir)
        return
    options, words = read_paths("evaluate", argv, {"--split": "test", "--weights-of": "last", "--trust": False})
    run = one("evaluate", "RUN", words)
    from csbp_jax.evaluation.evaluate import evaluate_run

    which, trust = options.weights_of, options.trust
    evaluate_run(run, split=options.split, which=which, trust=trust, data_dir=options.data_dir)


def predict(argv: Sequence[str]) -> None:
    known = {"--out": None, "--top": 1, "--weights-of": "last", "--trust": False}
    options, words = read_paths("predict", argv, known)
    run, files = words[:1], words[1:]
    if not files:
        raise ConfigError("FILE: missing; write csbp_jax predict RUN FILE ...")
    from csbp_jax.evaluation import predict

    top = count("--top", options.top) or 1
    asked = {"which": options.weights_of, "top": top, "trust": options.trust}
    answers = predict.predict(run[0], files, **asked, data_dir=options.data_dir)
    problems = [answer.problem for answer in answers if answer.problem]
    for problem in problems:
        print("csbp_jax:", problem, file=sys.stderr)
    if options.out:
        pathlib.Path(options.out).write_text(predict.table(answers))
    else:
        print(predict.table(answers), end="", flush=True)
    if problems:
        raise ConfigError(f"{len(problems)} of {len(answers)} files could not be read; the others are predicted")


def inspect(argv: Sequence[str]) -> None:
    known = {"--layer": None, "--examples": 100, "--split": "test", "--weights-of": "last", "--trust": False}
    options, words = read_paths("inspect", argv, known)
    run = one("inspect", "RUN", words)
    from csbp_jax.evaluation.inspection import inspect

    inspect(
        run,
        layers=tuple(options.layer.split(",")) if options.layer else (),
        examples=count("--examples", options.examples) or 100,
        split=options.split,
        which=options.weights_of,
        trust=options.trust,
        data_dir=options.data_dir,
    )


def export(argv: Sequence[str]) -> None:
    known = {"--to": "safetensors", "--out": None, "--weights-of": "last", "--trust": False}
    options, words = read_paths("export", argv, known)
    run = one("export", "RUN", words)
    from csbp_jax.export import export

    asked = {"which": options.weights_of, "trust": options.trust}
    print(export(run, options.to, options.out, **asked, data_dir=options.data_dir))


def compare(argv: Sequence[str]) -> None:
    _, words = read_paths("compare", argv, {})
    from csbp_jax.evaluation import compare

    compare.compare(words)


def report(argv: Sequence[str]) -> None:
    options, words = read_paths("report", argv, {"--out": None})
    from csbp_jax.evaluation import html_report

    print(html_report.write(words, options.out))


def tensorboard(argv: Sequence[str]) -> None:
    options, words = read_paths("tensorboard", argv, {"--follow": False})
    if not words:
        raise ConfigError("RUN: missing; write csbp_jax tensorboard RUN ...")
    from csbp_jax.evaluation import tensorboard

    for folder in tensorboard.write(words, options.follow):
        print(folder)


def data(argv: Sequence[str]) -> None:
    options, config, own = read("data", argv, {"--from": None, "--no-verify": False, "--read-all": False})
    from csbp_jax import data
    from csbp_jax.reporting import terminal
    from csbp_jax.training import build

    name, folder = config.data.name, options.data_dir
    with terminal.stages(terminal.Console(highlight=False, markup=False)) as show:
        if not own.data:
            data.prepare(config, vars(options)["from"], folder, verify=not options.no_verify, show=show)
        parts, _ = build.load_data(config, own, folder)
        if options.read_all:
            data.read_all(parts, show)
    print(f"{name}: {', '.join(f'{part} {len(source)}' for part, source in parts.items())} records")


def sweep(argv: Sequence[str]) -> None:
    known: dict[str, Any] = {"--name": None, "--fresh": False, "--sweeps": "sweeps"}
    known |= {"--grid": "", "--chunk": None, "--data-parallel": 1}
    options, config, own = read("sweep", argv, known)
    _deterministic(config)
    from csbp_jax import sweep
    from csbp_jax.sweep import grid

    axes = {}
    for field, words in grid.words(options.grid).items():
        grid.check_field(config, field)
        tap = field.removeprefix("chaos.z0.")
        option = field if tap == field else "chaos.z0"
        values = [read_field(config, option, word) for word in words]
        axes[field] = values if tap == field else [one for (one,) in values]
    with on_signals():
        sweep.run(
            config,
            axes,
            name=options.name,
            fresh=options.fresh,
            root=options.sweeps,
            data_dir=options.data_dir,
            chunk=count("--chunk", options.chunk),
            data_parallel=count("--data-parallel", options.data_parallel) or 1,
            own=own,
        )


def lr(argv: Sequence[str]) -> None:
    known = {"--low": "1e-5", "--high": "10", "--steps": 100, "--out": None}
    options, config, own = read("lr", argv, known)
    try:
        low, high = float(options.low), float(options.high)
    except ValueError:
        raise ConfigError(f"--low, --high: {options.low}, {options.high}; allowed are numbers above 0") from None
    from csbp_jax.training import lr_finder

    steps = count("--steps", options.steps) or 100
    rates = lr_finder.RateRange(low, high, steps)
    lr_finder.find(config, rates=rates, out=options.out, data_dir=options.data_dir, own=own)


def best(argv: Sequence[str]) -> None:
    options, words = read_paths("best", argv, {"--seeds": 10, "--trust": False})
    folder = one("best", "SWEEP", words)
    from csbp_jax import sweep
    from csbp_jax.sweep import tables

    seeds = count("--seeds", options.seeds) or 10
    with on_signals():
        found = sweep.best(folder, seeds, trust=options.trust, data_dir=options.data_dir)
    print(f"setting & n & last epoch & chosen epoch \\\\\n{tables.latex(found)}")
