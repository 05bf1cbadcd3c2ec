"""Run the plan of docs/results/nmnist/plan.md: CSBP, plain backpropagation and the drift in ten folds of N-MNIST.

    python -m experiments.nmnist [--seeds 3] [--data-dir data] [--out docs/results/nmnist]
    python -m experiments.nmnist --pilots      the settings, by validation on fold 0; writes pilots.json

N-MNIST must have been prepared (make data); the study takes recordings 1 to 1000 and 60001 to 60100 of it. Finished
runs are in ``runs/nmnist`` and not repeated.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from csbp_jax import Experiment, RunTable
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.reporting.statistics import paired, student
from experiments import study
from experiments.nmnist import training
from experiments.nmnist.training import FOLDS, Folds, Setting
from experiments.statistics import (
    bits,
    compare_solved,
    equivalence_of_shares,
    percent_text,
    points_text,
    student_dict,
    with_holm,
)
from experiments.study import Content

MODULE = "python -m experiments.nmnist"
CONDITIONS = {"CSBP": Setting(z0=3.0), "plain": Setting(lr=1.6e-2), "drift": Setting("drift", 3.0, 1.6e-2)}
RATES = (8e-3, 1.6e-2)
PILOTS = {
    "CSBP": [*(Setting(z0=z0) for z0 in (3.0, 10.0, 30.0)), *(Setting(z0=3.0, lr=lr) for lr in RATES)],
    "plain": [Setting(lr=lr) for lr in (2e-3, 4e-3, *RATES, 3.2e-2)],
    "drift": [*(Setting("drift", z0) for z0 in (3.0, 10.0, 30.0)), *(Setting("drift", 3.0, lr) for lr in RATES)],
}
"""Tries of each condition; the last two of CSBP and drift are of their best strength."""
PENALTIES = (1e2, 1e3, 1e4)
PENALTY = 1e3
CONTRASTS = ("plain", "drift")
MARGIN, GOAL = 0.015, 0.97
EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation"}

Array = NDArray[Any]


# --- runs ---------------------------------------------------------------------------------------------------------


def experiment(system: Folds, seeds: int) -> Experiment:
    """The conditions on all folds."""
    arms = {name: setting._asdict() for name, setting in CONDITIONS.items()}
    return Experiment(system, arms, cases={f"fold {fold}": {"fold": fold} for fold in range(FOLDS)}, seeds=range(seeds))


def runs_of(table: RunTable) -> Content:
    """``{condition: {seed: runs of the folds}}``; in ``epochs.csv`` a row may be of an epoch and of a recording."""
    assert table.folder is not None
    curves = pd.read_csv(table.folder / "epochs.csv").groupby(["case", "arm", "seed"])
    runs: Content = {}
    for _, row in table.frame.iterrows():
        of_run = curves.get_group((row["case"], row["arm"], row["seed"]))
        run: Content = {"validation": of_run["validation"].dropna().tolist()}
        for which, epoch in (("last", training.EPOCHS), ("chosen", row["chosen_epoch"])):
            run[which] = {"epoch": epoch, "solved": bits(of_run[f"{which}_solved"].dropna().to_numpy())}
        runs.setdefault(row["arm"], {}).setdefault(row["seed"], []).append(run)
    return runs


def share(report: Content) -> float:
    """Accuracy of a run at one of its epochs."""
    return float(np.mean([bit == "1" for bit in report["solved"]]))


def pilots(system: Folds) -> Content:
    """Validation on fold 0 of all settings of the plan: means over the last five epochs."""
    arms = {f"{name} {i}": setting._asdict() for name, of in PILOTS.items() for i, setting in enumerate(of)}
    table = Experiment(system, arms, cases={"fold 0": {"fold": 0}}, seeds=[0]).run(study.WORK / "nmnist", chunk=1)
    runs = table.frame.set_index("arm")
    rows = {
        name: [
            {"setting": study.changed_fields(setting)}
            | {of: float(runs[f"validation_{of}"][f"{name} {i}"]) for of in ("accuracy", "loss")}
            for i, setting in enumerate(settings)
        ]
        for name, settings in PILOTS.items()
    }
    ridge = {
        f"{penalty:g}": float(training.ridge(system.frames, system.y, 0, penalty, "validation").mean())
        for penalty in PENALTIES
    }
    return {"pilots": rows, "ridge": ridge}


# --- endpoints ----------------------------------------------------------------------------------------------------


def fold_accuracies(results: Mapping[int, Sequence[Content]], which: str) -> Array:
    """Accuracy of each fold, mean over the seeds, ``[folds]``."""
    return np.mean([[share(run[which]) for run in folds] for folds in results.values()], axis=0)


def contrasts(results: Mapping[str, Mapping[int, Sequence[Content]]], which: str, sizes: tuple[int, int]) -> Content:
    """CSBP less the others: over the folds, and over the recordings of each seed.

    Args:
      results: ``{condition: {seed: results of the folds}}``, of the same seeds.
      which: epoch.
      sizes: numbers of test and of training recordings of a fold.

    Returns:
      ``{condition: {difference, low, high, t, p, p_holm, equivalence, mcnemar}}``. ``low`` and ``high`` are the 95 %
      interval of the corrected test; ``equivalence`` is p of the two one-sided tests with the same error; ``mcnemar``
      has a comparison of the recordings for each seed.
    """
    rows: Content = {}
    recordings = [mcnemar({name: seeds[seed] for name, seeds in results.items()}, which) for seed in results["CSBP"]]
    for other in CONTRASTS:
        differences = fold_accuracies(results["CSBP"], which) - fold_accuracies(results[other], which)
        rows[other] = over_folds(differences, sizes) | {"mcnemar": [row[other] for row in recordings]}
    return with_holm(rows)


def over_folds(differences: Array, sizes: tuple[int, int]) -> Content:
    """Mean difference over folds with the corrected t test, its 95 % interval, and p of equivalence."""
    overlap = sizes[0] / sizes[1]
    test = paired(differences, margin=MARGIN, overlap=overlap)
    mean, low, high = test.difference
    t = {"t": mean / (test.sd * float(np.sqrt(1 / test.pairs + overlap)))} if test.sd else {}
    return {"difference": mean, "low": low, "high": high, **t, "p": test.p, "equivalence": test.equivalence}


def mcnemar(folds: Mapping[str, Sequence[Content]], which: str) -> Content:
    """CSBP less the others over all recordings of a seed, by McNemar's exact test and by equivalence."""
    solved = {name: {"solved": "".join(run[which]["solved"] for run in runs)} for name, runs in folds.items()}
    pairs = compare_solved(solved, "CSBP")
    rows: Content = {}
    for other, pair in pairs.items():  # compare_solved subtracts the reference
        turned = pair | {"difference": -pair["difference"], "more": pair["less"], "less": pair["more"]}
        rows[other] = turned | {"equivalence": equivalence_of_shares(turned, MARGIN)["p"]}
    return rows


