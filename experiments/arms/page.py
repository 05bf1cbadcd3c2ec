"""The page of docs/results/arms from the runs that are committed, as many draws as there are."""

import itertools
import json
import pathlib
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from csbp_jax import RunTable
from csbp_jax.reporting import plots
from csbp_jax.reporting.statistics import Interval, holm, paired, student, verdict
from csbp_jax.runs import reading
from csbp_jax.runs.reading import COLUMNS
from csbp_jax.runtime.files import write_text
from experiments import forest, study
from experiments.arms.tasks import TASKS
from experiments.study import Content

DRAWS, MARGIN = 12, 0.5
TERMS = {"plain": "chaos", "CSBP": "chaos", "drift": "drift"}
PRIMARY = (("CSBP", "plain"), ("CSBP", "drift"))
UNPLANNED = ("drift", "plain")
CONTROLS = (("MPGD", "plain"), ("logistic", "plain"), ("noise", "plain"), ("CSBP", "MPGD"), ("MPGD", "noise"))
SPREADS, SEED_SD = (0.3, 1.1), 1.1
"""Points: standard deviations over draws, of the first trial of seven tasks, and of digits over seeds."""
BATCH = 25
MEASURE, CHOSEN = "last_test_accuracy", "chosen_test_accuracy"
WIDTHS = (0.3, 0.55, 1.0, 1.75, 3.0)
"""Widths of the surrogate at which strengths are measured."""
STRENGTH = ("optimizer.lr", "model.neuron.surrogate_param", "chaos.z0")


def read(file: pathlib.Path) -> pd.DataFrame:
    """Read the rows of a task; none if there is no file."""
    return reading.read_csv(file) if file.exists() else pd.DataFrame(columns=[*COLUMNS, "chaos.z0"])


def committed(out: pathlib.Path) -> dict[str, pd.DataFrame]:
    """The rows of each task that has some."""
    return {name: read(file) for name in TASKS if (file := out / f"{slug(name)}.csv").exists()}


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower())


def at_width(units: Mapping[str, Any], name: str, width: float) -> float:
    """The flip ratio ("flips") or the ratio of gradients ("ratio") at z0 = 1 and a width, between measured ones."""
    return float(np.exp(np.interp(np.log(width), np.log(WIDTHS), np.log(units[name]))))


# --- numbers ------------------------------------------------------------------------------------------------------


def complete(rows: pd.DataFrame, arms: set[str]) -> pd.DataFrame:
    """The rows of the draws in which all of these arms are tested."""
    tested = rows[rows["role"] == "test"].groupby("draw")["arm"].agg(set)
    return rows[rows["draw"].isin(tested.index[[arms <= of_draw for of_draw in tested]])]


def contrasts(rows: pd.DataFrame, pairs: Any, measure: str = MEASURE) -> list[Content]:
    """The differences of pairs of arms over the draws that have both: rows of contrasts, with the draws' means."""
    results = []
    for pair in pairs:
        of_pair = complete(rows, set(pair))
        if of_pair["draw"].nunique() > 1:
            over_draws = RunTable(of_pair, (), (measure,)).contrast(*pair, measure=measure, over="draw", margin=MARGIN)
            results.append(over_draws.frame.iloc[0].to_dict() | {"draws": list(over_draws.differences[0])})
    return results


def analysis(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[tuple[str, str], Content]]:
    """``{task: {(arm, other): contrast}}`` of all pairs.

    Primary ones of complete tasks have a verdict by ``p_holm`` and ``equivalence_holm``, which are corrected over them.
    """
    pairs = (*PRIMARY, UNPLANNED, *CONTROLS)
    of_tasks = {
        name: {(row["arm"], row["other"]): row | {"verdict": ""} for row in contrasts(rows, pairs)}
        for name, rows in tables.items()
    }
    primary = {
        (name, *pair): row[pair]
        for name, row in of_tasks.items()
        for pair in PRIMARY
        if pair in row and row[pair]["pairs"] >= TASKS[name].draws
    }
    ps, equivalences = (holm({of: row[name] for of, row in primary.items()}) for name in ("p", "equivalence"))
    for of, row in primary.items():
        row |= {"p_holm": ps[of], "equivalence_holm": equivalences[of]}
        row["verdict"] = verdict(paired(row["draws"], margin=MARGIN), ps[of], equivalences[of])
    return of_tasks


