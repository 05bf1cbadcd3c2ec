"""Draw accuracy over the strength of the term with few labels, into docs/results/few_labels/strengths.png.

    python -m experiments.few_labels

Prints the table of the page. The numbers are those of committed runs, whose code has left the tree.
"""

import operator

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.plots import empty_figure
from experiments import study
from experiments.forest import FEW, read_few
from experiments.study import Content

PALEST, STRONGEST = 0.75, 6.0
"""Differences (points) from which on a cell is coloured, and from which on it is no darker."""
CONTRASTS = {
    "CSBP - BP": ("family", "C-P"),
    "BP at CSBP's rate and width": ("against base", "C"),
    "CSBP - drift": ("family", "C-D"),
}


def table() -> str:
    """A row a task: differences of test accuracy after the last epoch (points), in Markdown."""
    rows = []
    for label, (folder, task) in FEW.items():
        analysis = read_few(folder)["arms"][task]["analysis"]
        cells = [interval(analysis[family][name]) for family, name in CONTRASTS.values()]
        rows.append([f"[{label}]({folder.removeprefix('few_labels/')}/table.md)", *cells])
    return study.table(["task", *CONTRASTS], rows)


def interval(of: Content) -> str:
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*operator.itemgetter("mean", "low", "high")(of))


def gains(folder: str, task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the strengths (flips), rising, and validation accuracy (points) minus that of plain backpropagation.

    Both have the same rate, width and tuning seeds; means over the seeds.
    """
    content = read_few(folder)
    arm = content["arms"][task]
    plain = arm["runs"]["P"][str(arm["base"])]
    strengths = np.array([setting["flips"] for setting in content["settings"]["C"]])
    seeds = [seed for seed in plain if int(seed) >= 1000]  # the others are of the test
    gain = [
        np.mean([arm["runs"]["C"][str(n)][seed]["validation"] - plain[seed]["validation"] for seed in seeds])
        for n in range(len(strengths))
    ]
    order = np.argsort(strengths)
    return strengths[order], 100 * np.array(gain)[order]


def draw() -> None:
    """Draw the gain of each strength in each task."""
    rows = {label: gains(*of) for label, of in FEW.items()}
    strengths, values = next(iter(rows.values()))[0], np.array([gain for _, gain in rows.values()])
    shown = np.sign(values) * np.clip(np.abs(values) - PALEST, 0, STRONGEST - PALEST)
    figure = empty_figure(8, 5)
    axes = figure.subplots()
    axes.imshow(shown, cmap="RdBu", vmin=PALEST - STRONGEST, vmax=STRONGEST - PALEST, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value) > STRONGEST / 1.5
        axes.text(column, row, f"{value:+.1f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(strengths)), [f"{strength:.2g}" for strength in strengths])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="strength of the term (flips; from 1 on it overshoots by itself)")
    axes.set_title(
        "CSBP minus plain backpropagation at the same rate and width (points, validation)", fontsize="medium"
    )
    axes.tick_params(length=0)
    study.save_figure(figure, study.RESULTS / "few_labels", "strengths")


if __name__ == "__main__":
    draw()
    print(table())
