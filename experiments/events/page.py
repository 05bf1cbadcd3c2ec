"""Page and figure of docs/results/events from the rows that are there, by the numbers of its plan."""

import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from csbp_jax.reporting import plots
from csbp_jax.runs import reading
from csbp_jax.runtime.files import write_text
from experiments import study
from experiments.events.plan import ARMS, CHECK_SEEDS, EPOCHS, GAP, MARGIN, SEEDS

REGIME = (
    "in a CNN7 with TEBN at a quarter of its width, on 8,000 recordings of 16x16 pixels by a simulated event camera, "
    "at the released settings"
)
LIMITS = (
    "This is a miniature of the paper's experiment and not that experiment: DVS-CIFAR10, real cameras, larger frames, "
    "the whole width and 200 epochs are not tested."
)
CONTRASTS = {
    "CSBP minus plain (primary)": ("CSBP", "plain"),
    "CSBP minus linear": ("CSBP", "linear"),
    "linear minus plain": ("linear", "plain"),
    "CSBP minus drift": ("CSBP", "drift"),
    "CSBP at z0 / 4 minus plain": ("CSBP, z0 / 4", "plain"),
    "CSBP at 4 z0 minus plain": ("CSBP, 4 z0", "plain"),
    "CSBP minus plain, both at rate 0.03": ("CSBP, rate 0.03", "plain, rate 0.03"),
}
"""Differences of test accuracy after the last epoch."""
DRAWN = ("plain", "CSBP", "linear")
TEST, SPARE = "test_accuracy", "best_spare_accuracy"


class Welch(NamedTuple):
    """A difference of means, in points: its 95 % interval, its 90 % interval, and the numbers of runs."""

    difference: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float
    runs: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> Welch | None:
    """Return the mean of the first less that of the second with Welch's intervals.

    None if either has fewer than two different values, from which no spread can be estimated.
    """
    if min(len(np.unique(first)), len(np.unique(second))) < 2:
        return None
    test = stats.ttest_ind(first, second, equal_var=False)
    (low, high), (low_90, high_90) = (test.confidence_interval(level) for level in (0.95, 0.9))
    difference = float(first.mean() - second.mean())
    counts = len(first), len(second)
    return Welch(difference, float(low), float(high), float(low_90), float(high_90), float(test.pvalue), counts)


def words(primary: Welch) -> str:
    """The plan's words for the primary contrast."""
    said = []
    if primary.low > 0:
        said.append("gain")
    if primary.high < 0:
        said.append("harm")
    if primary.low_90 >= -MARGIN and primary.high_90 <= MARGIN:
        said.append(f"equal within {MARGIN:g} point")
    return ", and ".join(said) or "not decided"


def read(file: pathlib.Path) -> pd.DataFrame | None:
    """Read rows; None if there is no file."""
    if not file.exists():
        return None
    texts: Any = {"commit": str, "data": str}  # which may look like numbers
    return pd.read_csv(file, dtype=texts, **reading.ALL_DIGITS)


def gap(runs: pd.DataFrame, epochs: int) -> float:
    """Return training minus validation accuracy after the last epoch: points, mean of the runs of the check.

    NaN while the check with this number of epochs lacks a run.
    """
    check = runs[(runs["part"] == "check") & (runs["epochs"] == epochs)]
    if len(check) < len(CHECK_SEEDS):
        return float("nan")
    return float(100 * (check["train_accuracy"] - check["last_validation_accuracy"]).mean())


def points(runs: pd.DataFrame, arm: str, measure: str) -> NDArray[np.float64]:
    """Return a measure of the study's runs of an arm, in points, by seed."""
    of_arm = runs[(runs["part"] == "study") & (runs["arm"] == arm)].sort_values("seed")
    return 100 * of_arm[measure].to_numpy(float)


def compared(runs: pd.DataFrame, measure: str = TEST) -> dict[str, Welch]:
    """Return the contrasts that have an interval already."""
    rows = {}
    for label, (first, second) in CONTRASTS.items():
        contrast = welch(points(runs, first, measure), points(runs, second, measure))
        if contrast is not None:
            rows[label] = contrast
    return rows


def complete_seeds(runs: pd.DataFrame) -> int:
    """Return of how many seeds all arms are finished, counted from 0 on."""
    finished = {arm: set(runs[(runs["part"] == "study") & (runs["arm"] == arm)]["seed"]) for arm in ARMS}
    for seed in range(SEEDS):
        if any(seed < ARMS[arm].seeds and seed not in finished[arm] for arm in ARMS):
            return seed
    return SEEDS


# --- text ---------------------------------------------------------------------------------------------------------


