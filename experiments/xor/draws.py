"""Repeat the tuning of docs/results/xor/tuned over several draws of its settings, by its draws_plan.md.

    python -m experiments.xor.draws [--extrinsic] [--out docs/results/xor/tuned] [--draws 8] [--tuning 256]

``--extrinsic`` adds the arms of extrinsic_plan.md. Writes ``draws.json``, ``draws.md`` and the figure ``tries``.
Finished runs are in ``runs/xor_draws``, finished arms in ``draws.json``; none are repeated.
"""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax import RunTable
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_text
from experiments import study
from experiments.statistics import best_weights, percent_text, student_dict
from experiments.study import Content
from experiments.xor.conditions import CHUNK, EXTRINSIC
from experiments.xor.tuned import experiment, tuning_shares

MODULE = "python -m experiments.xor.draws"
NAMES = ("CSBP", "plain backpropagation", "drift")
SEEDS = 1_000_000
"""The first seed of draw 0, and those of the others 10,000 apart; test starts follow tuning starts."""
TRIES, MARGIN = (1, 4, 11, 24), 0.02
"""Numbers of tries, of which the first is not of the plan."""
NOT_PLANNED = (("drift", "plain backpropagation"), ("MPGD", "noise"), ("CSBP", "noise"))
SEEN = 4
"""Draws that were looked at before the plan."""


def results_of(table: RunTable, names: Sequence[str] = NAMES) -> Content:
    """``{draw: {condition: {tuning, share}}}``: shares of the tuning starts of each try, and of the test starts."""
    draws: Content = {}
    for draw, name in itertools.product(sorted(set(table.frame["draw"])), names):
        of_cell = table.where(draw=draw, arm=name)
        share = float(of_cell.where(role="test").frame["solved"].mean())
        draws.setdefault(str(draw), {})[name] = {"tuning": tuning_shares(of_cell), "share": share}
    return draws


def best_of_tries(shares: NDArray[Any], tries: int, samples: int = 10_000, names: Sequence[str] = NAMES) -> Content:
    """Expected best share of a number of tries, over settings drawn at random.

    Args:
      shares: of the tuning starts, ``[conditions, settings]``, as ``names``.
      samples: bootstrap samples of the settings, the same for all conditions.

    Returns:
      ``{"best": [conditions], "minus CONDITION": {mean, low, high}}``: the best of each, and the first minus the others
      with the 95 % interval of the samples.
    """
    weights = best_weights(shares.shape[1], tries)
    index = np.random.default_rng(0).integers(shares.shape[1], size=(samples, shares.shape[1]))
    best, sampled = np.sort(shares) @ weights, np.sort(shares[:, index]) @ weights
    result: Content = {"best": best.tolist()}
    for other, name in enumerate(names[1:], start=1):
        low, high = np.quantile(sampled[0] - sampled[other], (0.025, 0.975))
        result[f"minus {name}"] = {"mean": best[0] - best[other], "low": float(low), "high": float(high)}
    return result


def tuning_of(draws: Content, names: Sequence[str] = NAMES) -> NDArray[Any]:
    """Shares of the tuning starts at all settings of some draws, ``[conditions, settings]``, as ``names``."""
    return np.array([np.concatenate([of_draw[name]["tuning"] for of_draw in draws.values()]) for name in names])


def analyse(draws: Content) -> Content:
    """The plan's numbers, of all draws and of those before and from :data:`SEEN` on."""
    groups = {"all": [*draws], "seen before": [*draws][:SEEN], "new": [*draws][SEEN:]}
    result: Content = {}
    for group, members in ((group, members) for group, members in groups.items() if members):
        shares = tuning_of({draw: draws[draw] for draw in members})
        tests = {name: np.array([draws[draw][name]["share"] for draw in members]) for name in NAMES}
        result[group] = {
            "best of": {str(n): best_of_tries(shares, n) for n in TRIES if n <= shares.shape[1]},
            "tests": {f"minus {name}": student_dict(tests["CSBP"] - tests[name]) for name in NAMES[1:]},
        }
    return result


def extrinsic(draws: Content) -> Content:
    """``{"ARM minus OTHER": {best, tests}}`` of extrinsic_plan.md and :data:`NOT_PLANNED`, of those that have run."""
    result: Content = {}
    for pair in (*((name, "plain backpropagation") for name in EXTRINSIC), ("CSBP", "MPGD"), *NOT_PLANNED):
        if all(name in of_draw for of_draw in draws.values() for name in pair):
            shares = tuning_of(draws, pair)
            best = best_of_tries(shares, min(TRIES[-1], shares.shape[1]), names=pair)
            tests = [of_draw[pair[0]]["share"] - of_draw[pair[1]]["share"] for of_draw in draws.values()]
            result[" minus ".join(pair)] = {"best": best[f"minus {pair[1]}"], "tests": student_dict(tests)}
    return result


def verdict(interval: Content) -> str:
    """The plan's word for the primary interval."""
    if interval["low"] > 0:
        return "CSBP trains better"
    return "equal" if max(abs(interval["low"]), abs(interval["high"])) < MARGIN else "not decided"


def word(interval: Content) -> str:
    """The word of extrinsic_plan.md, which may be "trains worse", too."""
    return "trains worse" if interval["high"] < 0 else verdict(interval).removeprefix("CSBP ")


