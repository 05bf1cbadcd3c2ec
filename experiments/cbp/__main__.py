"""Runs the plan of docs/results/cbp/plan.md and writes its results beside it.

    python -m experiments.cbp [--out docs/results/cbp] [--tuning 64] [--starts 1024]

What is finished is kept in ``cbp.json`` and not run again.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy import stats

from csbp_jax.runtime.files import write_json
from experiments.cbp import exponents
from experiments.cbp.conditions import CONDITIONS, HELD, INITS, PUBLISHED, TABLE, WIDELY, Condition, solved
from experiments.cbp.net import Setting
from experiments.cbp.pages import draw, page
from experiments.machine import about
from experiments.shares import compared, holm, share

TUNING_SEEDS = 100_000


def cell(name, init, starts):
    """A cell of their table, and whether the published count of 100 agrees with it."""
    found = solved(Condition(TABLE[name], []), Setting(init=init), np.arange(starts))
    theirs, mine = PUBLISHED[name][INITS.index(init)], int(found.sum())
    p = stats.fisher_exact([[theirs, 100 - theirs], [mine, starts - mine]]).pvalue
    return {"published": theirs, "p": float(p), **share(found)}


def run(condition, options, known):
    """Tuned over the four inits together, but for what is known, then tested on fresh starts of each."""
    tuning = TUNING_SEEDS + np.arange(options.tuning)

    def tried(s):
        return float(np.mean([solved(condition, s._replace(init=init), tuning).mean() for init in INITS]))

    shares = [known[s] if s in known else tried(s) for s in condition.settings]
    setting = condition.settings[int(np.argmax(shares))]
    told = {name: value for name, value in setting._asdict().items() if value != Setting._field_defaults[name]}
    tested = {}
    for init in INITS:
        found = solved(condition, setting._replace(init=init), np.arange(options.starts))
        tested[f"{init:g}"] = {**share(found), "solved": "".join("01"[int(one)] for one in found)}
    return {"setting": told, "tuning": shares, "inits": tested}


def against(conditions, reference="CBP"):
    """``{init: {condition: difference, p, p_holm}}``."""
    return {
        f"{init:g}": compared({name: r["inits"][f"{init:g}"] for name, r in conditions.items()}, reference)
        for init in INITS
    }


def held_against_sub_steps(results):
    """At each strength, and for each start's width, CBP against its sub-steps."""
    found = {}
    for z0 in ("z0 12", "z0 24"):
        pair = {name: r for name, r in results.items() if name.endswith(z0)}
        tested = against(pair, f"kick in 20 sub-steps, {z0}")
        found |= {(z0, init): {**one[f"CBP, {z0}"]} for init, one in tested.items()}
    corrected = holm({key: one["p"] for key, one in found.items()})
    return {f"{z0}, n = {init}": one | {"p_holm": corrected[z0, init]} for (z0, init), one in found.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/cbp"))
    parser.add_argument("--tuning", type=int, default=64)
    parser.add_argument("--starts", type=int, default=1024)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "cbp.json"
    sizes = {"tuning": options.tuning, "starts": options.starts}
    content = json.loads(file.read_text()) if file.exists() else {**sizes, "table": {}, "conditions": {}}
    if {name: content[name] for name in sizes} != sizes:
        parser.error(f"{file} was made with other numbers; give another --out")
    for name in TABLE:
        for init in INITS:
            key = f"{' '.join(name)} {init:g}"
            if key not in content["table"]:
                content["table"][key] = cell(name, init, options.starts)
                write_json(file, content)
                print(f"{key:20} {content['table'][key]['share']:.3f}", flush=True)
    if "exponents" not in content:
        content["exponents"] = exponents.measured()
        write_json(file, content)
    for key, conditions in (("conditions", CONDITIONS), ("tuned_widely", WIDELY), ("held", HELD)):
        results = content.setdefault(key, {})
        for name, condition in conditions.items():
            if name not in results:
                before = content["conditions"].get(name, {"tuning": []})["tuning"]
                known = dict(zip(CONDITIONS[name].settings, before, strict=True)) if before else {}
                results[name] = run(condition, options, known)
                write_json(file, content)
                print(key, name, [f"{r['share']:.3f}" for r in results[name]["inits"].values()], flush=True)
    corrected = holm({key: found["p"] for key, found in content["table"].items()})
    for key, found in content["table"].items():
        found["p_holm"] = corrected[key]
    content |= {
        "command": "python -m experiments.cbp",
        "against_cbp": against(content["conditions"]),
        "tuned_widely_against_cbp": against(content["tuned_widely"]),
        "held_against_sub_steps": held_against_sub_steps(content["held"]),
        **about(),
    }
    write_json(file, content)
    draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
