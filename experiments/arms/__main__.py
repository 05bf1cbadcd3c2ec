"""Run the plan of docs/results/arms/plan.md: arms that are tuned in each of twelve draws of settings.

    python -m experiments.arms [TASK ...] [--arms term MPGD logistic noise] [--draws N] [--again] [--data-dir data]
    python -m experiments.arms --page     the page, from the runs that are committed, as many as there are

TASK is a name of experiments/arms/tasks.py, all by default; its data must have been prepared (make data). Finished runs
are in docs/results/arms/TASK.csv, and those of draws that are under way in ``runs/arms``; neither are repeated, so that
the command goes on where it ended, also on another machine. With ``--again`` the rows of the arms are trained anew and
replaced, as after a change of their code; those without a term or force are kept.
"""

import functools
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
import pandas as pd

from csbp_jax import Experiment, RunTable, controls, models
from csbp_jax.data import Drawn
from csbp_jax.experiment import Arm, Training
from csbp_jax.learner import optimizer
from csbp_jax.runs.reading import COLUMNS
from csbp_jax.runtime import files, sharding
from csbp_jax.training import flip_meter
from csbp_jax.training.build import resolve
from csbp_jax.training.compiled import compile_run
from experiments import study
from experiments.arms import page
from experiments.arms.page import WIDTHS
from experiments.arms.tasks import TAP, TASKS, Task

MODULE = "python -m experiments.arms"
TRIES, OFF, STEP = 16, 0.25, 4
"""Settings of a draw; the probability that a setting is without the term; draws after which rows are written."""
TUNING_SEEDS, FIRST_SEED = (1000, 1001, 1002), 2000
RANGES = {"lr": (0.01, 0.5), "width": (0.3, 3.0), "flips": (2e-4, 0.2), "sigma": (1e-4, 0.1)}
"""Log-uniform; the strength of a setting is at the same place between the ends of flips and of sigma."""
FORCES: dict[str, Callable[..., Any]] = {
    "MPGD": controls.mpgd,
    "logistic": controls.logistic,
    "noise": controls.gaussian,
}
KINDS = {"term": ("plain", "CSBP", "drift"), **{name: (name,) for name in FORCES}}
"""Experiments of a task, each of arms that share their own parts."""
GAMMA = 0.7
FIELDS = ("optimizer.lr", "model.neuron.surrogate_param", "chaos.z0", "chaos.beta", "chaos.term")
MEASURES = ("last_test_accuracy", "chosen_test_accuracy", "last_validation_accuracy")


# --- settings -----------------------------------------------------------------------------------------------------


def draw_setting(generator: np.random.Generator) -> dict[str, Any]:
    """Draw a joint setting; ``strength`` is the place in its range, from 0 to 1, or None for off."""
    lr, width = (between(name, generator.uniform()) for name in ("lr", "width"))
    strength, beta, off = generator.uniform(), generator.uniform(0.6, 0.98), generator.uniform() < OFF
    return {"lr": lr, "width": width, "strength": None if off else strength, "beta": rounded(beta)}


def between(name: str, share: float) -> float:
    low, high = RANGES[name]
    return rounded(low * (high / low) ** share)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def fields_of(arm: str, units: Mapping[str, Any], setting: dict[str, Any], splits: Any = None) -> dict[str, Any]:
    """The fields of an arm at a setting; without a strength, those of plain backpropagation."""
    lr, width, strength = setting["lr"], setting["width"], setting["strength"]
    plain = {"optimizer.lr": lr, "model.neuron.surrogate_param": width}
    if arm == "plain" or strength is None:
        return plain
    if arm in FORCES:
        return plain | {"chaos.z0": between("sigma", strength)}
    z0 = rounded(between("flips", strength) / (lr * page.at_width(units, "flips", width)))
    return plain | {"chaos.z0": z0, "chaos.beta": setting["beta"], "chaos.term": page.TERMS[arm]}


