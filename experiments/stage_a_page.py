"""Write the page of docs/results/stage_a from its rows, as many as there are.

    python -m experiments.stage_a_page [--data-dir data]

The numbers are those of the plan (docs/results/stage_a/plan.md). A draw counts once all of its arms are tested. The
data are needed only for choices whose strength in flips is not in strengths.json yet.
"""

import functools
import json
import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from csbp_jax.instruments import training_map
from csbp_jax.reporting import plots
from csbp_jax.reporting.statistics import paired, verdict
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
UNITS = {"ratio": "{} of the task's", "z0": "z0 is {}", "flips": "the strength is {} flips"}
LIMITS = (
    "The study does not cover recordings of events, CIFAR-100, ImageNet, networks of full width, more time steps or"
    " 200 epochs."
)
DRIFT = (
    "**Equality with the drift says nothing about chaos.** At k = 10 and for membrane potentials between -3 and 3, the"
    " drift's gradient differs from the term's by at most 1.2 % of the pull. The two methods are therefore expected to"
    " be equal whether chaos matters or not."
)
FLIP = "At a strength of 1 [flip](../../lab.md#strength-in-units-of-the-flip), the term alone would overshoot."


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

    With columns ``draw``, ``setting``, ``arm``, ``ratio`` (of the term's gradient to the task's at step 0), ``z0``,
    ``epochs``, ``gain``.
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
            names = row["draw"], row["setting"], row["arm"]
            records.append((*names, ratio, row["run"]["z0"], row["run"]["epochs"], gain))
    return pd.DataFrame(records, columns=["draw", "setting", "arm", "ratio", "z0", "epochs", "gain"])


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
        off = len(of_arm) - len(on) or "none"
        gradient = f"the gradient of the chosen terms is {', '.join(parts)}, and " if parts else ""
        sentences.append(f"With {arm}, {gradient}tuning left the term off in {off} of {len(of_arm)} draws.")
    return textwrap.fill(
        " ".join(["**Strengths that were chosen**, measured at the first step.", *sentences, FLIP]), 118
    )


def interval(ends: Iterable[Any], digits: str = "+.3g") -> str:
    """Return a difference with the ends of its interval as text."""
    difference, low, high = ends
    return f"{difference:{digits}} [{low:{digits}}, {high:{digits}}]"


def welch(table: RunTable, other: str, measure: str, scale: float = 1.0) -> tuple[float, float, float] | None:
    """Return the mean of CSBP minus another arm over seeds with Welch's interval; None without two seeds of each."""
    values = scale * table.frame.set_index("arm")[measure]
    csbp, of_other = values[values.index == "CSBP"], values[values.index == other]
    if min(len(csbp), len(of_other)) < 2:
        return None
    ends = stats.ttest_ind(csbp, of_other, equal_var=False).confidence_interval()
    return float(csbp.mean() - of_other.mean()), float(ends.low), float(ends.high)


def over_seeds(rows: Sequence[dict[str, Any]], role: str, label: str) -> list[list[str]]:
    """Return rows of CSBP minus the other arms at one setting of each, by Welch's test; none without two seeds."""
    table = tested(rows, role)
    seeds, cells = (table.frame["arm"] == "CSBP").sum(), []
    measures = [("", "test_accuracy", 100.0)]
    if role == "untuned":
        measures.append((", training loss", "train_loss", 1.0))
    for name, measure, scale in measures:
        differences = [welch(table, other, measure, scale) for other in OTHERS]
        if any(differences):
            texts = (interval(of) if of else "" for of in differences)
            cells.append([f"{label}{name}, {seeds} seeds (Welch)", *texts])
    return cells