def over_tasks(results: Mapping[str, Any], draws: int) -> tuple[int, Interval]:
    """The number of complete tasks with at least so many draws, and the mean of CSBP minus plain over them.

    Its interval is over the first ``draws`` draws, of each of which the tasks have the same settings.
    """
    primary = [of[PRIMARY[0]] for of in results.values() if PRIMARY[0] in of and of[PRIMARY[0]]["verdict"]]
    values = [row["draws"][:draws] for row in primary if row["pairs"] >= draws]
    return len(values), student(np.mean(values, axis=0))


def false_alarms(spread: float, seed_sd: float, draws: int, seeds: int, trials: int) -> tuple[float, float]:
    """How often two equal methods have p < 0.05: over the seeds of one draw of settings, and over draws.

    Args:
      spread: standard deviation of a draw's difference, in points, without that of its seeds.
      seed_sd: standard deviation of a difference over seeds.
      draws, seeds: numbers of them.
      trials: simulated studies, a multiple of BATCH, which are the cases of one table.
    """
    generator, at_one, over_draws = np.random.default_rng(0), list[float](), list[float]()
    shape = BATCH, draws, seeds
    trial, draw, seed = (index.ravel() for index in np.indices(shape))
    keys = {"case": trial.astype(str), "draw": draw, "try": 0, "role": "test", "seed": seed}
    for _ in range(trials // BATCH):
        of_pairs = generator.normal(0, spread, shape[:2])[..., None] + generator.normal(0, seed_sd, shape)
        accuracies = {"A": of_pairs.ravel() / 100, "B": np.zeros(of_pairs.size)}
        arms = [pd.DataFrame(keys | {"arm": arm, MEASURE: values}) for arm, values in accuracies.items()]
        table = RunTable(pd.concat(arms, ignore_index=True), (), (MEASURE,))
        at_one += list(table.where(draw=0).contrast("A", "B", over="seed").frame["p"])
        over_draws += list(table.contrast("A", "B", over="draw").frame["p"])
    return float(np.mean(np.less(at_one, 0.05))), float(np.mean(np.less(over_draws, 0.05)))


def gains(rows: pd.DataFrame, units: Mapping[str, Any]) -> pd.DataFrame:
    """Each try of CSBP and drift: strength, and validation accuracy less plain's at the same setting (points)."""
    tries = rows[(rows["role"] == "tune") & rows["arm"].isin(TERMS)]
    mean = tries.groupby(["arm", "draw", "try"])[["last_validation_accuracy", *STRENGTH]].mean()
    plain = mean.loc["plain"]["last_validation_accuracy"]
    of_term = mean.drop("plain").reset_index()
    of_term = of_term[of_term["chaos.z0"] > 0]
    at_plain = plain.loc[list(zip(of_term["draw"], of_term["try"], strict=True))].to_numpy()
    flips, ratios = (strengths(of_term, units, name) for name in ("flips", "ratio"))
    gain = 100 * (of_term["last_validation_accuracy"] - at_plain)
    return of_term.assign(flips=flips, ratio=ratios, gain=gain)


def strengths(rows: pd.DataFrame, units: Mapping[str, Any], name: str) -> list[float]:
    """z0 as flips or as the ratio of the term's gradient to the task's at step 0."""
    values = rows[list(STRENGTH)].to_numpy(float)
    return [z0 * at_width(units, name, width) * (lr if name == "flips" else 1) for lr, width, z0 in values]


# --- text ---------------------------------------------------------------------------------------------------------


def interval(row: Mapping[str, Any] | None) -> str:
    return "{difference:+.2f} [{low:+.2f}, {high:+.2f}]".format(**row) if row else ""


def old(name: str) -> str:
    """CSBP minus plain backpropagation at the settings that were drawn once, with its interval over seeds."""
    number = forest.once(name).plain
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*number) if number else ""


def beside_drift(results: Mapping[str, Any]) -> str:
    """The verdicts of CSBP and the drift on complete tasks."""
    words = {"equal": f"equal to it within {MARGIN:g} points", "better": "above it", "worse": "below it"}
    of_words: dict[str, list[str]] = {}
    for name, of_task in results.items():
        row = of_task.get(PRIMARY[1], {})
        if verdict_of := row.get("verdict"):
            same, draws = same_run(row), len(row["draws"])
            mostly = f" (where {same} of {draws} draws are the same run)" if 2 * same > draws else ""
            of_words.setdefault(words.get(verdict_of, verdict_of), []).append(name + mostly)
    if not of_words:
        return ""
    clauses = " It is ".join(f"{word} on {'; '.join(names)}." for word, names in of_words.items())
    return (
        f"Compared with the drift, CSBP is {clauses} At k = 10 and for membrane potentials between -3 and 3, the two"
        " have the same gradient to 1.2 % of the pull, so that equality with the drift says nothing about chaos."
    )


