"""Test accuracy and curves of every epoch of a preset: CSBP, plain backpropagation and drift.

    python -m experiments.curves [--preset cifar10_quick] [--conditions csbp plain drift] [--seeds 3]
        [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/presets/PRESET by default. The config is that of the preset, a
FIELD any of it. Runs with the same seed have the same initial weights and the same order of data. Runs are kept under
``runs/curves``: a stopped one resumes, also within an epoch, and one that has finished is not repeated. The test split
is evaluated once per run, with the weights of the last epoch and with those of the epoch chosen by validation. Runs are
added to a ``curves.json`` only if it records the same data.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from csbp_jax import configs
from csbp_jax.cli.options import parse
from csbp_jax.config import Config, run_name, to_json
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runs import Run
from csbp_jax.training.loop import train
from experiments import accuracy, study
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.curves"
PRESETS = ("cifar10_quick", "cifar10_ilif", "cifar10_cnn7", "fsdd")
ROOT = pathlib.Path("runs/curves")
CONDITIONS: dict[str, dict[str, Any]] = {"csbp": {}, "plain": {"chaos.z0": 0.0}, "drift": {"chaos.term": "drift"}}
"""What each changes in the config: the chaos term only."""
LABELS = {"csbp": "CSBP", "plain": "plain backpropagation", "drift": "drift in place of the chaos term"}
KINDS = ("last", "chosen")
EPOCH_KEYS = ("epoch", "seconds", "task_loss", "accuracy", "validation_loss", "validation_accuracy", "z", "rates")


def curves_of(folder: pathlib.Path) -> list[Content]:
    """The epochs of a run: losses, accuracies, z and firing rates. There is none with a test accuracy."""
    rows = Run.read(folder).rows()
    return [{key: row[key] for key in EPOCH_KEYS if key in row} for row in rows if row["kind"] == "epoch"]


def table(runs: Mapping[str, Mapping[str, Content]]) -> str:
    """A row per condition with the runs that have finished, and the paired differences to CSBP, in Markdown."""
    rows = []
    for name, of_seed in runs.items():
        last, chosen = ([run["result"][kind]["test_accuracy"] for run in of_seed.values()] for kind in KINDS)
        minutes = np.mean([run["result"]["seconds"] for run in of_seed.values()]) / 60
        cells = [accuracy.cell(student_dict(values)) for values in (last, chosen)]
        rows.append([LABELS[name], str(len(of_seed)), *cells, _difference(runs, name), f"{minutes:.1f}"])
    head = ["condition", "runs", "last epoch (%)", "chosen by validation (%)", "CSBP - this, last epoch"]
    return study.table([*head, "minutes a run"], rows)


def _difference(runs: Mapping[str, Mapping[str, Content]], name: str) -> str:
    """CSBP less the condition over the seeds that both have."""
    seeds = [seed for seed in runs.get("csbp", {}) if seed in runs[name]]
    if name == "csbp" or not seeds:
        return ""
    csbp, other = ([runs[arm][seed]["result"]["last"]["test_accuracy"] for seed in seeds] for arm in ("csbp", name))
    return accuracy.cell(student_dict(np.subtract(csbp, other)))


def draw(runs: Mapping[str, Mapping[str, Content]]) -> Figure:
    """Task loss and accuracy of each run over its epochs; test accuracies are points at their epochs."""
    figure = empty_figure(10, 5)
    losses, accuracies = figure.subplots(1, 2)
    for color, (name, of_seed) in zip(PALETTE, runs.items(), strict=False):
        short = "CSBP" if name == "csbp" else name
        for i, run in enumerate(of_seed.values()):
            epochs = [row["epoch"] for row in run["epochs"]]
            for axes, key, scale in ((losses, "loss", 1), (accuracies, "accuracy", 100)):
                train_key = "task_loss" if key == "loss" else key
                training = [scale * row[train_key] for row in run["epochs"]]
                validation = [scale * row[f"validation_{key}"] for row in run["epochs"]]
                label = short if i == 0 else None
                axes.plot(epochs, training, ":", color=color, label=label and f"{label}, training")
                axes.plot(epochs, validation, ".-", color=color, label=label and f"{label}, validation")
            for kind, marker in zip(KINDS, "*o", strict=True):
                tested = run["result"][kind]
                label = f"{short}, test, {kind} epoch" if i == 0 else None
                point = 100 * tested["test_accuracy"]
                accuracies.plot(tested["epoch"], point, marker, color=color, ms=9, mfc="none", ls="", label=label)
    losses.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Task loss", yscale="log")
    accuracies.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
    figure.legend(
        *accuracies.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(runs) if len(runs) > 1 else 4,
        fontsize="small",
    )
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, data_dir=True, seeds=3)
    parser.add_argument("--preset", choices=PRESETS, default="cifar10_quick")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=[*CONDITIONS])
    options, fields = parser.parse_known_args(arguments)
    with study.one_line_errors(parser):
        config = parse(configs.load(options.preset), fields, MODULE)
        out = options.out or study.PRESETS / options.preset
        file = out / "curves.json"
        content = study.resume(parser, file, {"config": to_json(config)}, {"runs": {}, "data_marks": {}})
        command = study.command_of(parser, f"python -m {MODULE}", options, fields)
        pairs = itertools.product(range(options.seeds), options.conditions)
        missing = [(seed, name) for seed, name in pairs if str(seed) not in content["runs"].get(name, {})]
        if missing:
            study.check_data(parser, file, content, config.data.name, study.data_mark(config, options.data_dir))
        for seed, name in missing:
            run = train_run(config.replace(seed=seed, **CONDITIONS[name]), options.data_dir)
            run |= study.provenance(command, ("jax", "flax", "optax", "numpy"))
            content["runs"].setdefault(name, {})[str(seed)] = run
            write(out, content)
    if not missing:
        write(out, content)


def train_run(config: Config, data_dir: str) -> dict[str, Any]:
    """Train, or resume, a run: ``{"epochs": its curves, "result": its test accuracies}``."""
    result = train(config, name=run_name(config), root=ROOT, data_dir=data_dir)
    return {"epochs": curves_of(ROOT / run_name(config)), "result": result}


def write(out: pathlib.Path, content: Content) -> None:
    """Write ``curves.json``, ``table.md`` and the figure of curves."""
    runs = {name: content["runs"][name] for name in CONDITIONS if name in content["runs"]}
    study.write(out, "curves", content, table(runs))
    study.save_figure(draw(runs), out, "curves")


if __name__ == "__main__":
    study.run(main)
