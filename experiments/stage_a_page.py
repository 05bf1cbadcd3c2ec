"""Write the page of docs/results/stage_a from its rows, as many as there are: ``python -m experiments.stage_a_page``.

The numbers are those of the plan (docs/results/stage_a/plan.md). A draw counts once all of its arms are tested.
"""

import json
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from csbp_jax.reporting import plots
from csbp_jax.runs import RunTable
from csbp_jax.runtime.files import write_text
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


def tested(rows: Sequence[dict[str, Any]], role: str) -> RunTable:
    """Return the runs of a role that were tested, "test" of the draws that are complete or "untuned"."""
    records = []
    for row in (row for row in rows if row["role"] == role):
        measures = row["measures"]
        test, chosen = measures["test"], int(np.argmax(measures["validation"]))
        names = {"case": "", "arm": row["arm"], "draw": row["draw"] or 0, "try": 0, "role": "test"}
        accuracies = {"test_accuracy": test[-1], "chosen_test_accuracy": test[chosen], "best_test_accuracy": max(test)}
        shares = {name: value / 100 for name, value in accuracies.items()}
        records.append(names | {"seed": row["run"]["seed"]} | shares | {"train_loss": measures["train_loss"][-1]})
    columns = [*("case", "arm", "draw", "try", "role", "seed"), *MEASURES.values(), "train_loss"]
    frame = pd.DataFrame(records, columns=columns)
    if role == "test":
        counts = frame.groupby("draw")["arm"].value_counts().unstack().reindex(columns=list(stage_a.ARMS))
        frame = frame[frame["draw"].isin(counts.index[(counts == stage_a.SEEDS).all(axis=1)])]
    return RunTable(frame, (), (*MEASURES.values(), "train_loss"))


def strengths(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
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
    gains = strengths(rows)
    figure, axes = plots.panels(2, 4.2, 3.4, sharey=True)
    for colour, (arm, axis) in zip(plots.PALETTE, zip(("CSBP", "drift"), axes, strict=True), strict=False):
        of_arm = gains[gains["arm"] == arm]
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


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page: the answer with what it does not cover, the picture, the table, and how it was made."""
    test, untuned = tested(rows, "test"), tested(rows, "untuned")
    draws = test.frame["draw"].nunique()
    answer, cells = f"**Not yet decided**: {draws} of {stage_a.DRAWS} draws are complete.", []
    if draws > 1:
        primary = test.contrast("CSBP", "plain", margin=MARGIN)
        verdict = "so far " * (draws < stage_a.DRAWS) + str(primary.frame.iloc[0]["verdict"])
        answer = f"**{verdict.capitalize()}**: {next(primary.lines())}."
        for label, measure in [*MEASURES.items(), ("training loss, last epoch", "train_loss")]:
            of_others = test.contrast("CSBP", ["plain", "drift"], measure=measure)
            intervals = (of_others[other][ENDS] for other in OTHERS)
            cells.append([label, *("{:+.3g} [{:+.3g}, {:+.3g}]".format(*interval) for interval in intervals)])
    if untuned.frame["arm"].nunique() == 2 and untuned.frame["seed"].nunique() > 1:
        interval = untuned.contrast("CSBP", "plain")["plain"][ENDS]
        cells.append(["released settings, untuned", "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval), ""])
    commits = ", ".join(sorted({row["commit"][:8] for row in rows}))
    hours = sum(row["cpu_seconds"] for row in rows) / 3600
    head = ["CSBP minus, points", *OTHERS.values()]
    table = study.table(head, cells) + "\n\n" if cells else ""
    limits = "It does not cover recordings of events, CIFAR-100, ImageNet, full width, more time steps or 200 epochs."
    return f"""# Does CSBP train a small deep network better?

The paper: CSBP "improves the generalization performance on both neuromorphic datasets and large-scale static
datasets". Here: CNN7 with TEBN at a quarter of its width, all labels of CIFAR-10's pictures at 16x16, T = 2, SGD, 30
epochs. Every arm has as many tries. The settings are drawn {stage_a.DRAWS} times, and each arm is tuned in every
draw, so that a lucky draw is not taken for an effect.

{textwrap.fill(f"{answer} {limits}", 118, break_on_hyphens=False)}

![validation accuracy over strength](strength.png)

*Each point is a setting; hollow ones were screened for {stage_a.SCREEN} epochs.*

{table}`python -m experiments.stage_a`, then `python -m experiments.stage_a_page`; [plan](plan.md).
{len(rows)} runs, {hours:.1f} core-hours, at commit {commits}. Differences are means over draws with 95 % intervals of
Student's t over draws.
"""


ENDS = ["difference", "low", "high"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "stage_a")
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in (options.out / "runs.jsonl").read_text().splitlines()]
    draw(rows, options.out / "strength.png")
    write_text(options.out / "README.md", page(rows))


if __name__ == "__main__":
    main()