def levels(rows: Sequence[dict[str, Any]]) -> str:
    """Say how accurate the networks are in the test, tuned and at the released settings."""
    texts = []
    for frame in (tested(rows, "test").frame, tested(rows, "untuned").frame):
        of_arms = 100 * frame.groupby("arm")["test_accuracy"].mean()
        texts.append(", ".join(f"{arm} {of_arms[arm]:.1f} %" for arm in stage_a.ARMS if arm in of_arms))
    released = f"; at the released settings, without tuning: {texts[1]}" if texts[1] else ""
    return f"Test accuracies, tuned: {texts[0]}{released}."


def practical(rows: Sequence[dict[str, Any]], word: str) -> str:
    """Answer what a user wants to know: whether CSBP is better tuned, by the verdict, and at the released settings."""
    tuned = {"equal": "Not better when tuned alike", "not decided": "Not shown to differ when tuned alike"}
    text = tuned.get(word, f"{word.capitalize()} when tuned alike")
    released = welch(tested(rows, "untuned"), "plain", "test_accuracy", 100)
    if released is None:
        return f"**{text}.**"
    _, low, high = released
    of_released = "worse" if high < 0 else "better" if low > 0 else "not shown to differ"
    return f"**{text}; {of_released} at the released settings.**"


def without_one(differences: "pd.Series[float]", word: str) -> str:
    """Say what the verdict would be without each one of the draws; empty if it would always be the same."""
    words = [verdict(paired(differences.drop(draw), margin=MARGIN)) for draw in differences.index]
    if set(words) == {word}:
        return ""
    counts = pd.Series(words).value_counts()
    listed = ", ".join(f'"{other}" in {count} case{"s" * (count > 1)}' for other, count in counts.items())
    return f"if one of the {len(words)} draws is left out, the verdict is {listed}"


