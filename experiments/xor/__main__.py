"""Runs the plan of docs/results/xor/plan.md and writes its results beside it.

    python -m experiments.xor [--out docs/results/xor] [--tuning 256] [--starts 1024] [--steps 5000]

A finished condition is kept in ``xor.json`` and not run again.
"""

import argparse
import json
import pathlib

import numpy as np

from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_json
from experiments.machine import about
from experiments.shares import compared, points, share
from experiments.xor.conditions import CONDITIONS, WIDELY, Condition, solved
from experiments.xor.net import Kind, Setting

TUNING_SEEDS = 100_000
WIDTHS, Z0S, WIDE_BETA = (0.5, 1.0, 2.0, 3.0, 5.0), (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), 0.999


def run(condition, options, known):
    """Tuned, but for the settings whose shares are known, then tested on fresh starts."""
    tuning = TUNING_SEEDS + np.arange(options.tuning)
    shares = [
        known[s] if s in known else float(solved(condition, s, tuning, options.steps).mean())
        for s in condition.settings
    ]
    setting = condition.settings[int(np.argmax(shares))]
    found = solved(condition, setting, np.arange(options.starts), options.steps)
    told = {name: value for name, value in setting._asdict().items() if value != Setting._field_defaults[name]}
    return {"setting": told, "tuning": shares, **share(found), "solved": "".join("01"[int(one)] for one in found)}


def together(options):
    """The second question: shares over width and z0, ``{term: [widths][z0s]}``."""
    seeds = TUNING_SEEDS + np.arange(options.tuning)

    def one(term, width, z0):
        setting = Setting(z0=z0, beta=WIDE_BETA, width=width)
        return float(solved(Condition(Kind(term=term), []), setting, seeds, options.steps).mean())

    return {term: [[one(term, width, z0) for z0 in Z0S] for width in WIDTHS] for term in ("chaos", "drift")}


def page(content):
    """Both tables in Markdown."""
    return "\n\n".join(table(content, key) for key in ("conditions", "tuned_widely"))


def table(content, key):
    """The conditions, from the best on."""
    rows = [
        "| condition | solved (%), 95 % interval | against CSBP (points) | p, Holm | setting, tuned |",
        "|---|---|---|---|---|",
    ]
    for name, r in sorted(content[key].items(), key=lambda item: -item[1]["share"]):
        against = content[f"{key}_against_csbp"].get(name)
        cells = [f"{100 * r['share']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"]
        cells += [points(against), f"{against['p_holm']:.2g}"] if against else ["", ""]
        cells.append(", ".join(f"{field} {value:.4g}" for field, value in r["setting"].items()))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(content, out):
    """Shares of all conditions; shares over width and z0."""
    conditions = sorted(content["conditions"].items(), key=lambda item: item[1]["share"])
    figure = empty_figure(7, 0.27 * len(conditions) + 1)
    axes = figure.subplots()
    for place, (name, r) in enumerate(conditions):
        style = {"color": PALETTE[1] if name == "CSBP" else PALETTE[0], "fmt": "o", "ms": 4, "lw": 1.5}
        ends = [[100 * (r["share"] - r["low"])], [100 * (r["high"] - r["share"])]]
        axes.errorbar([100 * r["share"]], [place], xerr=ends, **style)
    axes.set_yticks(range(len(conditions)), [name for name, _ in conditions])
    axes.set(xlabel=f"starts that solve XOR (%), 95 % interval, {content['starts']} starts", xlim=(-2, 102))
    axes.grid(axis="x", alpha=0.3)
    _save(figure, out, "conditions")

    figure = empty_figure(9, 3.4)
    for axes, (term, shares) in zip(figure.subplots(1, 2, sharey=True), content["together"].items(), strict=True):
        for i, (width, line) in enumerate(zip(WIDTHS, shares, strict=True)):
            found = [share(np.arange(content["tuning"]) < round(value * content["tuning"])) for value in line]
            low, high = ([100 * one[end] for one in found] for end in ("low", "high"))
            axes.plot(Z0S, [100 * value for value in line], ".-", color=PALETTE[i], label=f"{width:g}")
            axes.fill_between(Z0S, low, high, color=PALETTE[i], alpha=0.15, lw=0)
        axes.set_xscale("symlog", linthresh=0.25)
        axes.set(xlabel="z0", title=term, ylim=(-2, 102))
    axes.legend(title="surrogate's width", fontsize="small")
    figure.axes[0].set_ylabel(f"starts that solve XOR (%), 95 %\ninterval, {content['tuning']} starts")
    _save(figure, out, "together")


def _save(figure, out, name):
    for kind in ("png", "pdf"):
        figure.savefig(out / f"{name}.{kind}", dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/xor"))
    parser.add_argument("--tuning", type=int, default=256)
    parser.add_argument("--starts", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "xor.json"
    sizes = {"tuning": options.tuning, "starts": options.starts, "steps": options.steps}
    content = json.loads(file.read_text()) if file.exists() else {**sizes, "conditions": {}}
    if {name: content[name] for name in sizes} != sizes:
        parser.error(f"{file} was made with other numbers; give another --out")
    for key, conditions in (("conditions", CONDITIONS), ("tuned_widely", WIDELY)):
        results = content.setdefault(key, {})
        for name, condition in conditions.items():
            if name not in results:
                before = content["conditions"].get(name, {"tuning": []})["tuning"]
                known = dict(zip(CONDITIONS[name].settings, before, strict=bool(before)))
                results[name] = run(condition, options, known)
                write_json(file, content)
            print(f"{key}, {name:30} {results[name]['share']:.3f}", flush=True)
        content[f"{key}_against_csbp"] = compared(results, "CSBP")
    content |= {} if "together" in content else {"together": together(options)}
    content |= {
        "command": "python -m experiments.xor",
        **about(),
    }
    write_json(file, content)
    draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
