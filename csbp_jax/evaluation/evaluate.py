"""Accuracy without training: of a run, in detail, and of a PyTorch checkpoint's weights."""

import functools
import pathlib
import sys
from typing import Any

import numpy as np

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, check
from csbp_jax.evaluation import forward, restore, scores
from csbp_jax.reporting import plots_evaluation, terminal
from csbp_jax.training import build, run_dir
from csbp_jax.training.compiled import begin, compile, resolve

PARTS = ("test", "validation", "train")
_SHOWN = 12


def evaluate(
    config: Config, *, data_dir: str | pathlib.Path = "data", console: terminal.Console | None = None
) -> dict[str, dict[str, float]]:
    """``{"validation": {"count", "accuracy", "loss"}, "test": ...}`` of ``config.weights``; prints them too.

    Raises:
      ConfigError: a value is impossible, no weights are named, or they do not fit.
    """
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    if not config.weights:
        raise ConfigError("weights: empty; name a PyTorch checkpoint (--weights FILE)")
    parts = data.load(check(config), data_dir)
    config = resolve(config, parts)
    program = compile(config, parts["train"], steps_per_epoch=1)
    state = begin(config, program, functools.partial(console.print, soft_wrap=True))
    results = {part: program.evaluate(state, parts[part]) for part in ("validation", "test")}
    for part, result in results.items():
        console.print(
            f"{part}: {result['accuracy']:.2%} of {result['count']}, loss {result['loss']:.4g}", soft_wrap=True
        )
    return results


def evaluate_run(
    run: str | pathlib.Path,
    *,
    split: str = "test",
    which: restore.WeightsOf = "last",
    trust: bool = False,
    data_dir: str | pathlib.Path = "data",
    console: terminal.Console | None = None,
) -> dict[str, Any]:
    """What a run's network is worth on a part of its data, none of it augmented.

    Shown, and written to ``RUN/evaluation-SPLIT-WHICH.json`` and ``RUN/figures/evaluation-SPLIT-WHICH.png``.

    Args:
      run: the run's folder.
      split: "test", "validation" or "train".
      which: the weights of the "last" epoch, those that validation "chosen", or their moving average, "ema".
      trust: run the run's own code, if it has some (:func:`csbp_jax.evaluation.restore.load`).

    Returns:
      What the file holds: ``accuracy``, ``top5`` (10 classes or more), ``nll`` (nats), ``ece`` and its
      ``calibration`` bins (:func:`csbp_jax.evaluation.scores.calibration`), ``per_class``, ``confusion`` (rows: true
      classes),
      ``rates`` (spikes a neuron and time step, by layer) and ``accuracy_by_time``: entry t - 1 is that of logits
      averaged over the first t steps.

    Raises:
      ConfigError: no such run or part, or its data are not there.
    """
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    if split not in PARTS:
        raise ConfigError(f"--split: {split!r} is not possible; allowed are {', '.join(PARTS)}")
    opened = restore.restore(run, which, trust=trust)
    parts, identity = build.load_data(opened.config, opened.own, data_dir)
    source = forward.Unaugmented(parts[split])
    changed = opened.data not in ("", run_dir.fingerprint_digest(identity))
    if changed:
        told = "what is evaluated here may have been trained on"
        print(f"{run}: its data have changed since it was trained; {told}", file=sys.stderr)
    outcomes = forward.apply_all(opened, source.events, forward.outcome)(source)
    about = {"run": opened.folder.name, "split": split, "weights_of": which, "epoch": opened.epoch}
    names = build.class_names(opened.config, opened.own, parts, data_dir)
    result = about | {"data_changed": changed} | summary(outcomes, names)
    run_dir.write_json(opened.folder / f"evaluation-{split}-{which}.json", result)
    plots_evaluation.draw(opened.folder, result)
    _show(console, opened.folder, result)
    return result


def summary(outcomes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The numbers of :func:`evaluate_run` from ``forward.outcome`` of all records."""
    labels, answer = outcomes["label"], outcomes["predicted"][:, -1]
    right, matrix = answer == labels, scores.confusion(labels, answer, len(names))
    counts = matrix.sum(axis=1)
    error, bins = scores.calibration(outcomes["confidence"], right)
    by_time = (outcomes["predicted"] == labels[:, None]).mean(axis=0)
    return {
        "count": len(labels),
        "accuracy": float(right.mean()),
        **({"top5": float(outcomes["among"].mean())} if len(names) >= 10 else {}),
        "nll": float(outcomes["nll"].mean(dtype=np.float64)),
        "ece": error,
        "accuracy_by_time": by_time.tolist(),
        "rates": {layer: float(rates.mean(dtype=np.float64)) for layer, rates in outcomes["rates"].items()},
        "per_class": [
            {"class": name, "count": int(n), "accuracy": float(matrix[i, i] / n) if n else None}
            for i, (name, n) in enumerate(zip(names, counts, strict=True))
        ],
        "calibration": bins,
        "confusion": matrix.tolist(),
    }


def _show(console, folder, result):
    split, which = result["split"], result["weights_of"]
    epoch = f"{restore.WEIGHTS_LABELS[which]} ({result['epoch']})"
    console.print(f"{result['run']}: {result['count']} examples of the {split} part, {epoch}", soft_wrap=True)
    kinds = [("accuracy", "accuracy"), ("top5", "among the five first"), ("ece", "expected calibration error")]
    rows = [[label, f"{result[key]:.2%}"] for key, label in kinds if key in result]
    rows.append(["negative log-likelihood (nats)", f"{result['nll']:.4g}"])
    terminal.print_table(console, "in all", ["", "value"], rows)
    by_time = [[str(t), f"{accuracy:.2%}"] for t, accuracy in enumerate(result["accuracy_by_time"], start=1)]
    terminal.print_table(console, "by time", ["time steps used", "accuracy"], by_time)
    rates = [[layer, f"{rate:.4f}"] for layer, rate in result["rates"].items()]
    terminal.print_table(console, "firing rates", ["layer", "spikes a neuron and step"], rates)
    _show_classes(console, result["per_class"], result["confusion"])
    for label, place in (
        ("numbers", folder / f"evaluation-{split}-{which}.json"),
        ("figure", folder / "figures" / f"evaluation-{split}-{which}.png"),
    ):
        console.print(f"{label:12} {place}", soft_wrap=True)


def _show_classes(console, per_class, confusion):
    """All classes, or, of many, those that are recognised worst."""
    known = [row for row in per_class if row["count"]]
    title = "by class"
    if len(known) > _SHOWN:
        known = sorted(known, key=lambda row: row["accuracy"])[:_SHOWN]
        title = f"the {_SHOWN} classes of {len(per_class)} that are recognised worst"
    rows = [[row["class"], f"{row['accuracy']:.2%}", str(row["count"])] for row in known]
    terminal.print_table(console, title, ["class", "accuracy", "examples"], rows)
    if len(per_class) <= _SHOWN:
        names = [row["class"] for row in per_class]
        rows = [[name, *map(str, row)] for name, row in zip(names, confusion, strict=True)]
        terminal.print_table(console, "confusion: a row for each true class", ["", *names], rows)