def answer(runs: pd.DataFrame) -> str:
    """Say what came out, with the regime in the same sentence."""
    gaps = {epochs: gap(runs, epochs) for epochs in (EPOCHS, 2 * EPOCHS)}
    if gaps[2 * EPOCHS] < GAP:
        return (
            f"**Not tested**: {REGIME}, training is only {gaps[2 * EPOCHS]:.1f} points above validation after "
            f"{2 * EPOCHS} epochs ({gaps[EPOCHS]:.1f} after {EPOCHS}). The plan asks for {GAP:g}, as a network that "
            "does not overfit cannot test generalisation, and the study ended here."
        )
    primary, seeds = compared(runs).get("CSBP minus plain (primary)"), complete_seeds(runs)
    if primary is None:
        return f"**Not yet decided**: {seeds} of {SEEDS} seeds are finished."
    plain, csbp = (points(runs, arm, TEST).mean() for arm in ("plain", "CSBP"))
    verdict = words(primary).capitalize()
    if seeds < SEEDS:
        verdict = f"So far, with {seeds} of {SEEDS} seeds finished, {words(primary)}"
    overfit = (points(runs, "plain", "train_accuracy") - points(runs, "plain", TEST)).mean()
    return (
        f"**{verdict}**: {REGIME}, where plain backpropagation overfits by {overfit:.1f} points, CSBP minus plain "
        f"backpropagation is {primary} points of test accuracy (90 % interval [{primary.low_90:+.2f}, "
        f"{primary.high_90:+.2f}], p {primary.p:.2g}, {primary.runs[0]} and {primary.runs[1]} runs; {csbp:.2f} and "
        f"{plain:.2f} %). The paper's gain on DVS-CIFAR10 is 2.1 points."
    )


def contrast_table(runs: pd.DataFrame) -> str:
    """Return the contrasts on test, and of the primary the paper's convention."""
    rows = [
        [label, str(contrast), f"{contrast.p:.2g}", "{} and {}".format(*contrast.runs)]
        for label, contrast in compared(runs).items()
    ]
    convention = compared(runs, SPARE).get("CSBP minus plain (primary)")
    if convention is not None:
        label = "CSBP minus plain, best epoch on the spare recordings (the paper's convention, which flatters)"
        rows.insert(1, [label, str(convention), f"{convention.p:.2g}", "{} and {}".format(*convention.runs)])
    return study.table(["difference of test accuracy, last epoch", "points [95 %]", "p", "runs"], rows)


def last_losses(curves: pd.DataFrame | None, arm: str) -> NDArray[np.float64]:
    """Return the training losses of the last epoch of the study's runs of an arm, on augmented batches."""
    if curves is None:
        return np.zeros(0)
    of_arm = curves[(curves["part"] == "study") & (curves["arm"] == arm)]
    return of_arm[of_arm["epoch"] == of_arm["epochs"]]["train_loss"].to_numpy(float)


def level_table(runs: pd.DataFrame, curves: pd.DataFrame | None) -> str:
    """Return the accuracies and losses of each arm."""
    rows = []
    for arm in ARMS:
        test, train = points(runs, arm, TEST), points(runs, arm, "train_accuracy")
        if len(test):
            spread = f"{test.std(ddof=1):.2f}" if len(test) > 1 else ""
            spare = points(runs, arm, SPARE).mean()
            gap_of_arm = (train - test).mean()
            cells = [f"{value:.2f}" for value in (test.mean(), train.mean(), gap_of_arm, spare)]
            losses = last_losses(curves, arm)
            loss = f"{losses.mean():.4f}" if len(losses) else ""
            rows.append([arm, str(len(test)), cells[0], spread, *cells[1:], loss])
    head = ["arm", "runs", "test (%)", "SD over seeds", "training (%)", "training - test", "best epoch, spare (%)"]
    return study.table([*head, "training loss, augmented"], rows)


def check_text(runs: pd.DataFrame) -> str:
    """Say what the check measured."""
    texts = []
    for epochs in (EPOCHS, 2 * EPOCHS):
        measured = gap(runs, epochs)
        if np.isfinite(measured):
            texts.append(f"{measured:.1f} points after {epochs} epochs")
    measured_gaps = ", ".join(texts)
    return f"**Check** of two plain runs: training minus validation accuracy is {measured_gaps}; at least {GAP:g} pass."


