"""Run the plan of docs/results/series_tasks/plan.md: CSBP and plain backpropagation on five real sets of sequences.

    python -m experiments.series_tasks [--data-dir data] [--out docs/results/series_tasks]

Each task is an experiment of its own in ``runs/series_tasks``, as measures differ. Finished runs are not repeated.
"""

from collections.abc import Sequence

import numpy as np

from csbp_jax import Experiment, RunTable
from csbp_jax.configs import load
from csbp_jax.experiment import Arm, Training
from csbp_jax.reporting import measures
from experiments import study
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.series_tasks"
TASKS = ("watch", "watch_steps", "seattle_weather", "fsdd_lengths", "omniglot_strokes")
PRESET = "preset, not tuned"
CHOSEN = ("optimizer.lr", "chaos.z0", "chaos.beta")


def experiment(task: str, data_dir: str = "data") -> Experiment:
    """Both arms of a task with four tries each, at the same rates: the preset's, and three drawn.

    Of CSBP the first try has the preset's term, the second none, and the others drawn strengths and annealings.
    """
    config, generator = load(task), np.random.default_rng(TASKS.index(task))
    rates = [config.optimizer.lr * factor for factor in (1, *3 ** generator.uniform(-1, 1, 3))]
    terms: list[dict[str, float]] = [{}, {"chaos.z0": 0.0}]
    for _ in range(2):
        terms.append({"chaos.z0": 10 ** generator.uniform(-2, 0), "chaos.beta": generator.uniform(0.7, 0.95)})
    tries = [{"optimizer.lr": rate} | term for rate, term in zip(rates, terms, strict=True)]
    arms = {"CSBP": Arm(tuned=tries), "plain": Arm({"chaos.z0": 0.0}, tuned={"optimizer.lr": rates})}
    return Experiment(Training(config, data_dir=data_dir), arms, tuning_seeds=range(100, 103), seeds=range(3))


def summary(table: RunTable) -> Content:
    """Of each arm and of the preset the test split's measure after the last epoch, ``[seeds]``; and what was chosen."""
    name = measures.primary(table.measures, "last_test_")
    tests = {arm: table.where(arm=arm, role="test").frame for arm in table.arms}
    runs = tests | {PRESET: table.where(arm="CSBP", role="tune", **{"try": 0}).frame}
    return {
        "measure": name,
        "test": {arm: of[f"last_test_{name}"].tolist() for arm, of in runs.items()},
        "chosen": {arm: {name: float(of[name].iloc[0]) for name in CHOSEN} for arm, of in tests.items()},
    }


def page(content: Content) -> str:
    """A row a task: means and ranges of the seeds, and the paired difference with its interval, in Markdown."""
    rows = []
    for task, of in content["tasks"].items():
        shown = measures.of(of["measure"])
        written, signed = (form.format(1 if shown.share else 3).format for form in ("{{:.{}f}}", "{{:+.{}f}}"))
        cells = []
        for arm in (PRESET, "CSBP", "plain"):
            values = shown.scale * np.array(of["test"][arm])
            cells.append(f"{written(values.mean())} ({written(values.min())} to {written(values.max())})")
        difference = student_dict(shown.scale * np.subtract(of["test"]["CSBP"], of["test"]["plain"]))
        mean, low, high = map(signed, difference.values())
        same = of["chosen"]["CSBP"] == of["chosen"]["plain"]
        cells.append("0, the same runs" if same else f"{mean} [{low}, {high}]")
        rows.append([f"`{task}`: {shown.label}{shown.unit}", *cells, f"{of['chosen']['CSBP']['chaos.z0']:.2g}"])
    return study.table(["task", PRESET, "CSBP", "plain", "CSBP - plain", "$z_0$ chosen"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all tasks, writing the results of those that are finished after each."""
    parser = study.make_parser(__doc__, "series_tasks", data_dir=True)
    options = parser.parse_args(arguments)
    content: Content = {"tasks": {}} | study.provenance(f"python -m {MODULE}", ("jax", "flax", "optax", "numpy"))
    with study.one_line_errors(parser):
        for task in TASKS:
            table = experiment(task, options.data_dir).run(study.WORK / "series_tasks" / task, chunk=1)
            content["tasks"][task] = summary(table)
            study.write(options.out, "series_tasks", content, page(content))
            table.to_csv(options.out / f"{task}.csv")


if __name__ == "__main__":
    study.run(main)
