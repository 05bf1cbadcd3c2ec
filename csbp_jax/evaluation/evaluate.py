"""Evaluation without training: of a run, in detail, and of a PyTorch checkpoint."""

import functools
import pathlib
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax import data, weights
from csbp_jax.config import Config, ConfigError, check
from csbp_jax.evaluation import forward, scores
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.reporting import measures, plots_evaluation, terminal
from csbp_jax.reporting.statistics import wilson
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runs import restore
from csbp_jax.runtime import files
from csbp_jax.training import build, run_dir
from csbp_jax.training.build import resolve_model
from csbp_jax.training.compiled import compile_run, initial_state
from csbp_jax.training.plugins import Own

_MAX_CLASSES = 12
"""With more classes, the terminal shows the least accurate ones, and no confusion matrix."""
_MAX_STEPS = 32
"""Of more time steps, the terminal shows some at even distances."""


def evaluate(
    config: Config, *, data_dir: str | pathlib.Path = "data", console: Console | None = None
) -> dict[str, dict[str, float]]:
    """Evaluate ``config.weights`` on the validation and test splits, and print the results.

    Returns:
      ``{"validation": {"count", MEASURE, "loss"}, "test": ...}``, with the measures of the task, such as accuracy.

    Raises:
      ConfigError: a value is not allowed, no weights are named, or they do not fit.
    """
    console = make_console() if console is None else console
    if not config.weights:
        raise ConfigError("weights: empty; name a PyTorch checkpoint (--weights FILE)")
    check(config)
    plan = weights.plan(config)
    parts = data.load(config, data_dir)
    config = resolve_model(config, parts)
    compiled = compile_run(config, parts["train"], steps_per_epoch=1)
    state = initial_state(compiled, plan, functools.partial(console.print, soft_wrap=True))
    results = {split: compiled.evaluate(state, parts[split]) for split in ("validation", "test")}
    for split, result in results.items():
        tested = ", ".join(
            f"{measure.label} {measure.text(result[name])}".removeprefix("accuracy ")
            for name, measure in measures.MEASURES.items()
            if name in result
        )
        console.print(f"{split}: {tested} of {result['count']}, loss {result['loss']:.4g}", soft_wrap=True)
    return results


