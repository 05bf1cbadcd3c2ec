"""Run the plan of docs/results/xor/plan.md and write its results beside it.

    python -m experiments.xor [--out docs/results/xor] [--tuning 256] [--starts 1024] [--steps 5000]

Finished conditions are read from ``xor.json`` and not repeated.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.statistics import bits, compare_solved, equivalence_of_shares, points_text, share_text, wilson
from experiments.study import Content
from experiments.xor.conditions import CONDITIONS, WIDELY, Condition, solved
from experiments.xor.net import Kind, Setting
from experiments.xor.tuned import measure_rise, rise_text

MODULE = "python -m experiments.xor"

TUNING_SEEDS = 100_000
MARGIN, MAYBE_EQUAL = 0.02, ("drift", "chaos term in 20 sub-steps", "drift + Gaussian noise", "drift + AR(1) noise")
WIDTHS, Z0S, WIDE_BETA = (0.5, 1.0, 2.0, 3.0, 5.0), (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), 0.999


def run(condition: Condition, options: argparse.Namespace, known: Mapping[Setting, float]) -> Content:
    """Tune a condition, except for settings whose share is known, and test it on fresh starts."""
    tuning = TUNING_SEEDS + np.arange(options.tuning)

    def share(setting):
        return float(solved(condition, setting, tuning, options.steps).mean())

    setting, shares = study.tune(condition.settings, known, share)
    values = solved(condition, setting, np.arange(options.starts), options.steps)
    return {"setting": study.changed_fields(setting), "tuning": shares, **wilson(values), "solved": bits(values)}


def together(options: argparse.Namespace) -> Content:
    """Shares over the surrogate's width and z0 together, ``{term: [widths][z0s]}``."""
    seeds = TUNING_SEEDS + np.arange(options.tuning)

    def share(term, width, z0):
        setting = Setting(z0=z0, beta=WIDE_BETA, width=width)
        return float(solved(Condition(Kind(term=term), []), setting, seeds, options.steps).mean())

    return {term: [[share(term, width, z0) for z0 in Z0S] for width in WIDTHS] for term in ("chaos", "drift")}


def page(content: Content) -> str:
    """The tables in Markdown."""
    tables = [table(content, key) for key in ("conditions", "tuned_widely")]
    return "\n\n".join([*tables, equivalence(content), rise_text(content["rise"])])


def equivalence(content: Content) -> str:
    """A table of the conditions that might equal CSBP, by two one-sided tests."""
    rows = []
    for name, pair in compare_solved({n: content["conditions"][n] for n in ("CSBP", *MAYBE_EQUAL)}, "CSBP").items():
        test = equivalence_of_shares(pair, MARGIN)
        equal = "yes" if test["p"] < 0.05 else "not shown"
        rows.append([name, f"{100 * test['low']:+.2f} to {100 * test['high']:+.2f}", f"{test['p']:.2g}", equal])
    return study.table(["minus CSBP", "90 % interval (points)", "p", f"equal within {100 * MARGIN:g} points"], rows)


def table(content: Content, key: str) -> str:
    """A table of conditions, from the best on."""
    rows = []
    for name, result in sorted(content[key].items(), key=lambda item: -item[1]["share"]):
        against = content[f"{key}_against_csbp"].get(name)
        cells = [points_text(against), f"{against['p_holm']:.2g}"] if against else ["", ""]
        setting = ", ".join(f"{field} {value:.4g}" for field, value in result["setting"].items())
        rows.append([name, share_text(result), *cells, setting])
    head = ["condition", "solved (%), 95 % interval", "against CSBP (points)", "p, Holm", "setting, tuned"]
    return study.table(head, rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the shares of all conditions, and the shares over width and z0."""
    conditions = sorted(content["conditions"].items(), key=lambda item: item[1]["share"])
    figure = empty_figure(7, 0.27 * len(conditions) + 1)
    axes = figure.subplots()
    for row, (name, r) in enumerate(conditions):
        style: dict[str, Any] = {"color": PALETTE[1] if name == "CSBP" else PALETTE[0], "fmt": "o", "ms": 4, "lw": 1.5}
        ends = [[100 * (r["share"] - r["low"])], [100 * (r["high"] - r["share"])]]
        axes.errorbar([100 * r["share"]], [row], xerr=ends, **style)
    axes.set_yticks(range(len(conditions)), [name for name, _ in conditions])
    axes.set(xlabel=f"starts that solve XOR (%), 95 % interval, {content['starts']} starts", xlim=(-2, 102))
    axes.grid(axis="x", alpha=0.3)
    study.save_figure(figure, out, "conditions")

    figure = empty_figure(9, 3.4)
    for axes, (term, shares) in zip(figure.subplots(1, 2, sharey=True), content["together"].items(), strict=True):
        for i, (width, line) in enumerate(zip(WIDTHS, shares, strict=True)):
            intervals = [wilson(np.arange(content["tuning"]) < round(value * content["tuning"])) for value in line]
            low, high = ([100 * interval[end] for interval in intervals] for end in ("low", "high"))
            axes.plot(Z0S, [100 * value for value in line], ".-", color=PALETTE[i], label=f"{width:g}")
            axes.fill_between(Z0S, low, high, color=PALETTE[i], alpha=0.15, lw=0)
        axes.set_xscale("symlog", linthresh=0.25)
        axes.set(xlabel="z0", title=term, ylim=(-2, 102))
    axes.legend(title="surrogate's width", fontsize="small")
    figure.axes[0].set_ylabel(f"starts that solve XOR (%), 95 %\ninterval, {content['tuning']} starts")
    study.save_figure(figure, out, "together")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor")
    parser.add_argument("--tuning", type=int, default=256)
    parser.add_argument("--starts", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args(arguments)
    file = options.out / "xor.json"
    sizes = {"tuning": options.tuning, "starts": options.starts, "steps": options.steps}
    content = study.resume(parser, file, sizes, {"conditions": {}})
    for key, conditions in (("conditions", CONDITIONS), ("tuned_widely", WIDELY)):
        results = content.setdefault(key, {})
        for name, condition in conditions.items():
            if name not in results:
                known = study.known_shares(CONDITIONS[name].settings, content["conditions"].get(name))
                results[name] = run(condition, options, known)
                study.store(file, content, MODULE)
            print(f"{key}, {name:30} {results[name]['share']:.3f}", flush=True)
        content[f"{key}_against_csbp"] = compare_solved(results, "CSBP")
    if "rise" not in content:
        csbp = content["conditions"]["CSBP"]
        content["rise"] = measure_rise(
            Setting(**csbp["setting"]), np.arange(options.starts), csbp["solved"], options.steps
        )
        study.store(file, content, MODULE)
    if "together" not in content:
        content["together"] = together(options)
        study.store(file, content, MODULE)
    draw(content, options.out)
    study.write(options.out, "xor", content, page(content))


if __name__ == "__main__":
    study.run(main)