def forced(task: Task, force: Callable[..., Any]) -> dict[str, Any]:
    """Own parts in which a force of size ``z0 lr^gamma`` stands in place of the term (MPGD: sigma is z0)."""

    def control(config: Any, tx: Any, hparams: dict[str, Any]) -> Any:
        share = optimizer.schedule(config.optimizer, config.epochs, 10 * task.labels // task.batch_size)
        sigma, lr = hparams["z0"][TAP], hparams["lr"]
        # The learner multiplies the update by the rate, at which it is 1.
        return optax.chain(tx, force(lambda step: sigma * (lr * share(step)) ** GAMMA / lr))

    def term(config: Any, hparams: dict[str, Any]) -> Any:
        return lambda h, *_, **options: 0 * h.sum()

    return {"control": control, "term": term}


def measured_units(task: Task, base: Training) -> dict[str, Any]:
    """The flip ratio and the ratio of the term's gradient to the task's, at z0 = 1, a rate of 1 and step 0.

    ``{"flips", "ratio": of each of WIDTHS}``, means over the tuning seeds.
    """
    splits, units = base.splits({}), np.empty((2, len(TUNING_SEEDS), len(WIDTHS)))
    for i, seed in enumerate(TUNING_SEEDS):
        assert base.draw is not None
        source = Drawn(splits["train"], *base.draw(splits, seed))
        fields = {"seed": seed, "chaos.z0": 1.0, "optimizer.lr": 1.0}
        config = resolve(base.config.replace(**fields), dict(splits) | {"train": source}, 1)
        steps = len(source) // task.batch_size
        run = compile_run(config, source, steps, base.own, sharding.data_parallel(1))
        ratio = flip_meter.make(run.pure_gradients, config, run.steps_per_epoch)
        batch = run.shard_batch(next(run.batches(seed)))
        for j, width in enumerate(WIDTHS):
            neuron = models.neuron(config.replace("model.neuron.surrogate_param", width).model.neuron)
            state = run.pure_init(jax.random.key(seed), {"neuron": neuron})
            of_parts = run.gradient_norms(state, batch)
            units[:, i, j] = ratio("chaos", state, batch), of_parts["chaos"] / of_parts["task"]
    names = ("flips", "ratio")
    return {name: [rounded(v) for v in np.mean(rows, axis=0)] for name, rows in zip(names, units, strict=True)}


# --- runs ---------------------------------------------------------------------------------------------------------


def experiment(name: str, kind: str, base: Training, units: Mapping[str, Any], draws: int = page.DRAWS) -> Experiment:
    """The arms of a kind on a task; all arms of all kinds have the same settings and seeds."""
    arms = {arm: Arm(adapt=functools.partial(fields_of, arm, units)) for arm in KINDS[kind]}
    seeds = range(FIRST_SEED, FIRST_SEED + TASKS[name].seeds)
    return Experiment(base, arms, tuned=draw_setting, tries=TRIES, draws=draws, tuning_seeds=TUNING_SEEDS, seeds=seeds)


def rows_of(table: RunTable, base: Training) -> pd.DataFrame:
    """The rows of a table that are committed; a field that is missing is equal in all of its runs."""
    common = base.describe({})
    fields = {name: table.frame.get(name, common[name]) for name in FIELDS}
    return table.frame[list(COLUMNS)].assign(**fields, **{name: table.frame[name].round(6) for name in MEASURES})


def run(name: str, kinds: Sequence[str], draws: int, data_dir: str, out: pathlib.Path, *, again: bool = False) -> None:
    """Train the arms of a task, and write their rows after every few draws.

    Runs whose rows are there already are not trained, unless ``again``; those that are in the folder of runs never are.
    """
    task, file = TASKS[name], out / f"{page.slug(name)}.csv"
    units_file = out / "units.json"
    units: study.Content = json.loads(units_file.read_text()) if units_file.exists() else {"widths": WIDTHS}
    if name not in units:
        units[name] = measured_units(task, task.training(data_dir))
        files.write_json(units_file, units)
    for kind in kinds:
        base = task.training(data_dir, **(forced(task, FORCES[kind]) if kind in FORCES else {}))
        folder = study.WORK / "arms" / page.slug(f"{name} {kind}")
        for count in [*range(STEP, draws, STEP), draws]:
            rows, start = page.read(file), time.process_time()
            same = rows["chaos.z0"] == 0
            if not again:
                same |= rows["arm"].isin(KINDS[kind])
            known = rows.loc[same, ["seed", *FIELDS, *MEASURES]] if len(rows) else None
            table = experiment(name, kind, base, units[name], count).run(folder, known=known)
            rows = rows[~rows["arm"].isin(KINDS[kind])]
            with files.replacing(file) as temporary:
                pd.concat([rows, rows_of(table, base)]).to_csv(temporary, index=False)
            spent = round(time.process_time() - start)
            command = f"{MODULE} --again" if again else MODULE
            entry = {"task": name, "kind": kind, "draws": count, "cpu_seconds": spent} | study.provenance(command)
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "arms", data_dir=True)
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--arms", nargs="+", choices=KINDS, default=["term"])
    parser.add_argument("--draws", type=int)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.tasks if name not in TASKS]:
        parser.error(f"TASK: {unknown[0]!r} is none of {', '.join(TASKS)}")
    if options.page:
        page.write(options.out)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with study.one_line_errors(parser):
        for name in options.tasks or TASKS:
            run(
                name,
                options.arms,
                options.draws or TASKS[name].draws,
                options.data_dir,
                options.out,
                again=options.again,
            )


if __name__ == "__main__":
    study.run(main)