def direction(results: Mapping[str, Any]) -> str:
    """How many of the differences from plain backpropagation are negative, and their means over tasks; else empty."""
    rows = [of[PRIMARY[0]] for of in results.values() if PRIMARY[0] in of and of[PRIMARY[0]]["verdict"]]
    if len(rows) < 2:
        return ""
    counts = sorted({row["pairs"] for row in rows})
    means = []
    for draws in counts:
        tasks, mean = over_tasks(results, draws)
        means.append(f"{mean.mean:+.2f} [{mean.low:+.2f}, {mean.high:+.2f}] over {draws} draws of {tasks} tasks")
    negative = sum(row["difference"] < 0 for row in rows)
    return (
        f"{negative} of the {len(rows)} differences are negative, and their mean over tasks is {' and '.join(means)}"
        " (not planned)."
    )


def drift_sentence(results: Mapping[str, Any]) -> str:
    """The differences of the drift from plain backpropagation whose intervals leave out 0; empty without any."""
    parts = []
    for name, of_task in results.items():
        row = of_task.get(UNPLANNED)
        if row and row["p"] < 0.05:
            parts.append(f"{interval(row)} points on {name} (p {row['p']:.2g})")
    return (
        f"The drift minus plain backpropagation is {' and '.join(parts)}, neither planned nor corrected."
        if parts
        else ""
    )


def same_run(row: Mapping[str, Any]) -> int:
    """In how many draws tuning left both arms without a term at one setting."""
    return sum(difference == 0 for difference in row["draws"])


def corrected(row: Mapping[str, Any]) -> str:
    """Both p of a difference whose interval leaves out 0 while Holm's correction keeps it undecided; else empty."""
    if row["p"] < 0.05 <= row["p_holm"]:
        return f", p {row['p']:.2g}, after Holm's correction {row['p_holm']:.2g}"
    return ""


def primary_table(tables: Mapping[str, pd.DataFrame], results: Mapping[str, Any]) -> str:
    rows = []
    for name, of_task in results.items():
        plain, drift = (of_task.get(pair) for pair in PRIMARY)
        done = complete(tables[name], set(TERMS))["draw"].nunique()
        share = f"{plain['seed_share']:.0%}" if plain else ""
        words = ", ".join(of["verdict"] for of in (plain, drift) if of and of["verdict"])
        count, once = f"{done} of {TASKS[name].draws}", old(name)
        same = ", ".join(str(same_run(of)) for of in (plain, drift) if of)
        of_plain, of_drift = interval(plain), interval(drift)
        rows.append([name, count, offs(tables[name], "CSBP"), same, of_plain, share, once, of_drift, words])
    head = ["task", "draws", "off", "same run", "CSBP - plain", "of it seeds"]
    return study.table([*head, "settings drawn once", "CSBP - drift", "verdicts"], rows)


def offs(rows: pd.DataFrame, arm: str) -> str:
    """In how many of its draws an arm has chosen "off"."""
    tests = rows[(rows["role"] == "test") & (rows["arm"] == arm)].drop_duplicates("draw")
    return f"{(tests['chaos.z0'] == 0).sum()} of {len(tests)}"


def answer(tables: Mapping[str, pd.DataFrame], results: Mapping[str, Any]) -> str:
    """The verdicts of the tasks whose draws are complete, and how far the others are."""
    words = {"better": "higher", "worse": "lower", "equal": f"equal within {MARGIN:g} points"}
    done = {name: of[PRIMARY[0]] for name, of in results.items() if PRIMARY[0] in of and of[PRIMARY[0]]["verdict"]}
    of_words: dict[str, list[str]] = {}
    for name, row in done.items():
        of_words.setdefault(words.get(row["verdict"], ""), []).append(f"{name} ({interval(row)}{corrected(row)})")
    undecided, begun = of_words.pop("", []), [name for name in tables if name not in done]
    counts = {name: complete(tables[name], set(TERMS))["draw"].nunique() for name in begun}
    draws = [f"{name} ({count} of {TASKS[name].draws} draws)" for name, count in counts.items()]
    clauses = " and ".join(f"{word} on {'; '.join(names)}" for word, names in of_words.items())
    gain = any(row["verdict"] == "better" for row in done.values())
    parts = {
        "**No gain is shown.**": done and not gain,
        f"**Compared with plain backpropagation that is tuned as much, CSBP is {clauses}.**": clauses,
        f"After all draws it is **not decided** on {'; '.join(undecided)}.": undecided,
        direction(results): True,
        f"**No verdict yet** on {'; '.join(draws)}.": draws,
        f"Not begun: {'; '.join(name for name in TASKS if name not in tables)}.": set(TASKS) - set(tables),
    }
    return " ".join(sentence for sentence, holds in parts.items() if sentence and holds)