def verdict(row: Content) -> str:
    """The plan's verdict on a contrast, from the folds and from the recordings of seed 0."""
    recordings = row["mcnemar"][0]
    if row["p_holm"] < 0.05 and recordings["p_holm"] < 0.05:
        return "CSBP is better" if row["difference"] > 0 else "CSBP is worse"
    return "equal" if row["equivalence"] < 0.05 and recordings["equivalence"] < 0.05 else "not decided"


def summary(runs: Content, sizes: tuple[int, int]) -> Content:
    """Accuracies and contrasts."""
    return {
        "accuracy": {
            which: {name: fold_accuracies(of, which).tolist() for name, of in runs.items()} for which in EPOCHS
        },
        "contrasts": {which: contrasts(runs, which, sizes) for which in EPOCHS},
    }


# --- page ---------------------------------------------------------------------------------------------------------


def page(content: Content) -> str:
    """Tables of accuracies and of contrasts."""
    head = ["condition", *(f"test accuracy (%), {text}" for text in EPOCHS.values()), "at least 97 %, last epoch"]
    rows = []
    for name in CONDITIONS:
        folds = {which: content["accuracy"][which][name] for which in EPOCHS}
        cells = [percent_text(student_dict(values)) for values in folds.values()]
        rows.append([name, *cells, "yes" if np.mean(folds["last"]) >= GOAL else "no"])
    rows.append(["ridge regression", percent_text(student_dict(content["ridge"])), "", ""])
    tables = [study.table(head, rows)]
    for which, text in EPOCHS.items():
        tables += [f"CSBP less the other, {text}:", contrast_table(content["contrasts"][which])]
    return "\n\n".join([*tables, without_first_fold(content)])