FORCES_HEAD = ("difference", "over settings (points)", "over draws (points)", "")
EXTRINSIC_TEXT = """
Forces in place of the term, by their [plan](extrinsic_plan.md): expected best share of 24 tries over settings, and
shares at the chosen settings over draws. The plan's words, of the first number, are not corrected; the rows without
one are not of the plan.

"""


def page(content: Content) -> str:
    """The tables: expected best over settings, and the tests of each draw."""
    others = [f"minus {name}" for name in NAMES[1:]]
    rows, analysis = [], content["analysis"]
    for group, numbers in analysis.items():
        for tries, cell in numbers["best of"].items():
            shares = [f"{100 * share:.1f}" for share in cell["best"]]
            rows.append([group, tries, *shares, *(percent_text(cell[other], "+") for other in others)])
    tests = []
    for draw, result in content["draws"].items():
        csbp, *rest = (100 * result[name]["share"] for name in NAMES)
        tests.append([draw, *(f"{share:.1f}" for share in (csbp, *rest)), *(f"{csbp - share:+.1f}" for share in rest)])
    for group, numbers in analysis.items():
        tests.append([f"mean, {group}", "", "", "", *(percent_text(numbers["tests"][other], "+") for other in others)])
    heads = [*NAMES, *(f"CSBP {other}, points" for other in others)]
    forces = [
        [
            name,
            percent_text(of["best"], "+"),
            percent_text(of["tests"], "+"),
            "" if tuple(name.split(" minus ")) in NOT_PLANNED else word(of["best"]),
        ]
        for name, of in content.get("extrinsic", {}).items()
    ]
    primary = [*analysis["all"]["best of"].values()][-1][others[0]]
    return f"""# XOR over draws of settings: the tables

By the [plan](draws_plan.md), made by `python -m experiments.xor.draws`; `draws.json` holds every share. Draws 0 to
{SEEN - 1} were looked at before the plan ("seen before"), the others were not ("new").

Expected best share of a number of tries on the tuning starts (%); 95 % intervals of the bootstrap over settings. A
single try is not of the plan.

{study.table(["draws", "tries", *heads], rows)}

Shares at the chosen settings on {content["starts"]} fresh starts (%); 95 % intervals of Student's t over draws.

{study.table(["draw", *heads], tests)}

Verdict of the plan, over settings: **{verdict(primary)}**.
{EXTRINSIC_TEXT + study.table(FORCES_HEAD, forces) + chr(10) if forces else ""}"""


def draw(draws: Content, out: pathlib.Path) -> None:
    """Draw the expected best share over the number of tries, and differences with their intervals over settings."""
    shares = tuning_of(draws)
    tries = range(1, shares.shape[1] // len(draws) + 1)
    cells = [best_of_tries(shares, n, samples=2000) for n in tries]
    figure = empty_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    for i, (name, style) in enumerate(zip(NAMES, ("-", "-", "--"), strict=True)):
        left.plot(tries, [100 * cell["best"][i] for cell in cells], style, color=PALETTE[i], label=name)
    for i, name in enumerate(NAMES[1:], start=1):
        mean, low, high = (
            100 * np.array([cell[f"minus {name}"][end] for cell in cells]) for end in ("mean", "low", "high")
        )
        right.plot(tries, mean, color=PALETTE[i], label=f"CSBP minus {name}")
        right.fill_between(tries, low, high, color=PALETTE[i], alpha=0.2, lw=0)
    right.axhline(0, color="black", lw=0.8)
    left.set(xlabel="settings tried", ylabel="expected share of the best (%)", ylim=(80, 96))
    right.set(xlabel="settings tried", ylabel="difference (points), 95 %", ylim=(-8, 12))
    for axes in (left, right):
        axes.legend(fontsize="small", loc="lower right")
    study.save_figure(figure, out, "tries")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor/tuned", draws=8, tries=24, tuning=256, starts=1024, steps=5000)
    parser.add_argument("--extrinsic", action="store_true")
    options = parser.parse_args(arguments)
    file = options.out / "draws.json"
    sizes = {name: getattr(options, name) for name in ("tries", "tuning", "starts", "steps")}
    tuning = range(SEEDS, SEEDS + options.tuning)
    test = range(tuning.stop, tuning.stop + options.starts)
    content = study.resume(parser, file, sizes, {"draws": {}, "extrinsic": {}})
    for names in [NAMES, *((name,) for name in EXTRINSIC if options.extrinsic)]:
        if not all(names[0] in content["draws"].get(str(number), {}) for number in range(options.draws)):
            folder = study.WORK / "xor_draws" / names[0].replace(" ", "_")
            table = experiment(names, options.steps, options.tries, tuning, test, options.draws).run(
                folder, chunk=CHUNK
            )
            for number, results in results_of(table, names).items():
                content["draws"].setdefault(number, {}).update(results)
            study.store(file, content, MODULE)
    numbers = {"analysis": analyse(content["draws"]), "extrinsic": extrinsic(content["draws"])}
    if any(content.get(name) != values for name, values in numbers.items()):
        content |= numbers
        study.store(file, content, MODULE)
    write_text(options.out / "draws.md", page(content))
    draw(content["draws"], options.out)


if __name__ == "__main__":
    study.run(main)