def primary_text(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Return the answer, first the practical one and then the verdict over draws, and the numbers that it rests on."""
    test = tested(rows, "test")
    compared = test.contrast("CSBP", list(OTHERS), margin=MARGIN)
    primary, word = compared["plain"], str(compared["plain"]["verdict"])
    so_far = "so far " * (test.frame["draw"].nunique() < stage_a.DRAWS)
    equal = f"equal within {MARGIN:g} points" if word == "equal" else word
    others = without_one(compared.differences[0], word)
    narrowly = ", but only narrowly, and a repetition may decide otherwise" if others else ""
    said = f"{so_far}{equal}{narrowly}".capitalize()
    answer = (
        f"{practical(rows, word)} Where each method is tuned, CSBP minus plain backpropagation is"
        f" {interval(primary[ENDS], '+.2f')} points of test accuracy, the mean over {primary['pairs']} draws of"
        f" settings. **{said}**{': ' * bool(others)}{others}."
    )
    texts = [
        levels(rows),
        f"The p of a difference is {primary['p']:.2g} and that of equality {primary['equivalence']:.2g};"
        " corrected by Holm's method over this comparison and the one with the drift, they are"
        f" {primary['p_holm']:.2g} and {primary['equivalence_holm']:.2g}.",
    ]
    if primary["seed_share"] == 1:
        texts.append("The draws spread no more than their seeds explain.")
    elif primary["seed_share"] < 1:
        texts.append(f"The seeds make up {primary['seed_share']:.0%} of the variance of a draw's mean.")
    return answer, " ".join(texts)


def facts(rows: Sequence[dict[str, Any]], terms: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a user should know beside the primary number, a sentence or two each."""
    test, untuned = tested(rows, "test").frame, tested(rows, "untuned").frame
    of_settings, found = gains(rows), []
    loss = welch(tested(rows, "untuned"), "plain", "train_loss")
    if loss:
        by_seed = untuned.pivot_table("train_loss", "seed", "arm")
        higher = (by_seed["CSBP"] > by_seed["plain"]).sum()
        worse = ": CSBP optimises worse" if loss[1] > 0 else ""
        found.append(
            f"At the released settings, CSBP ends with a higher training loss than plain backpropagation for {higher}"
            f" of {len(by_seed)} seeds. The mean difference is {interval(loss)} (Welch){worse}."
        )
        tuned = 100 * test[test["arm"] == "plain"].groupby("draw")["test_accuracy"].mean()
        released = 100 * untuned["test_accuracy"][untuned["arm"] == "plain"]
        if len(tuned) > 1:
            ends = stats.ttest_ind(tuned, released, equal_var=False).confidence_interval()
            of_plain = interval((tuned.mean() - released.mean(), ends.low, ends.high), "+.2f")
            helped = "helped" if ends.low > 0 else "is not shown to help"
            found.append(
                f"Tuning {helped} plain backpropagation: tuned minus untuned, its test accuracy differs by {of_plain}"
                f" points (draws against seeds, Welch). The {stage_a.SETTINGS} random settings of a draw are a small"
                " choice."
            )
    screened = of_settings[of_settings["epochs"] == stage_a.SCREEN]
    costs = []
    for arm in TERMS:
        by_draw = screened[screened["arm"] == arm].groupby("draw")["gain"].mean()
        if len(by_draw) > 1:
            costs.append(f"{interval(paired(by_draw).difference, '+.1f')} points for {arm}")
    if costs:
        found.append(
            f"At equal settings and after {stage_a.SCREEN} epochs, the accuracy on validation with a term minus the one"
            f" without is {' and '.join(costs)} (means over draws)."
        )
    strengths = {draw: sorted(s.ratio for s in stage_a.settings(draw) if s.ratio) for draw in range(stage_a.DRAWS)}
    chosen = [term for term in terms if term["arm"] == "CSBP"]
    weakest = sum(term["ratio"] == strengths[term["draw"]][0] for term in chosen)
    if weakest:
        found.append(
            f"In {weakest} of {len(chosen)} draws, tuning chose the weakest of CSBP's {len(strengths[0])} strengths."
            " The study has therefore tested CSBP at the weak end of its range."
        )
    keys = ["draw", "setting", "arm"]
    full = of_settings[of_settings["epochs"] == stage_a.FULL].merge(screened, on=keys, suffixes=("", "_screened"))
    if len(full) > 1:
        shift = full["gain"] - full["gain_screened"]
        found.append(
            f"The first selection of settings is after {stage_a.SCREEN} epochs, when terms look worse than at the end,"
            f" which favours weak ones: {len(full)} terms that were trained for both {stage_a.SCREEN} and"
            f" {stage_a.FULL} epochs changed the accuracy on validation by {full['gain_screened'].mean():+.2f} points"
            f" after {stage_a.SCREEN} epochs and by {full['gain'].mean():+.2f} after {stage_a.FULL}, on average (from"
            f" one to the other {shift.mean():+.2f}, standard error {stats.sem(shift):.2f})."
        )
    return found


def repeats(rows: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]]) -> list[str]:
    """Say what came out of runs that were trained again with the same seeds, and how well they fit; empty without."""
    if not again:
        return []
    first = {(row["draw"], row["arm"], row["run"]["seed"]): row for row in rows if row["role"] == "test"}
    pairs, changed = [], list(rows)
    for row in again:
        of_first = first[row["draw"], row["arm"], row["run"]["seed"]]
        pairs.append(f"{of_first['measures']['test'][-1]:.2f} and {row['measures']['test'][-1]:.2f}")
        changed[changed.index(of_first)] = of_first | {"measures": row["measures"]}
    contrast = tested(changed, "test").contrast("CSBP", list(OTHERS), margin=MARGIN)["plain"]
    fitted, on_test = (np.mean([row["measures"][name][-1] for row in again]) for name in ("fitted", "test"))
    machines = sorted({row["commit"][:8] for row in again})
    return [
        f"**The network hardly overfits.** At their end and without augmentation and dropout, {len(again)} runs have a"
        f" mean accuracy of {fitted:.1f} % on the training pictures and of {on_test:.1f} % on the test pictures. The"
        " study therefore says little about generalisation.",
        f"**The rows are reproducible in distribution only.** We trained {len(again)} of the runs again with the same"
        f" seeds and settings on another machine (at commit {', '.join(machines)}). Their test accuracies in"
        f" percent, the first run before the second, are {'; '.join(pairs)}. Differences in rounding separate"
        f" the runs within an epoch. With the new runs in place of the old ones, the primary difference is"
        f' {interval(contrast[ENDS], "+.2f")} points, and its verdict "{contrast["verdict"]}".',
    ]