def without_first_fold(content: Content) -> str:
    """The contrasts of the last epoch over the folds on which nothing was chosen."""
    accuracy = {name: np.array(folds)[1:] for name, folds in content["accuracy"]["last"].items()}
    texts = []
    for other in CONTRASTS:
        row = over_folds(accuracy["CSBP"] - accuracy[other], content["sizes"])
        interval = percent_text({key: row[key] for key in ("difference", "low", "high")}, "+")
        texts.append(f"{other} {interval}, p of equivalence {row['equivalence']:.2g}")
    return f"The same without fold 0, on which the settings were chosen, last epoch: {'; '.join(texts)}."


def contrast_table(rows: Mapping[str, Content]) -> str:
    """Both contrasts at an epoch."""
    of_folds = ["other", "difference (points), corrected over folds", "p, Holm", "p of equivalence"]
    of_recordings = ["seed 0: difference over recordings", "only CSBP, only the other", "p of McNemar, Holm"]
    cells = []
    for other, row in rows.items():
        first = row["mcnemar"][0]
        interval = {key: row[key] for key in ("difference", "low", "high")}
        cells.append(
            [
                other,
                percent_text(interval, "+"),
                f"{row['p_holm']:.2g}",
                f"{row['equivalence']:.2g}",
                points_text(first),
                f"{first['more']}, {first['less']}",
                f"{first['p_holm']:.2g}",
                f"{first['equivalence']:.2g}",
                verdict(row),
            ]
        )
    return study.table([*of_folds, *of_recordings, "p of equivalence, recordings", "verdict"], cells)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the accuracy of each fold, and differences of the folds with their means and intervals."""
    figure = empty_figure(9, 3)
    left, right = figure.subplots(1, 2)
    folds = {name: 100 * np.array(values) for name, values in content["accuracy"]["last"].items()}
    for i, values in enumerate(folds.values()):
        interval = student(values)
        _row(left, i, values, (interval.mean, interval.low, interval.high), PALETTE[i])
    for i, other in enumerate(CONTRASTS):
        row = content["contrasts"]["last"][other]
        ends = [100 * row[name] for name in ("difference", "low", "high")]
        _row(right, i, folds["CSBP"] - folds[other], ends, PALETTE[1 + i])
    left.set_yticks(range(len(folds)), list(folds))
    right.set_yticks(range(len(CONTRASTS)), [f"CSBP minus {other}" for other in CONTRASTS])
    left.set(xlabel="test accuracy of a fold (%)", ylim=(len(folds) - 0.5, -0.5))
    right.axvspan(-100 * MARGIN, 100 * MARGIN, color="0.9")
    right.axvline(0, color="black", lw=0.8)
    right.set(xlabel="difference of a fold (points)", ylim=(len(CONTRASTS) - 0.5, -0.5))
    study.save_figure(figure, out, "nmnist")


def _row(axes: Any, y: int, values: Array, interval: Sequence[float | None], color: str) -> None:
    """Draw values as circles, those that are equal beside each other, above their mean and its interval."""
    ranks = [np.sum(np.isclose(values[:n], value)) for n, value in enumerate(values)]
    axes.plot(values, y - 0.1 - 0.07 * np.array(ranks), "o", ms=5, color=color, mfc="none")
    axes.plot(interval[1:], [y + 0.2] * 2, color=color, lw=2)
    axes.plot(interval[:1], [y + 0.2], "o", ms=6, color=color)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "nmnist", data_dir=True, seeds=3)
    parser.add_argument("--pilots", action="store_true")
    options = parser.parse_args(arguments)
    with study.one_line_errors(parser):
        system = Folds(options.data_dir)
        if options.pilots:
            study.store(options.out / "pilots.json", pilots(system), f"{MODULE} --pilots")
            return
        runs = runs_of(experiment(system, options.seeds).run(study.WORK / "nmnist", chunk=1))
    indices = training.split(system.y, 0)
    sizes = len(indices["test"]), len(indices["train"])
    ridge = [float(training.ridge(system.frames, system.y, fold, PENALTY).mean()) for fold in range(FOLDS)]
    content = {"runs": runs, "sizes": sizes, "ridge": ridge} | summary(runs, sizes)
    study.sign(content, study.provenance(f"{MODULE} --seeds {options.seeds}"))
    draw(content, options.out)
    study.write(options.out, "nmnist", content, page(content))


if __name__ == "__main__":
    study.run(main)