def controls_sentence(results: Mapping[str, Any]) -> str:
    """The controls against plain backpropagation on the tasks that have them; empty without any."""
    parts = []
    for name, of_task in results.items():
        rows = {arm: of_task.get((arm, "plain")) for arm, _ in CONTROLS[:3]}
        if all(rows.values()):
            parts.append(f"on {name} " + ", ".join(f"{arm} {interval(row)}" for arm, row in rows.items()))
    return f"Forces in place of the term, minus plain backpropagation, give {'; '.join(parts)}." if parts else ""


def controls_table(results: Mapping[str, Any]) -> str:
    """Differences of the controls, in each task that has them."""
    rows = [
        [name, f"{arm} - {other}", interval(row), str(row["pairs"])]
        for name, of_task in results.items()
        for (arm, other), row in of_task.items()
        if (arm, other) in CONTROLS
    ]
    return study.table(["task", "difference", "points, over draws", "draws"], rows) if rows else "None has run yet."


def decided_table(tables: Mapping[str, pd.DataFrame], results: Mapping[str, Any]) -> str:
    """The p of the primary differences of complete tasks, and the same at the epoch of the best validation accuracy."""
    rows = []
    for name, of_task in results.items():
        chosen = {(row["arm"], row["other"]): row for row in contrasts(tables[name], PRIMARY, CHOSEN)}
        for pair, row in of_task.items():
            if pair in PRIMARY and row["verdict"]:
                ps = (f"{row[p]:.2g}" for p in ("p", "p_holm", "equivalence", "equivalence_holm"))
                rows.append([name, " - ".join(pair), interval(row), *ps, interval(chosen[pair])])
    head = [
        "task",
        "difference",
        "points, over draws",
        "p",
        "p, Holm",
        "p of equality",
        "the same, Holm",
        "epoch chosen",
    ]
    return study.table(head, rows) if rows else "None is complete yet."


def strengths_table(tables: Mapping[str, pd.DataFrame], units: Mapping[str, Any]) -> str:
    """What CSBP and the drift have chosen: how often off, and the quartiles of the strengths of the others."""
    rows = []
    for (name, table), arm in itertools.product(tables.items(), ("CSBP", "drift")):
        tests = table[(table["role"] == "test") & (table["arm"] == arm)].drop_duplicates("draw")
        on = tests[tests["chaos.z0"] > 0]
        cells = [offs(table, arm)]
        columns = (on["chaos.z0"], strengths(on, units[name], "flips"), strengths(on, units[name], "ratio"))
        for values in columns:
            cells.append(" to ".join(f"{v:.2g}" for v in np.quantile(values, (0.25, 0.5, 0.75))) if len(on) else "")
        rows.append([name, arm, *cells])
    return study.table(["task", "arm", "off", "z0", "flips", "gradient over the task's"], rows)


def draw(tables: Mapping[str, pd.DataFrame], units: Mapping[str, Any], file: pathlib.Path) -> None:
    """Draw accuracy over strength, a point a try, with the median of each third of a decade."""
    figure, axes = plots.panels(len(tables), 3.6, 3.0)
    for axis, (name, rows) in zip(axes, tables.items(), strict=True):
        tries = gains(rows, units[name])
        for colour, (arm, of_arm) in zip(plots.PALETTE, tries.groupby("arm"), strict=False):
            axis.plot(of_arm["flips"], of_arm["gain"], ".", color=colour, ms=3, alpha=0.4)
            bins = (3 * np.log10(of_arm["flips"])).round()
            middle = of_arm.groupby(bins)[["flips", "gain"]].median()
            axis.plot(middle["flips"], middle["gain"], "-", color=colour, label=str(arm))
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(xscale="log", title=name, xlabel="strength (flips)", ylim=(-12, 7))
    plots.label_rows(axes, "validation accuracy less plain's (points)")
    axes[0].legend(fontsize="small")
    plots.save(figure, file, "Validation accuracy of each try less that of plain backpropagation at the same setting.")