def repeat_text(runs: pd.DataFrame) -> str:
    """Say how far apart the runs of a seed are that were trained twice; empty if none was."""
    texts = []
    for _, again in runs[runs["part"] == "repeat"].iterrows():
        same = (runs["part"] == "study") & (runs["arm"] == again["arm"]) & (runs["seed"] == again["seed"])
        for _, first in runs[same].iterrows():
            accuracies = f"{100 * first[TEST]:.2f} % on {first['processor']}, {100 * again[TEST]:.2f} % on"
            texts.append(f"{again['arm']}, seed {again['seed']}: {accuracies} {again['processor']}")
    if not texts:
        return ""
    return f"**A run repeated**: {'; '.join(texts)}. On another processor rounding makes a run another draw."


def page(runs: pd.DataFrame | None, curves: pd.DataFrame | None = None) -> str:
    """Return the page: the answer with what it does not cover, figures, tables, and how it was made."""
    if runs is None:
        body, made = "**Not yet decided**: no run is finished.", ""
    else:
        curve_caption = (
            "accuracy on augmented training batches (dotted) and on the spare recordings (solid), means over seeds."
        )
        if compared(runs):
            study_parts = [
                "![accuracy over epochs, and differences between the arms](events.png)",
                _filled(
                    f"*Left: {curve_caption} Right: differences of test accuracy after the last epoch, with 95 % "
                    f"intervals by Welch; the grey band is {MARGIN:g} point.*"
                ),
                contrast_table(runs),
                "The first line is the plan's primary number; the others explain it, and are not corrected.",
                level_table(runs, curves),
            ]
        else:  # an interval needs two seeds
            study_parts = [
                "![accuracy over epochs](events.png)",
                _filled(f"*{curve_caption.capitalize()}*"),
                level_table(runs, curves),
            ]
        parts = [
            _filled(f"{answer(runs)} {LIMITS}"),
            *(study_parts if (runs["part"] == "study").any() else []),
            _filled(check_text(runs)),
            _filled(repeat_text(runs)),
        ]
        body = "\n\n".join(part for part in parts if part)
        processors = ", ".join(dict.fromkeys(runs["processor"]))
        commits = ", ".join(dict.fromkeys(commit[:8] for commit in runs["commit"]))
        hours = runs["cpu_seconds_of_run"].sum() / 3600
        made = f" {len(runs)} runs, {hours:.1f} core-hours, at commit {commits}, on {processors}."
    return f"""# Does CSBP generalise better on recordings of events?

The paper's largest gain is on DVS-CIFAR10, 79.6 to 81.7 %: few recordings, many epochs, one seed, released settings.

{body}

![events of ten recordings](recordings.png)

*Recordings of the simulated camera ([cifar10_events](../../data.md#pictures-as-recordings)).*

{_filled(f"`python -m experiments.events`; [plan](plan.md).{made}")}
"""


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


# --- figure -------------------------------------------------------------------------------------------------------


def draw(runs: pd.DataFrame, curves: pd.DataFrame | None, file: pathlib.Path) -> None:
    """Draw accuracy over epochs, and the contrasts."""
    contrasts = compared(runs)
    figure = plots.empty_figure(9 if contrasts else 5, 3.4)
    left, *others = figure.subplots(1, 2 if contrasts else 1, squeeze=False)[0]
    if curves is not None:
        of_study = curves[curves["part"] == "study"]
        for colour, arm in zip(plots.PALETTE, DRAWN, strict=False):
            of_epochs = of_study[of_study["arm"] == arm].groupby("epoch")
            if not len(of_epochs):
                continue
            for measure, style in (("spare_accuracy", "-"), ("augmented_accuracy", ":")):
                means = 100 * of_epochs[measure].mean()
                left.plot(means.index, means, style, color=colour, label=arm if style == "-" else None)
        left.legend(fontsize="small")
    left.set(xlabel="epoch", ylabel="accuracy (%)")
    for right in others:
        right.axvspan(-MARGIN, MARGIN, color="0.92")
        right.axvline(0, color="0.6", linewidth=0.8)
        for place, contrast in enumerate(contrasts.values()):
            colour = plots.PALETTE[0] if place == 0 else "0.4"
            right.plot([contrast.low, contrast.high], [place, place], color=colour)
            right.plot(contrast.difference, place, "o", color=colour)
        right.set_yticks(range(len(contrasts)), list(contrasts), fontsize="small")
        right.invert_yaxis()
        right.set(xlabel="difference (points)")
    caption = "Accuracy of each epoch, means over seeds"
    caption += "; differences of test accuracy with 95 % intervals by Welch." if contrasts else "."
    plots.save(figure, file, caption)


def write(out: pathlib.Path) -> None:
    """Write README.md and events.png from the rows that there are."""
    runs, curves = read(out / "runs.csv"), read(out / "epochs.csv")
    if runs is not None and (runs["part"] == "study").any():
        draw(runs, curves, out / "events.png")
    write_text(out / "README.md", page(runs, curves))
