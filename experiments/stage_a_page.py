"""Write the page of docs/results/stage_a from its rows, as many as there are.

    python -m experiments.stage_a_page [--data-dir data]

The numbers are those of the plan (docs/results/stage_a/plan.md). A draw counts once all of its arms are tested. The
data are needed only for choices whose strength in flips is not in strengths.json yet.
"""

import functools
import json
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from csbp_jax.instruments import training_map
from csbp_jax.reporting import plots
from csbp_jax.runs import RunTable
from csbp_jax.runtime.files import write_json, write_text
from experiments import stage_a, study

FOLDER = study.RESULTS / "stage_a"
MARGIN = 0.5
TICKS = (0.01, 0.03, 0.1, 0.3, 1)
MEASURES = {
    "last epoch (primary)": "test_accuracy",
    "epoch of the best validation": "chosen_test_accuracy",
    "best epoch on test (the paper's convention, which flatters)": "best_test_accuracy",
}
OTHERS = {"plain": "plain backpropagation", "drift": "drift"}
TERMS = ("CSBP", "drift")
UNITS = {"ratio": "{} of the task's gradient", "z0": "z0 {}", "flips": "{} flips"}
LIMITS = "It does not cover recordings of events, CIFAR-100, ImageNet, full width, more time steps or 200 epochs."
FLIP = "At 1 [flip](../../lab.md#strength-in-units-of-the-flip) the term alone makes a step overshoot."


def tested(rows: Sequence[dict[str, Any]], role: str) -> RunTable:
    """Return the runs of a role that were tested, "test" of the draws that are complete or "untuned"."""
    records = []
    for row in (row for row in rows if row["role"] == role):
        measures = row["measures"]
        test, chosen = measures["test"], int(np.argmax(measures["validation"]))
        names = {"case": "", "arm": row["arm"], "draw": row["draw"] or 0, "try": 0, "role": "test"}
        accuracies = {"test_accuracy": test[-1], "chosen_test_accuracy": test[chosen], "best_test_accuracy": max(test)}
        shares = {name: value / 100 for name, value in accuracies.items()}
        training = {"train_loss": measures["train_loss"][-1], "train_accuracy": measures["train_accuracy"][-1] / 100}
        records.append(names | {"seed": row["run"]["seed"]} | shares | training)
    columns = [*("case", "arm", "draw", "try", "role", "seed"), *MEASURES.values(), "train_loss", "train_accuracy"]
    frame = pd.DataFrame(records, columns=columns)
    if role == "test":
        counts = frame.groupby("draw")["arm"].value_counts().unstack().reindex(columns=list(stage_a.ARMS))
        frame = frame[frame["draw"].isin(counts.index[(counts == stage_a.SEEDS).all(axis=1)])]
    return RunTable(frame, (), (*MEASURES.values(), "train_loss"))