def evaluate_run(
    run: str | pathlib.Path | restore.RestoredRun,
    *,
    split: str = "test",
    weights_of: restore.WeightsOf = "last",
    trust: bool = False,
    own: Own | None = None,
    data_dir: str | pathlib.Path = "data",
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run's network on one split of its data, without augmentation.

    Prints the results and writes them to ``RUN/evaluation-SPLIT-WEIGHTS_OF.json`` and
    ``RUN/figures/evaluation-SPLIT-WEIGHTS_OF.png``; for a run that cannot be written, in ``evaluation/RUN``.

    Args:
      run: the run's folder; or a run that is restored, with the weights that it has.
      split: "test", "validation" or "train".
      weights_of: weights of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
      trust: execute the run's own code, if it has any (:func:`csbp_jax.runs.restore.load`).
      own: the run's own parts, if it was made from Python with some.

    Returns:
      The content of the file: ``accuracy``, ``top5`` (10 classes or more), ``nll`` (nats), ``ece`` and its
      ``calibration`` bins (:func:`csbp_jax.evaluation.scores.calibration`), ``per_class``, ``confusion`` (rows: true
      classes), ``rates`` (spikes per neuron per time step, by layer of a ``Network``) and ``accuracy_by_time``: entry
      t - 1 is that of logits averaged over the first t steps; with ``psn``, these steps have seen the later ones. Of
      classes of every time step, entry t - 1 is that of step t, over ``count_by_time`` examples, and all else but the
      accuracy, a mean over examples, is over all ``steps``. Of labels, beside the rates: ``f1`` and ``per_label``
      (``precision``, ``recall``, ``f1``); of values: ``r2``, ``mae`` and ``per_value``.

    Raises:
      ConfigError: no such run, or its data are missing or have other classes.
    """
    console = make_console() if console is None else console
    restored = restore.restore(run, weights_of, trust=trust, own=own)
    weights_of = restored.weights_of  # of a published network, those that it has
    parts, fingerprint = restore.load_data(restored, data_dir)
    folder = output_folder(restored.folder, "figures")
    source = data.Unaugmented(parts[split])
    changed = data_changed(restored, fingerprint)
    loss = restored.config.loss
    measured = forward.outcome if loss.task == "class" else forward.numbers(loss.per == "step")
    outcomes = forward.apply_all(restored, source.events, measured)(source)
    names = build.class_names(restored.config, parts, data_dir)
    result = {"run": restored.folder.resolve().name, "split": split, "weights_of": weights_of, "epoch": restored.epoch}
    result |= {"data_changed": changed}
    result |= summary(outcomes, names) if loss.task == "class" else summary_of_numbers(outcomes, names, loss.task)
    files.write_json(folder / f"evaluation-{split}-{weights_of}.json", result)
    if loss.task == "class":
        plots_evaluation.draw(folder, result)
    else:
        plots_evaluation.draw_numbers(folder, result, outcomes)
    _print(console, folder, result)
    return result


def data_changed(run: restore.RestoredRun, fingerprint: str) -> bool:
    """Return whether a run's data are no longer those that it was trained on, and say so in a line to stderr."""
    changed = run.data not in ("", run_dir.fingerprint_digest(fingerprint))
    if changed:
        print(
            f"{run.folder}: its data have changed since training, which may have seen the examples evaluated now",
            file=sys.stderr,
        )
    return changed


def summary(outcomes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Summarise ``forward.outcome`` of all records as the numbers of :func:`evaluate_run`."""
    labels: NDArray[np.int32] = outcomes["label"]
    count, of_steps = len(labels), dict[str, Any]()
    if (of_step := outcomes.get("valid")) is not None:
        right = (outcomes["predicted"] == labels) & of_step
        accuracy, by_time = (right.sum(axis=1) / of_step.sum(axis=1)).mean(), right.sum(axis=0) / of_step.sum(axis=0)
        of_steps = {"steps": int(of_step.sum()), "count_by_time": of_step.sum(axis=0).tolist()}
        outcomes = outcomes | {name: outcomes[name][of_step] for name in ("confidence", "nll", "among")}
        labels, predicted = labels[of_step], outcomes["predicted"][of_step]
    else:
        predicted = outcomes["predicted"][:, -1]
        accuracy, by_time = (predicted == labels).mean(), (outcomes["predicted"] == labels[:, None]).mean(axis=0)
    matrix = scores.confusion(labels, predicted, len(names))
    counts = matrix.sum(axis=1)
    error, bins = scores.calibration(outcomes["confidence"], predicted == labels)
    return {
        "count": count,
        **of_steps,
        "accuracy": float(accuracy),
        **({"top5": float(outcomes["among"].mean())} if len(names) >= 10 else {}),
        "nll": float(outcomes["nll"].mean(dtype=np.float64)),
        "ece": error,
        "accuracy_by_time": by_time.tolist(),
        "rates": _mean_rates(outcomes),
        "per_class": [
            {"class": name, "count": int(n), "accuracy": float(matrix[i, i] / n) if n else None}
            for i, (name, n) in enumerate(zip(names, counts, strict=True))
        ],
        "calibration": bins,
        "confusion": matrix.tolist(),
    }


def summary_of_numbers(outcomes: dict[str, Any], names: list[str], task: str) -> dict[str, Any]:
    """Summarise ``forward.numbers`` of all records as the numbers of :func:`evaluate_run`."""
    output, target = outcomes["output"], outcomes["target"]
    counts = {"count": len(target)}
    if (of_step := outcomes.get("valid")) is not None:
        output, target = output[of_step], target[of_step]
        counts["steps"] = len(target)
    if task == "labels":
        predicted, actual = output > 0, target > 0
        (together,) = scores.of_labels(predicted.reshape(-1, 1), actual.reshape(-1, 1), ["all"])
        measured = {"f1": together["f1"] or 0.0, "per_label": scores.of_labels(predicted, actual, names)}
    else:
        means = target.mean(axis=0, dtype=np.float64)
        (together,) = scores.of_values((output - means).reshape(-1, 1), (target - means).reshape(-1, 1), ["all"])
        measured = {"r2": together["r2"] or 0.0, "mae": together["mae"]}
        measured["per_value"] = scores.of_values(output, target, names)
    return counts | measured | {"rates": _mean_rates(outcomes)}


def _mean_rates(outcomes: dict[str, Any]) -> dict[str, float]:
    return {layer: float(rates.mean(dtype=np.float64)) for layer, rates in outcomes["rates"].items()}


def _print(console: Console, folder: pathlib.Path, result: dict[str, Any]) -> None:
    split, weights_of = result["split"], result["weights_of"]
    epoch = f"{restore.WEIGHTS_LABELS[weights_of]} ({result['epoch']})"
    steps = f", {result['steps']} time steps" if "steps" in result else ""
    console.print(f"{result['run']}: {result['count']} examples{steps} of the {split} split, {epoch}", soft_wrap=True)
    labels = {"top5": "top-5 accuracy", "ece": "expected calibration error"}
    rows = [[measures.MEASURES[n].label, measures.MEASURES[n].text(result[n])] for n in measures.names(result, "")]
    rows += [[label, f"{result[key]:.2%}"] for key, label in labels.items() if key in result]
    if "nll" in result:
        rows.append(["negative log-likelihood (nats)", f"{result['nll']:.4g}"])
    terminal.print_table(console, "overall", ["", "value"], rows)
    if "accuracy_by_time" in result:
        _print_by_time(console, result)
    rates = [[layer, f"{rate:.4f}"] for layer, rate in result["rates"].items()]
    if rates:
        terminal.print_table(console, "firing rates", ["layer", "spikes per neuron per time step"], rates)
    if "per_class" in result:
        _print_classes(console, result)
    for kind in ("label", "value"):
        if outputs := result.get(f"per_{kind}"):
            _print_outputs(console, kind, outputs)
    console.print(f"numbers      {folder / f'evaluation-{split}-{weights_of}.json'}", soft_wrap=True)
    console.print(f"figure       {folder / 'figures' / f'evaluation-{split}-{weights_of}.png'}", soft_wrap=True)


def _print_by_time(console: Console, result: dict[str, Any]) -> None:
    by_time, accuracy = [], result["accuracy_by_time"]
    counts = result.get("count_by_time", [result["count"]] * len(accuracy))
    for t in forward.spread(np.arange(len(accuracy)), _MAX_STEPS).tolist():
        low, high = wilson(round(accuracy[t] * counts[t]), counts[t])
        by_time.append([str(t + 1), f"{accuracy[t]:.2%}", f"{low:.2%} to {high:.2%}"])
    used = "time step" if "steps" in result else "time steps used"
    terminal.print_table(console, "accuracy by time", [used, "accuracy", "95 % interval (Wilson)"], by_time)


def _print_classes(console: Console, result: dict[str, Any]) -> None:
    per_class, title = [row for row in result["per_class"] if row["count"]], "by class"
    if len(per_class) > _MAX_CLASSES:
        per_class = sorted(per_class, key=lambda row: row["accuracy"])[:_MAX_CLASSES]
        title = f"the {_MAX_CLASSES} classes of {len(result['per_class'])} with the lowest accuracy"
    rows = [[row["class"], f"{row['accuracy']:.2%}", str(row["count"])] for row in per_class]
    counted = "time steps" if "steps" in result else "examples"
    terminal.print_table(console, title, ["class", "accuracy", counted], rows)
    names = [row["class"] for row in result["per_class"]]
    if len(names) <= _MAX_CLASSES:
        rows = [[name, *map(str, row)] for name, row in zip(names, result["confusion"], strict=True)]
        terminal.print_table(console, "confusion: a row for each true class", ["", *names], rows)


def _print_outputs(console: Console, kind: str, rows: list[dict[str, Any]]) -> None:
    """Print the measures of each label or value; of many, of the worst."""
    measured, title = [name for name in rows[0] if name not in ("label", "value")], f"by {kind}"
    if len(rows) > _MAX_CLASSES:
        title = f"the {_MAX_CLASSES} {kind}s of {len(rows)} with the lowest {'F1' if kind == 'label' else 'R2'}"
        rows = sorted(rows, key=lambda row: row["f1" if kind == "label" else "r2"] or 0.0)[:_MAX_CLASSES]
    cells = [[row[kind], *("" if row[name] is None else f"{row[name]:.4g}" for name in measured)] for row in rows]
    terminal.print_table(console, title, [kind, *map(measures.words, measured)], cells)
