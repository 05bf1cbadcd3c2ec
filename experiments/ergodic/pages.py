"""Comparisons, verdicts, tables and the figure of the study."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.reporting.statistics import paired
from experiments import study
from experiments.ergodic.measure import verdict_random
from experiments.statistics import mean_text, share_text, student_dict, wilson, with_holm
from experiments.study import Content

NOISES = ("noise alone", "sub-steps + noise")
Systems = Mapping[str, Mapping[str, Content]]


def conclusions(systems: Systems) -> Content:
    """Differences of visits, and the verdicts on each chaotic system and on the three claims."""
    compared = compare_visits(systems)
    verdicts: dict[str, dict[str, str]] = {"ergodic": {}, "better than noise": {}, "pseudo-random": {}}
    for name, conditions in systems.items():
        chaos = conditions["chaos"]
        if chaos["chaotic"] and chaos["finite"]:
            verdicts["ergodic"][name] = chaos["ergodic"]
            verdicts["pseudo-random"][name] = verdict_random(chaos["series"])
            if name in compared:
                verdicts["better than noise"][name] = verdict_visits(compared[name])
    overall = {claim: claim_verdict(list(of_systems.values())) for claim, of_systems in verdicts.items()}
    return {"visits_compared": compared, "verdicts": verdicts, "overall": overall}


def compare_visits(systems: Systems) -> dict[str, dict[str, Content]]:
    """Distinct functions of chaos minus those of each noise, paired over the starts; Holm's correction over all."""
    pairs: dict[tuple[str, str], Content] = {}
    for name, conditions in systems.items():
        if conditions["chaos"]["chaotic"]:
            for noise in (noise for noise in NOISES if noise in conditions):
                values, reference = (np.array(conditions[n]["visits"]["distinct"], float) for n in ("chaos", noise))
                pairs[name, noise] = student_dict(values - reference) | {"p": paired(values - reference).p}
    compared: dict[str, dict[str, Content]] = {}
    for (name, noise), result in with_holm(pairs).items():
        compared.setdefault(name, {})[noise] = result
    return compared


def verdict_visits(pairs: Mapping[str, Content]) -> str:
    """The plan's verdict on a system: whether chaos visits more functions than both noises."""
    more = [pair["p_holm"] < 0.05 and pair["mean"] > 0 for pair in pairs.values()]
    return "confirmed" if all(more) else "bounded" if any(more) else "refuted"


def claim_verdict(verdicts: Sequence[str]) -> str:
    """The plan's verdict on a claim from those on the chaotic systems, the first that applies."""
    if verdicts and all(verdict == "confirmed" for verdict in verdicts):
        return "confirmed"
    if "refuted" in verdicts and "confirmed" not in verdicts:
        return "refuted"
    return "bounded" if "confirmed" in verdicts or "bounded" in verdicts else "not decided"


# --- tables -------------------------------------------------------------------------------------------------------


def page(content: Content) -> str:
    """The tables, and the verdicts."""
    limits = {"ergodic": " at fixed strength", "pseudo-random": " of successive values"}
    lines = [
        f"The plan's rule for *{claim}*{limits.get(claim, '')}: **{study.rule(word)}**."
        for claim, word in content["overall"].items()
    ]
    tables = [ergodic_table(content["systems"]), visits_table(content), random_table(content)]
    return "\n\n".join([*lines, *tables])


def ergodic_table(systems: Systems) -> str:
    """R-hat, times, energy distances and groups of every system without noise."""
    rows = []
    for name, conditions in systems.items():
        for condition, result in ((c, of) for c, of in conditions.items() if "exponents" in of):
            values = [value for value in result["exponents"] if value is not None]
            exponent = f"{np.median(values):+.3f}" if values else "none"
            cells = [name, condition, exponent, "yes" if result["chaotic"] else "no"]
            if not result["finite"]:
                rows.append([*cells, *["runs away"] * 2, *[""] * 5])
                continue
            observables = result["observables"]
            times = [measured["time"] for measured in observables if measured["time"] is not None]
            r_hat = max(measured["r_hat"] for measured in observables)
            rows.append(
                [
                    *cells,
                    *(_groups_of(result, key) for key in ("groups", "groups_as_they_are")),
                    f"{r_hat:.3f}" if r_hat < 100 else "above 100",
                    f"{_steps_text(np.median(times))}, {_steps_text(max(times))}" if times else "at rest",
                    _count_text(observables, "passes"),
                    _count_text(observables, "mixes"),
                    study.rule(result["ergodic"]) if result["chaotic"] else "",
                ]
            )
    head = ["system", "condition", "exponent", "chaotic", "groups", "groups, symmetric copies apart", "largest R-hat"]
    return study.table([*head, "time, median and largest", "pass", "mix", "rule for ergodic"], rows)


def _groups_of(result: Content, key: str) -> str:
    """The groups of a condition, or that nothing could be compared."""
    return "all slow" if all(measured["slow"] for measured in result["observables"]) else groups_text(result[key])


