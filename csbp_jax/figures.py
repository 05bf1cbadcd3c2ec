"""Figures of a run, drawn from its ``metrics.jsonl`` alone."""

import pathlib
from typing import Any

# Okabe and Ito's palette, which the colour-blind can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(run: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """``figures/training.png`` (losses, z, accuracy) and ``figures/rates.png`` (firing rate of each layer)."""
    # Matplotlib takes half a second to import, and a headless machine needs its Agg canvas, not pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    # An epoch whose steps were all bad has no mean.
    epochs = [row for row in rows if row["kind"] == "epoch" and "rates" in row]
    steps = [row for row in rows if row["kind"] == "train"] or epochs
    if not epochs:
        return

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, strength, accuracy = figure.subplots(1, 3)
    _losses(losses, steps)
    _strength(strength, steps)
    for i, (key, label) in enumerate((("accuracy", "training"), ("validation_accuracy", "validation"))):
        accuracy.plot(
            [row["step"] for row in epochs], [100 * row[key] for row in epochs], ".-", color=PALETTE[i], label=label
        )
    accuracy.set(xlabel="step", ylabel="accuracy of an epoch (%)", title="Accuracy")
    accuracy.legend()
    figure.suptitle(run.name)
    figure.savefig(folder / "training.png", dpi=120)

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, layer in enumerate(epochs[0]["rates"]):
        color = PALETTE[i % len(PALETTE)]
        axes.plot([r["step"] for r in epochs], [r["rates"][layer] for r in epochs], ".-", color=color, label=layer)
    axes.set(xlabel="step", ylabel="spikes a neuron and time step", title="Firing rate", ylim=(0, None))
    axes.legend()
    figure.savefig(folder / "rates.png", dpi=120)


def _losses(axes, steps):
    for i, (key, label) in enumerate((("task_loss", "task"), ("chaos_loss", "chaos, z times its term"))):
        if any(row[key] > 0 for row in steps):
            mark = "." if len(steps) < 20 else None
            line = {"lw": 1, "color": PALETTE[i], "label": label, "marker": mark}
            axes.plot([r["step"] for r in steps], [r[key] for r in steps], **line)
    axes.set(xlabel="step", ylabel="loss of a batch (nats)", title="Losses", yscale="log")
    axes.legend()


def _strength(axes, steps):
    for i, tap in enumerate(steps[0]["z"]):
        line = {"color": PALETTE[i % len(PALETTE)], "label": tap, "marker": "." if len(steps) < 20 else None}
        axes.plot([r["step"] for r in steps], [r["z"][tap] for r in steps], **line)
    axes.set(xlabel="step", ylabel="z", title="Chaos strength", ylim=(0, None))
    if steps[0]["z"]:
        axes.legend(title="tapped tensor")
    else:
        axes.text(0.5, 0.5, "no tap: plain backpropagation", ha="center", transform=axes.transAxes)
