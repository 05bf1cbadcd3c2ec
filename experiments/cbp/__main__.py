"""Run the plan of docs/results/cbp/plan.md and write its results beside it.

    python -m experiments.cbp [--out docs/results/cbp] [--tuning 64] [--starts 1024]

Finished work is read from ``cbp.json`` and not repeated.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from csbp_jax.reporting.statistics import holm
from experiments import study
from experiments.cbp import exponents
from experiments.cbp.conditions import CONDITIONS, HELD, INITS, PUBLISHED, TABLE, WIDELY, Condition, solved
from experiments.cbp.net import Setting
from experiments.cbp.pages import draw, page
from experiments.statistics import bits, compare_solved, fisher, wilson
from experiments.study import Content

MODULE = "python -m experiments.cbp"

TUNING_SEEDS = 100_000


def cell(name: tuple[str, str], init: float, starts: int) -> Content:
    """A cell of the published table, and Fisher's p that the published count of 100 differs from ours."""
    ours = solved(Condition(TABLE[name], []), Setting(init=init), np.arange(starts))
    published = PUBLISHED[name][INITS.index(init)]
    return {"published": published, "p": fisher((published, int(ours.sum())), (100, starts)), **wilson(ours)}


def run(condition: Condition, options: argparse.Namespace, known: Mapping[Setting, float]) -> Content:
    """Tune a condition over the four inits together, except for known settings, and test it on fresh starts of each."""
    tuning = TUNING_SEEDS + np.arange(options.tuning)

    def share(setting):
        return float(np.mean([solved(condition, setting._replace(init=init), tuning).mean() for init in INITS]))

    setting, shares = study.tune(condition.settings, known, share)
    tested = {}
    for init in INITS:
        values = solved(condition, setting._replace(init=init), np.arange(options.starts))
        tested[f"{init:g}"] = {**wilson(values), "solved": bits(values)}
    return {"setting": study.changed_fields(setting), "tuning": shares, "inits": tested}


def against(conditions: Mapping[str, Content], reference: str = "CBP") -> Content:
    """``{init: {condition: {difference, half, p, p_holm}}}``."""
    return {
        f"{init:g}": compare_solved({name: r["inits"][f"{init:g}"] for name, r in conditions.items()}, reference)
        for init in INITS
    }


def held_against_sub_steps(results: Mapping[str, Content]) -> Content:
    """Compare CBP with its sub-steps at each strength and init, with Holm's correction over all pairs."""
    pairs = {}
    for z0 in ("z0 12", "z0 24"):
        conditions = {name: result for name, result in results.items() if name.endswith(z0)}
        for init, compared in against(conditions, f"kick in 20 sub-steps, {z0}").items():
            pairs[f"{z0}, n = {init}"] = compared[f"CBP, {z0}"]
    corrected = holm({key: pair["p"] for key, pair in pairs.items()})
    return {key: pair | {"p_holm": corrected[key]} for key, pair in pairs.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "cbp")
    parser.add_argument("--tuning", type=int, default=64)
    parser.add_argument("--starts", type=int, default=1024)
    options = parser.parse_args(arguments)
    file = options.out / "cbp.json"
    sizes = {"tuning": options.tuning, "starts": options.starts}
    content = study.resume(parser, file, sizes, {"table": {}, "conditions": {}})
    for method in TABLE:
        for init in INITS:
            key = f"{' '.join(method)} {init:g}"
            if key not in content["table"]:
                content["table"][key] = cell(method, init, options.starts)
                study.store(file, content, MODULE)
                print(f"{key:20} {content['table'][key]['share']:.3f}", flush=True)
    if "exponents" not in content:
        content["exponents"] = exponents.measure_all()
        study.store(file, content, MODULE)
    for key, conditions in (("conditions", CONDITIONS), ("tuned_widely", WIDELY), ("held", HELD)):
        results = content.setdefault(key, {})
        for name, condition in conditions.items():
            if name not in results:
                before = content["conditions"].get(name)
                known = study.known_shares(CONDITIONS[name].settings, before) if before else {}
                results[name] = run(condition, options, known)
                study.store(file, content, MODULE)
                print(key, name, [f"{r['share']:.3f}" for r in results[name]["inits"].values()], flush=True)
    corrected = holm({key: result["p"] for key, result in content["table"].items()})
    for key, result in content["table"].items():
        result["p_holm"] = corrected[key]
    content |= {
        "against_cbp": against(content["conditions"]),
        "tuned_widely_against_cbp": against(content["tuned_widely"]),
        "held_against_sub_steps": held_against_sub_steps(content["held"]),
    }
    draw(content, options.out)
    study.write(options.out, "cbp", content, page(content))


if __name__ == "__main__":
    study.run(main)