def items(texts: Sequence[str]) -> str:
    """Return a list in Markdown."""
    wrap = functools.partial(textwrap.fill, width=118, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(wrap(text, break_on_hyphens=False) for text in texts)


def page(rows: Sequence[dict[str, Any]], terms: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]] = ()) -> str:
    """Return the page: the answer with what it does not cover, the picture, the table, and how it was made.

    ``terms`` are those of :func:`add_flips`; ``again`` are the runs that were repeated.
    """
    test = tested(rows, "test")
    draws = test.frame["draw"].nunique()
    answer, rests_on, cells = f"**Not yet decided**: {draws} of {stage_a.DRAWS} draws are complete.", "", []
    if draws > 1:
        answer, rests_on = primary_text(rows)
        for label, measure in [*MEASURES.items(), ("training loss, last epoch", "train_loss")]:
            of_others = test.contrast("CSBP", list(OTHERS), measure=measure)
            cells.append([label, *(interval(of_others[other][ENDS]) for other in OTHERS)])
    cells += over_seeds(rows, "untuned", "released settings, untuned")
    cells += over_seeds(rows, "larger", f"stage B: 32x32, more channels, {stage_a.LARGER} epochs")
    commits = ", ".join(sorted({row["commit"][:8] for row in rows}))
    hours = sum(row["cpu_seconds"] for row in rows) / 3600
    head = ["CSBP minus, points", *OTHERS.values()]
    table = study.table(head, cells) + "\n\n" if cells else ""
    paragraph = textwrap.fill(rests_on, 118, break_on_hyphens=False) + "\n\n" if rests_on else ""
    known = [DRIFT, *facts(rows, terms), *repeats(rows, again)]
    return f"""# Does CSBP train a small deep network better?

{textwrap.fill(f"{answer} {LIMITS}", 118, break_on_hyphens=False)}

The paper says that CSBP "improves the generalization performance on both neuromorphic datasets and large-scale static
datasets". We trained CNN7 with TEBN at a quarter of its width on all pictures of CIFAR-10, reduced to 16x16, with two
time steps and SGD, for {stage_a.FULL} epochs. Settings were drawn {stage_a.DRAWS} times. Every method was tuned anew in
each draw, with as many tries as the others, so that a lucky draw of settings is not taken for an effect.

![validation accuracy over strength](strength.png)

*Each point is a setting. Hollow ones were trained for {stage_a.SCREEN} epochs only, to select settings.*

{table}{paragraph}## What to know beside it

The first point follows from the equations. The others are from the runs, and were not planned.

{items(known)}

{strengths_text(terms)}

`python -m experiments.stage_a`, then `python -m experiments.stage_a_page`; [plan](plan.md).
The {len(rows)} runs took {hours:.1f} core-hours, at commit {commits}. Differences are means over draws with 95 %
intervals of Student's t over draws, or, where it says Welch, means over seeds with intervals of Welch's test.
"""


ENDS = ["difference", "low", "high"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "stage_a", data_dir=True)
    options = parser.parse_args(arguments)
    rows = stage_a.read(options.out / "runs.jsonl")
    draw(rows, options.out / "strength.png")
    terms = add_flips(rows, options.out / "strengths.json", options.data_dir)
    write_text(options.out / "README.md", page(rows, terms, stage_a.read(options.out / "repeated.jsonl")))


if __name__ == "__main__":
    main()
