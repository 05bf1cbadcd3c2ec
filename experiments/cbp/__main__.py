"""Runs the plan of docs/results/cbp/plan.md and writes its results beside it.

    python -m experiments.cbp [--out docs/results/cbp] [--tuning 64] [--starts 1024]

What is finished is kept in ``cbp.json`` and not run again.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy import stats

from csbp_jax.run_folder import write_json
from experiments.cbp import exponents
from experiments.cbp.conditions import CONDITIONS, INITS, PUBLISHED, TABLE, Condition, solved
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


def run(condition, options):
    """Tuned over the four inits together, then tested on fresh starts of each."""
    tuning = TUNING_SEEDS + np.arange(options.tuning)
    shares = [
        float(np.mean([solved(condition, s._replace(init=init), tuning).mean() for init in INITS]))
        for s in condition.settings
    ]
    setting = condition.settings[int(np.argmax(shares))]
    told = {name: value for name, value in setting._asdict().items() if value != Setting._field_defaults[name]}
    tested = {}
    for init in INITS:
        found = solved(condition, setting._replace(init=init), np.arange(options.starts))
        tested[f"{init:g}"] = {**share(found), "solved": "".join("01"[int(one)] for one in found)}
    return {"setting": told, "tuning": shares, "inits": tested}


def against_cbp(conditions):
    """``{init: {condition: difference, p, p_holm}}``."""
    return {
        f"{init:g}": compared({name: r["inits"][f"{init:g}"] for name, r in conditions.items()}, "CBP")
        for init in INITS
    }


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
    for name, condition in CONDITIONS.items():
        if name not in content["conditions"]:
            content["conditions"][name] = run(condition, options)
            write_json(file, content)
            print(name, [f"{r['share']:.3f}" for r in content["conditions"][name]["inits"].values()], flush=True)
    corrected = holm({key: found["p"] for key, found in content["table"].items()})
    for key, found in content["table"].items():
        found["p_holm"] = corrected[key]
    content |= {
        "command": "python -m experiments.cbp",
        "against_cbp": against_cbp(content["conditions"]),
        **about(),
    }
    write_json(file, content)
    draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