def gains(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return validation accuracies (points) less those of plain backpropagation at the same draw, setting and epochs.

    With columns ``arm``, ``ratio`` (of the term's gradient to the task's at step 0), ``z0``, ``epochs``, ``gain``.
    """
    last = {
        (row["role"], row["draw"], row["setting"], row["arm"]): row["measures"]["validation"][-1]
        for row in rows
        if row["role"] in ("screen", "tune")
    }
    records = []
    for row in rows:
        plain = last.get((row["role"], row["draw"], row["setting"], "plain"))
        if row["role"] in ("screen", "tune") and row["run"]["z0"] and plain is not None:
            ratio = stage_a.settings(row["draw"])[row["setting"]].ratio
            gain = row["measures"]["validation"][-1] - plain
            records.append((row["arm"], ratio, row["run"]["z0"], row["run"]["epochs"], gain))
    return pd.DataFrame(records, columns=["arm", "ratio", "z0", "epochs", "gain"])


def draw(rows: Sequence[dict[str, Any]], file: pathlib.Path) -> None:
    """Draw accuracy over strength: a point a setting, filled where it was trained in full."""
    of_settings = gains(rows)
    figure, axes = plots.panels(2, 4.2, 3.4, sharey=True)
    for colour, (arm, axis) in zip(plots.PALETTE, zip(TERMS, axes, strict=True), strict=False):
        of_arm = of_settings[of_settings["arm"] == arm]
        for epochs, face in ((stage_a.SCREEN, "white"), (stage_a.FULL, colour)):
            some = of_arm[of_arm["epochs"] == epochs]
            axis.plot(some["ratio"], some["gain"], "o", color=colour, mfc=face, label=f"{epochs} epochs")
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(xscale="log", title=arm, xlabel="strength: gradient of the term over the task's, step 0")
        axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.set_xticks([], minor=True)
        axis.legend(fontsize="small")
    axes[0].set_ylabel("validation accuracy less plain's (points)")
    plots.save(figure, file, "Validation accuracy of each setting less that of plain backpropagation at the same rate.")


def choices(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the terms that were chosen in complete draws, ``{draw, arm, ratio, z0, run}``; z0 is 0 if it is off.

    The run has the seed of tuning.
    """
    complete, terms = set(tested(rows, "test").frame["draw"]), {}
    for row in rows:
        if row["role"] == "test" and row["draw"] in complete and row["arm"] in TERMS:
            ratio, run = stage_a.settings(row["draw"])[row["setting"]].ratio, stage_a.Run(**row["run"])
            term = {"ratio": ratio, "z0": run.z0, "run": run._replace(seed=100 + row["draw"])}
            terms[row["draw"], row["arm"]] = term
    return [{"draw": draw, "arm": arm} | term for (draw, arm), term in sorted(terms.items())]


def flip_ratio(run: stage_a.Run, splits: stage_a.Splits) -> float:
    """Return the flip ratio of a run's term at its start, on its first batch, at the peak of the learning rate."""
    x, y = splits["train"]
    rows = stage_a.order(run.seed, 0, len(y))[0]
    probe = {"x": stage_a.normalised(x[rows][:, None]), "y": y[rows]}
    of_run = training_map.make(stage_a.make_config(run), probe, len(y) // stage_a.BATCH)
    return of_run.flip_ratio("chaos", of_run.start(run.seed, True), probe)


def add_flips(rows: Sequence[dict[str, Any]], file: pathlib.Path, data_dir: str) -> list[dict[str, Any]]:
    """Return the choices with their ``flips``, which are measured where the file has them not yet, and write it."""
    stored: list[dict[str, Any]] = json.loads(file.read_text())["choices"] if file.exists() else []
    splits, terms = functools.cache(stage_a.load), list(stored)
    for choice in choices(rows):
        run = choice.pop("run")
        if not any(choice.items() <= term.items() for term in stored):
            flips = flip_ratio(run, splits(data_dir, run.side)) if run.z0 else 0.0
            terms.append(choice | {"flips": float(f"{flips:.3g}")})
    if terms != stored:
        write_json(file, {"choices": terms} | study.provenance("python -m experiments.stage_a_page"))
    return terms


def strengths_text(terms: Sequence[dict[str, Any]]) -> str:
    """Say which strengths the arms chose."""
    sentences = []
    for arm in TERMS:
        of_arm = [term for term in terms if term["arm"] == arm]
        on = [term for term in of_arm if term["z0"]]
        ranges = {name: sorted(term[name] for term in on) for name in UNITS}
        digits = functools.partial(np.format_float_positional, precision=2, fractional=False, trim="-")
        parts = [UNITS[name].format(f"{digits(of[0])} to {digits(of[-1])}") for name, of in ranges.items() if of]
        off = f"off in {len(of_arm) - len(on)} of {len(of_arm)} draws"
        sentences.append(f"{arm}: {', '.join([*parts, off])}.")
    return textwrap.fill(" ".join(["**Strengths chosen**, at the first step.", *sentences, FLIP]), 118)


def interval(difference: float, low: float, high: float) -> str:
    return f"{difference:+.3g} [{low:+.3g}, {high:+.3g}]"


def over_seeds(rows: Sequence[dict[str, Any]], role: str, label: str) -> list[list[str]]:
    """Return rows of CSBP minus the other arms at one setting of each, by Welch's test and paired by seed.

    There is none without two seeds of an arm.
    """
    table = tested(rows, role)
    points = 100 * table.frame.set_index("arm")["test_accuracy"]
    welch, paired = [], []
    for other in OTHERS:
        csbp, of_other = points[points.index == "CSBP"], points[points.index == other]
        if min(len(csbp), len(of_other)) > 1:
            ends = stats.ttest_ind(csbp, of_other, equal_var=False).confidence_interval()
            welch.append(interval(csbp.mean() - of_other.mean(), *ends))
            paired.append(interval(*table.contrast("CSBP", other)[other][ENDS]))
        else:
            welch.append("")
            paired.append("")
    seeds = f"{(table.frame['arm'] == 'CSBP').sum()} seeds"
    return [[f"{label}, {seeds} (Welch)", *welch], ["the same, paired by seed", *paired]] if any(welch) else []


def levels(rows: Sequence[dict[str, Any]]) -> str:
    """Say how accurate the networks are in the test, tuned and untuned, and plain backpropagation in training."""
    tuned, texts = tested(rows, "test").frame, []
    for frame in (tuned, tested(rows, "untuned").frame):
        of_arms = 100 * frame.groupby("arm")["test_accuracy"].mean()
        texts.append(", ".join(f"{arm} {of_arms[arm]:.1f} %" for arm in stage_a.ARMS if arm in of_arms))
    untuned = f"; at the released settings, untuned: {texts[1]}" if texts[1] else ""
    training = 100 * tuned["train_accuracy"][tuned["arm"] == "plain"].mean()
    return (
        f"Test accuracy: {texts[0]}{untuned}. In training, with dropout and on augmented pictures, tuned plain has"
        f" {training:.1f} %."
    )


def page(rows: Sequence[dict[str, Any]], terms: Sequence[dict[str, Any]]) -> str:
    """Return the page: the answer with what it does not cover, the picture, the table, and how it was made.

    ``terms`` are those of :func:`add_flips`.
    """
    test = tested(rows, "test")
    draws = test.frame["draw"].nunique()
    answer, cells = f"**Not yet decided**: {draws} of {stage_a.DRAWS} draws are complete.", []
    if draws > 1:
        primary = test.contrast("CSBP", "plain", margin=MARGIN)
        verdict = "so far " * (draws < stage_a.DRAWS) + str(primary.frame.iloc[0]["verdict"])
        answer = f"**{verdict.capitalize()}**: {next(primary.lines())}. {levels(rows)}"
        for label, measure in [*MEASURES.items(), ("training loss, last epoch", "train_loss")]:
            of_others = test.contrast("CSBP", list(OTHERS), measure=measure)
            cells.append([label, *(interval(*of_others[other][ENDS]) for other in OTHERS)])
    cells += over_seeds(rows, "untuned", "released settings, untuned")
    cells += over_seeds(rows, "larger", f"stage B: 32x32, more channels, {stage_a.LARGER} epochs")
    commits = ", ".join(sorted({row["commit"][:8] for row in rows}))
    hours = sum(row["cpu_seconds"] for row in rows) / 3600
    head = ["CSBP minus, points", *OTHERS.values()]
    table = study.table(head, cells) + "\n\n" if cells else ""
    return f"""# Does CSBP train a small deep network better?

The paper: CSBP "improves the generalization performance on both neuromorphic datasets and large-scale static
datasets". Here: CNN7 with TEBN at a quarter of its width, all labels of CIFAR-10's pictures at 16x16, T = 2, SGD, 30
epochs. Every arm has as many tries. The settings are drawn {stage_a.DRAWS} times, and each arm is tuned in every
draw, so that a lucky draw is not taken for an effect.

{textwrap.fill(f"{answer} {LIMITS}", 118, break_on_hyphens=False)}

![validation accuracy over strength](strength.png)

*Each point is a setting; hollow ones were screened for {stage_a.SCREEN} epochs.*

{table}{strengths_text(terms)}

`python -m experiments.stage_a`, then `python -m experiments.stage_a_page`; [plan](plan.md).
{len(rows)} runs, {hours:.1f} core-hours, at commit {commits}. Differences are means over draws with 95 % intervals of
Student's t over draws.
"""


ENDS = ["difference", "low", "high"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "stage_a", data_dir=True)
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in (options.out / "runs.jsonl").read_text().splitlines()]
    draw(rows, options.out / "strength.png")
    terms = add_flips(rows, options.out / "strengths.json", options.data_dir)
    write_text(options.out / "README.md", page(rows, terms))


if __name__ == "__main__":
    main()
