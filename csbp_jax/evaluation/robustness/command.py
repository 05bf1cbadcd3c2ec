"""The command ``csbp_jax robustness``: measures runs on the same examples, prints, draws and writes what it found."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.evaluation import compare
from csbp_jax.evaluation.evaluate import data_changed
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.evaluation.robustness import battery, comparison
from csbp_jax.evaluation.robustness.comparison import Difference, Scores
from csbp_jax.evaluation.robustness.measure import Measured, Plan, Subject, measure
from csbp_jax.evaluation.robustness.programs import Programs, programs_of
from csbp_jax.reporting import plots_robustness, terminal
from csbp_jax.reporting.format import interval_text
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runs import restore
from csbp_jax.runs.restore import RestoredRun
from csbp_jax.runs.run import Run
from csbp_jax.runs.table import RunTable
from csbp_jax.runtime import files
from csbp_jax.training import run_dir


def robustness(
    runs: Sequence[RestoredRun],
    plan: Plan,
    *,
    control: RestoredRun | None = None,
    margin: float | None = None,
    data_dir: str | pathlib.Path = "data",
    out: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure runs under perturbations on the same examples, with the same random numbers.

    Prints a table for each run, the check for masked gradients, and differences between settings; writes
    ``robustness.json`` and ``figures/robustness.png`` to ``out``, by default the first run's folder (or
    ``evaluation/RUN`` if that cannot be written).

    Args:
      control: one of ``runs``, whose setting is the control (:func:`csbp_jax.evaluation.compare.controls`).
      margin: largest difference without importance, in percentage points.

    Returns:
      The content of the file: ``plan``; ``runs``, each with the numbers of its ``examples`` in the split and of those
      that were ``attacked``, its ``perturbations`` (``severities``, ``accuracy`` at each, ``variants``, and
      ``correct``: for each severity and variant the outcomes of these examples as :func:`packed` makes them), those
      that it ``skipped``, and ``masking``; ``differences``.

    Raises:
      ConfigError: no run, two runs of the same setting and seed or in one folder, missing data or other classes of
        them, or targets that are not classes of examples of one length.
    """
    console = make_console() if console is None else console
    _check_folders(runs)
    folder = output_folder(runs[0].folder if out is None else pathlib.Path(out), "figures")
    finished, sources = zip(*(_loaded(run, plan.split, data_dir) for run in runs), strict=True)
    table = RunTable.of(finished)
    pairs = compare.controls(table, None if control is None else finished[list(runs).index(control)])
    measured = _measure(runs, sources, plan, console)
    scores = {str(run.folder): comparison.scores(outcomes) for run, outcomes in zip(runs, measured, strict=True)}
    same_data = table.frame["case"].nunique() == 1
    differences = comparison.differences(table.frame, pairs, scores, margin) if same_data else []
    for difference in differences:
        _print_difference(console, difference)
    for run, outcomes in zip(runs, measured, strict=True):
        _print_run(console, run, outcomes, scores[str(run.folder)])
    if not same_data:
        console.print("note: not all runs have the same data; no paired differences are given", soft_wrap=True)
    content = _content(runs, measured, scores, plan) | {"differences": [_difference_json(d) for d in differences]}
    files.write_json(folder / "robustness.json", content)
    panels = _panels(table, dict(zip(scores, measured, strict=True)))
    plots_robustness.draw(folder / "figures" / "robustness.png", panels, _title(plan, measured))
    console.print(f"numbers      {folder / 'robustness.json'}", soft_wrap=True)
    console.print(f"figure       {folder / 'figures' / 'robustness.png'}", soft_wrap=True)
    return content


def _check_folders(runs: Sequence[RestoredRun]) -> None:
    if not runs:
        raise ConfigError("RUN: missing; write csbp_jax robustness RUN ...")
    folders = [run.folder.resolve() for run in runs]
    if twice := [run.folder for number, run in enumerate(runs) if folders[number] in folders[:number]]:
        raise ConfigError(
            f"{twice[0]}: is the folder of two of these runs (one named twice, or two revisions of a network on the "
            "hub); measure each by itself, with an --out of its own"
        )


def _loaded(run: RestoredRun, split: str, data_dir: str | pathlib.Path) -> tuple[Run, Any]:
    """Return a run for the table of runs, with the data that it has now, and their split."""
    splits, fingerprint = restore.load_data(run, data_dir)
    loss, several = run.config.loss, splits[split].lengths is not None
    if (loss.task, loss.per) != ("class", "example") or several:
        kind = "records of several lengths" if several else f"loss.task {loss.task}, loss.per {loss.per}"
        raise ConfigError(f"{run.folder}: has {kind}; robustness measures classes of examples of one length")
    data_changed(run, fingerprint)
    digest = run_dir.fingerprint_digest(fingerprint)
    return Run(run.folder, {"config": run.config, "data": digest, "own": run.own.metadata()}), splits[split]


def _measure(runs: Sequence[RestoredRun], sources: Sequence[Any], plan: Plan, console: Console) -> list[Measured]:
    """Measure all runs; those with the same network and data share their programs."""
    programs: dict[Any, Programs] = {}
    measured = []
    with terminal.stages(console) as show:
        for run, source in zip(runs, sources, strict=True):
            config = run.config
            kind: Any = run.folder if run.own.plugins else (config.model, config.data, config.eval_batch_size)
            shared = programs.setdefault(kind, programs_of(run, source.events))
            measured.append(measure(Subject(run.folder.resolve().name, shared, run.variables, source), plan, show))
    return measured


def packed(outcomes: np.ndarray) -> str:
    """Pack booleans ``[N]`` as hexadecimal digits, four each; :func:`unpacked` reverses it.

    >>> packed(np.array([True, False, False, True, True]))
    '98'
    """
    return np.packbits(outcomes).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    """Unpack the first ``count`` booleans of a text made by :func:`packed`.

    >>> unpacked("98", 5).tolist()
    [True, False, False, True, True]
    """
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)