def text(tables: Mapping[str, pd.DataFrame], results: Mapping[str, Any], log: list[dict[str, Any]]) -> str:
    """The page."""
    low, high = (false_alarms(spread, SEED_SD, DRAWS, 48, 400) for spread in SPREADS)
    seconds = sum(entry["cpu_seconds"] for entry in log)
    uncorrected = "; ".join(
        f"{' minus '.join(pair)} on {name}"
        for name, of_task in results.items()
        for pair in PRIMARY
        if pair in of_task and of_task[pair]["verdict"] == "not decided" and of_task[pair]["equivalence"] < 0.05
    )
    planned = f' Without that correction "equal" would also hold for {uncorrected}.' if uncorrected else ""
    known = (
        f"Two equal methods whose settings move a draw by {SPREADS[0]} or {SPREADS[1]} points are called different in "
        f"{low[0]:.0%} or {high[0]:.0%} of 400 simulated studies over the seeds of one draw, as the old pages had it, "
        f"and in {low[1]:.0%} or {high[1]:.0%} over twelve draws (5 % is right)."
    )
    limits = (
        "The study does not cover deep networks, all labels, several taps, more than 16 tries, or strengths above 0.2"
        " flips."
    )
    beside = " ".join(filter(None, (beside_drift(results), drift_sentence(results), limits)))
    verdicts = (
        "Verdicts are of the first and the second difference. Better and worse are by p, equal by two one-sided tests,"
        " all at 5 % after Holm's correction over the differences of all complete tasks; the plan corrected p alone."
        f"{planned} The intervals are not corrected."
    )
    parts = (answer(tables, results), beside, verdicts, f"{controls_sentence(results)} {known}".strip())
    wrapped = [textwrap.fill(part, 118, break_on_hyphens=False) for part in parts]
    return f"""# Few labels, with the draw of settings counted as chance

The paper says that CSBP "improves the generalization performance". Does it with few labels, if every arm is tuned in
each of {min(task.draws for task in TASKS.values())} or {DRAWS} independent draws of settings?

{wrapped[0]}

{wrapped[1]}

![accuracy over strength](strength.png)

*Each point is a try, on validation; the lines are medians. Losses of more than 12 points lie below the frames.*

{primary_table(tables, results)}

The table has test accuracy after the last epoch in points: means and 95 % intervals of Student's t over draws. All
tasks have the same draws of settings, so that their differences are not independent. "Off" counts the draws in which
tuning left CSBP's term off, and "same run" those in which plain backpropagation, or the drift, was the same run as
CSBP and their difference is 0. Plain backpropagation tries 16 settings without a term, CSBP about four beside its
terms: the difference includes this cost. "Of it seeds" is the share of the variance of a draw's mean that more seeds
would remove. "Settings drawn once" is the [old number](../few_labels/README.md), with its interval over seeds.

{wrapped[2]}

{wrapped[3]}

[Controls, strengths](table.md), [plan](plan.md). `python -m experiments.arms`, and `--page` for the page;
{seconds / 60:.0f} minutes of a core, at commits that `log.jsonl` names.
"""


def write(out: pathlib.Path) -> None:
    """Write the page, its table and its picture."""
    tables = committed(out)
    units = json.loads((out / "units.json").read_text())
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    results = analysis(tables)
    draw(tables, units, out / "strength.png")
    write_text(out / "README.md", text(tables, results, log))
    numbers = {
        name: [{n: None if value != value else value for n, value in row.items()} for row in of_task.values()]
        for name, of_task in results.items()
    }
    study.write_json(out / "arms.json", {"contrasts": numbers} | study.provenance("python -m experiments.arms --page"))
    parts = (
        "# Controls and strengths",
        "Primary differences; last, at the epoch of the best validation accuracy:",
        decided_table(tables, results),
        "Secondary differences, without verdicts:",
        controls_table(results),
        "What was chosen, quartiles over draws:",
        strengths_table(tables, units),
    )
    write_text(out / "table.md", "\n\n".join(parts) + "\n")