def groups_text(sizes: Sequence[int]) -> str:
    """Number of groups and the sizes of the largest three."""
    shown = ", ".join(str(size) for size in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
    return f"{len(sizes)} ({shown})"


def _steps_text(time: float) -> str:
    """A number of steps without a decimal point from 10 on; that of a cycle is 0 up to rounding."""
    return f"{time:.0f}" if time >= 10 else f"{abs(time):.1f}"


def _count_text(observables: Sequence[Content], key: str) -> str:
    return f"{sum(measured[key] for measured in observables)} of {len(observables)}"


def visits_table(content: Content) -> str:
    """Functions that chaos, sub-steps and noise visit."""
    rows = []
    for name, conditions in content["systems"].items():
        for condition, visits in ((c, of["visits"]) for c, of in conditions.items() if "visits" in of):
            pair = content["visits_compared"].get(name, {}).get(condition)
            difference = f"{pair['mean']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]" if pair else ""
            rows.append(
                [
                    name,
                    condition,
                    mean_text(visits["distinct"]),
                    str(visits["union"]),
                    mean_text(visits["effective"]),
                    f"{np.median(visits['steps_per_change']):.3g}",
                    f"{100 * np.mean(visits['xor']):.2f}",
                    difference,
                    f"{pair['p_holm']:.2g}" if pair else "",
                ]
            )
    head = ["system", "condition", "functions visited", "by all starts", "effective number", "steps per change"]
    return study.table([*head, "time in XOR (%)", "chaos minus this", "p, Holm"], rows)


def random_table(content: Content) -> str:
    """Shares of irregular and of random-like series."""
    rows = []
    every = {
        f"{name}, {condition}": (result["series"], result["chaotic"])
        for name, conditions in content["systems"].items()
        for condition, result in conditions.items()
        if result.get("series")
    }
    every |= {name: (series, False) for name, series in content["noise"].items()}
    for name, (series, chaotic) in every.items():
        irregular, nonlinear, entropy, like = (
            np.array(values)
            for values in (
                [s["k"] >= 0.8 for s in series],
                [s["p"] <= 0.025 for s in series],
                [s["entropy_p"] <= 0.025 for s in series],
                [s["random_like"] for s in series],
            )
        )
        rows.append(
            [
                name,
                str(len(series)),
                f"{np.median([s['k'] for s in series]):.2f}",
                f"{np.median([s['entropy'] for s in series]):.2f}",
                f"{np.median([s['flatness'] for s in series]):.2f}",
                *(f"{100 * values.mean():.0f}" for values in (irregular, nonlinear, entropy)),
                share_text(wilson(like)),
                study.rule(verdict_random(series)) if chaotic else "",
            ]
        )
    head = ["series of", "series", "K", "permutation entropy", "flatness", "irregular (%)", "nonlinear (%)"]
    return study.table([*head, "entropy unlike surrogates (%)", "random-like (%)", "rule for pseudo-random"], rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw R-hat of all observables, functions visited over steps, and the measures of randomness."""
    figure = empty_figure(13, 4.2)
    agreement, functions, random = figure.subplots(1, 3)
    chaotic = [name for name, conditions in content["systems"].items() if conditions["chaos"]["finite"]]
    for i, name in enumerate(chaotic):
        values = [measured["r_hat"] for measured in content["systems"][name]["chaos"]["observables"]]
        heights = np.clip(np.array(values) - 1, 1e-5, 1e2)
        agreement.plot(np.full(len(heights), i), heights, "o", ms=4, alpha=0.6, color=PALETTE[0])
    agreement.axhline(0.05, color="black", lw=0.8, ls="--")
    agreement.set_yscale("log")
    agreement.set_xticks(range(len(chaotic)), chaotic, rotation=40, ha="right", fontsize="small")
    agreement.set(ylabel="R-hat - 1, of each observable", title="same distribution of all orbits: below the line")
    styles = {"chaos": "-", "noise alone": ":", "sub-steps + noise": "--"}
    for i, name in enumerate(content["visits_compared"]):
        for condition, style in styles.items():
            visits = content["systems"][name][condition]["visits"]
            label = name if condition == "chaos" else None
            functions.plot(visits["steps"], visits["curve"], style, color=PALETTE[i % len(PALETTE)], label=label)
    functions.set(xscale="log", xlabel="step", ylabel="functions visited, mean of starts", ylim=(0, 16.5))
    functions.set_title("solid: chaos; dotted: noise;\ndashed: noise on sub-steps", fontsize="medium")
    functions.legend(fontsize="small")
    measured = {name: content["systems"][name]["chaos"].get("series") for name in chaotic} | content["noise"]
    measured = {name: series for name, series in measured.items() if series}
    for y, series in enumerate(measured.values()):
        for passes, color in ((False, PALETTE[1]), (True, PALETTE[0])):
            entropies = [s["entropy"] for s in series if s["random_like"] == passes]
            random.plot(entropies, np.full(len(entropies), y + 0.15 - 0.3 * passes), "|", ms=9, color=color)
    random.set_yticks(range(len(measured)), list(measured), fontsize="small")
    random.set(xlabel="permutation entropy of 1000 values", ylim=(len(measured) - 0.5, -0.5))
    random.set_title("blue: passes the test of noise;\norange: does not", fontsize="medium")
    study.save_figure(figure, out, "ergodic")