def _content(
    runs: Sequence[RestoredRun], measured: Sequence[Measured], scores: dict[str, Scores], plan: Plan
) -> dict[str, Any]:
    described = []
    for run, (outcomes, skipped) in zip(runs, measured, strict=True):
        by_severity = scores[str(run.folder)]
        perturbations = {
            name: {
                "severities": list(battery.PERTURBATIONS[name].severities) if name in battery.PERTURBATIONS else [],
                "accuracy": by_severity[name].mean(axis=1).tolist(),
                "variants": list(outcome.variants),
                "correct": [[packed(row) for row in by_variant] for by_variant in outcome.correct],
            }
            for name, outcome in outcomes.items()
        }
        attacked = [outcomes[name].rows.tolist() for name in ("pgd", "square") if name in outcomes]
        described.append(
            {
                "run": run.folder.resolve().name,
                "seed": run.config.seed,
                "weights_of": run.weights_of,
                "epoch": run.epoch,
                "examples": outcomes["clean"].rows.tolist(),
                "attacked": attacked[0] if attacked else [],
                "perturbations": perturbations,
                "masking": [c._asdict() | {"counts": c.counts} for c in comparison.masking_checks(by_severity)],
                "skipped": skipped,
            }
        )
    return {"plan": plan._asdict() | {"names": list(plan.names)}, "runs": described}


def _difference_json(difference: Difference) -> dict[str, Any]:
    names = ["pairs", "difference", "low", "high", "p", "equivalence", "verdict"]
    rows = {name: json.loads(of.frame.iloc[0][names].to_json()) for name, of in difference.by_perturbation.items()}
    return {**difference._asdict(), "by_perturbation": rows}


def _panels(table: RunTable, measured: dict[str, Measured]) -> list[plots_robustness.Panel]:
    panels = []
    for name, perturbation in battery.PERTURBATIONS.items():
        lines = {}
        for arm, folders in table.frame.groupby("arm", sort=False)["run"]:
            of_runs = [measured[folder] for folder in folders]
            if all(name in run.outcomes for run in of_runs):
                rows = [comparison.from_clean(run.outcomes, name) for run in of_runs]
                lines[str(arm)] = [comparison.interval(at) for at in zip(*rows, strict=True)]
        if lines:
            ticks = ["clean", *(f"{severity:g}" for severity in perturbation.severities)]
            panels.append(plots_robustness.Panel(name, perturbation.unit, ticks, lines))
    return panels


def _title(plan: Plan, measured: Sequence[Measured]) -> str:
    counts = {len(outcome.rows) for run in measured for outcome in run.outcomes.values()}
    return f"Robustness on {' or '.join(map(str, sorted(counts)))} examples of the {plan.split} split"


def _print_run(console: Console, run: RestoredRun, measured: Measured, scores: Scores) -> None:
    name, clean = run.folder.resolve().name, interval_text(comparison.interval(list(scores["clean"])))
    epoch = f"{restore.WEIGHTS_LABELS[run.weights_of]} ({run.epoch})"
    console.print(f"{name}: {scores['clean'].shape[1]} examples, {epoch}; clean {clean} %", soft_wrap=True)
    rows = [
        [
            name,
            "  ".join(f"{s:g}: {100 * at:.2f}" for s, at in zip(p.severities, scores[name].mean(axis=1), strict=True)),
            p.unit,
        ]
        for name, p in battery.PERTURBATIONS.items()
        if name in scores
    ]
    if rows:
        counts = [len(measured.outcomes[name].rows) for name in ("pgd", "square") if name in scores]
        title = "accuracy (%) at each severity" + "".join(f"; attacks on {count} examples" for count in counts[:1])
        terminal.print_table(console, title, ["perturbation", "severity: accuracy", "unit"], rows, text_columns=3)
    for line in _masking_lines(scores):
        console.print(line, soft_wrap=True)
    for reason in dict.fromkeys(measured.skipped.values()):
        names = ", ".join(name for name, of_name in measured.skipped.items() if of_name == reason)
        console.print(f"skipped: {names}: {reason}", soft_wrap=True)


def _masking_lines(scores: Scores) -> list[str]:
    """Say at each strength which attack's number to quote: PGD counts only where it is the stronger."""
    if "pgd" in scores and "square" not in scores:
        return ["pgd: without the square attack, nothing shows whether its gradients are masked; do not quote it"]
    verdicts = {
        True: "PGD is the stronger attack; quote its row",
        False: "square is no weaker; quote its row, for PGD's gradients may be masked",
    }
    return [
        f"eps {check.eps:g}/255: accuracy {check.white:.2%} under PGD, {check.black:.2%} under square: "
        f"{verdicts[check.counts]}"
        for check in comparison.masking_checks(scores)
    ]


def _print_difference(console: Console, difference: Difference) -> None:
    cells = {name: compared.cells().iloc[0] for name, compared in difference.by_perturbation.items()}
    columns = {"accuracy (points)": "difference", "p": "p", "verdict": "verdict", "pairs": "pairs"}
    rows = [[name, *of_name[list(columns)]] for name, of_name in cells.items()]
    title = (
        f"{difference.arm} - {difference.control}: mean accuracy over the severities, paired over {difference.over}, "
        "points [95 % interval]"
    )
    terminal.print_table(console, title, ["perturbation", *columns.values()], rows)
    if needed := ", ".join(
        f"{of_name['to decide']} ({name})" for name, of_name in cells.items() if of_name["to decide"]
    ):
        console.print(f"pairs that would decide a difference in points: {needed}", soft_wrap=True)
