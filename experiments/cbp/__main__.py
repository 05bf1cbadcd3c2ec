"""Run the plan of docs/results/cbp/published/plan.md and write its results beside it.

    python -m experiments.cbp [--out docs/results/cbp/published] [--tuning 64] [--starts 1024]

Finished runs are in ``runs/cbp`` and not repeated, nor are the exponents in ``cbp.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from csbp_jax import Experiment, RunTable
from experiments import study
from experiments.cbp import exponents
from experiments.cbp.conditions import AFTER, CHUNK, CONDITIONS, INITS, PUBLISHED, STRENGTHS, STRONG, WEAK, Cbp, arm
from experiments.cbp.net import Setting
from experiments.cbp.pages import draw, page
from experiments.statistics import compare_solved, solved_starts, with_holm
from experiments.study import Content
from experiments.xor.tuned import tuning_shares

MODULE = "python -m experiments.cbp"

TUNING_SEEDS = 100_000
RELEASED = 12.0
TABLE: dict[str, dict[str, Any]] = {
    "BP descent": {"condition": "plain backpropagation"},
    "CBP descent": {"condition": "CBP", "z0": RELEASED},
    **{name.replace(",", ""): {"condition": name} for name in AFTER},
}
HELD = {
    f"{name}, z0 {z0:g}": {"condition": name, "z0": z0}
    for z0 in (RELEASED, 24.0)
    for name in ("CBP", "kick in 20 sub-steps")
}
"""Untuned conditions where CBP is chaotic, with and without its overshooting."""


def experiments(tuning: int, starts: int) -> dict[str, Experiment]:
    """The parts of the plan; a condition is tuned over the four inits together."""
    tuned = {
        "conditions": {name: arm(name) for name in CONDITIONS},
        "tuned_widely": {name: arm(name, WEAK + STRENGTHS) for name in STRONG},
    }
    seeds, tuning_seeds = range(starts), range(TUNING_SEEDS, TUNING_SEEDS + tuning)
    return {"untuned": Experiment(Cbp(), TABLE | HELD, seeds=seeds)} | {
        part: Experiment(Cbp(), arms, tuning_seeds=tuning_seeds, seeds=seeds) for part, arms in tuned.items()
    }


def result_of(table: RunTable, name: str) -> Content:
    """The shares of an arm's tries, and its starts at the best of them, init by init."""
    of_arm = table.where(arm=name)
    tests = of_arm.where(role="test").frame
    given = tests.iloc[0].dropna()
    fields = {field: value for field, value in given.items() if field in Setting._fields}
    inits = {f"{init:g}": solved_starts(tests[f"n = {init:g}"]) for init in INITS}
    return {"setting": study.changed_fields(Setting(**fields)), "tuning": tuning_shares(of_arm), "inits": inits}


def published(results: Mapping[str, Content], starts: int) -> Content:
    """The cells of the published table, and Fisher's p that the published count of 100 differs from ours."""
    cells: Content = {}
    for method, counts in PUBLISHED.items():
        for init, count in zip(INITS, counts, strict=True):
            ours = results[method]["inits"][f"{init:g}"]
            solved = ours["solved"].count("1")
            p = float(stats.fisher_exact([[count, 100 - count], [solved, starts - solved]]).pvalue)
            cells[f"{method} {init:g}"] = {"published": count, "p": p, **{k: ours[k] for k in ("share", "low", "high")}}
    return with_holm(cells)


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
    return with_holm(pairs)


def compare(content: Content) -> Content:
    """The differences of the plan."""
    return {
        "against_cbp": against(content["conditions"]),
        "tuned_widely_against_cbp": against(content["tuned_widely"]),
        "held_against_sub_steps": held_against_sub_steps(content["held"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "cbp/published", tuning=64, starts=1024)
    options = parser.parse_args(arguments)
    file = options.out / "cbp.json"
    content = study.resume(parser, file, {"tuning": options.tuning, "starts": options.starts}, {})
    if "exponents" not in content:
        content["exponents"] = exponents.measure_all()
        study.store(file, content, MODULE)
    results: dict[str, Content] = {}
    for part, experiment in experiments(options.tuning, options.starts).items():
        # In one folder, so that parts share their runs.
        table = experiment.run(study.WORK / "cbp", chunk=CHUNK)
        results[part] = {name: result_of(table, name) for name in table.arms}
    untuned = results.pop("untuned")
    content |= {"table": published(untuned, options.starts), "held": {name: untuned[name] for name in HELD}, **results}
    content |= compare(content)
    study.sign(content, study.provenance(MODULE))
    draw(content, options.out)
    study.write(options.out, "cbp", content, page(content))


if __name__ == "__main__":
    study.run(main)
