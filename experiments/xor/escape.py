"""Run the plan of docs/results/xor/escape/plan.md: from where plain training of XOR is stuck.

    python -m experiments.xor.escape [--out docs/results/xor/escape] [--tries 16] [--tuning 256] [--stuck 1024]

Reads the setting of plain backpropagation from docs/results/xor/tuned/tuned.json. Finished runs are in
``runs/xor_escape`` and not repeated.
"""

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import Arm, Experiment
from experiments import study
from experiments.statistics import compare_solved, equivalence_of_shares, points_text, ranked_above, share_text
from experiments.study import Content
from experiments.xor import conditions
from experiments.xor.conditions import CHUNK, FIELDS, PLAIN, Condition, draw_settings, solved, stacked
from experiments.xor.net import Params, Setting, train
from experiments.xor.tuned import result_of, rises

MODULE = "python -m experiments.xor.escape"

SEEDS, MOST, BLOCK, MARGIN = 1_000_000, 20_480, 1024, 0.03
SIZES: dict[str, Any] = {"tries": 16, "tuning": 256, "stuck": 1024, "rises": 512, "steps": 5000}

PRIMARY = ("plain backpropagation", "drift", "10 sub-steps", "random jump")
CONDITIONS = {
    **{name: conditions.CONDITIONS[name] for name in ("CSBP", "plain backpropagation", "drift")},
    "10 sub-steps": conditions.CONDITIONS["chaos term in 10 sub-steps"],
    "random jump": Condition(PLAIN, jump=True),
    **{name: conditions.CONDITIONS[name] for name in ("Gaussian noise", "AR(1) noise")},
}


class Points(NamedTuple):
    """Stuck end points: their seeds ``[N]``, and parameters with a leading axis ``[N]``."""

    seeds: np.ndarray
    params: Params

    def part(self, first: int, last: int) -> "Points":
        """The points from ``first`` to before ``last``."""
        return Points(self.seeds[first:last], jax.tree.map(lambda p: p[first:last], self.params))


def find_stuck(setting: Setting, wanted: int, steps: int, most: int = MOST) -> Points:
    """End points of plain training that do not solve XOR, in the order of their seeds."""
    run = jax.vmap(functools.partial(train, kind=PLAIN, steps=steps), (0, None))
    traced = jax.tree.map(jnp.float32, setting)
    seeds: list[np.ndarray] = []
    points: list[dict[str, np.ndarray]] = []
    for first in range(SEEDS, SEEDS + most, BLOCK):
        tried = first + np.arange(BLOCK)
        solved, params, _ = run(jnp.asarray(tried), traced)
        stuck = np.flatnonzero(~np.asarray(solved))
        seeds.append(tried[stuck])
        points.append({name: np.asarray(tensor)[stuck] for name, tensor in params.items()})
        if sum(len(block) for block in seeds) >= wanted:
            break
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *points)
    return Points(np.concatenate(seeds), together).part(0, wanted)


@dataclasses.dataclass(frozen=True)
class Escape:
    """Training from the stuck points of plain training at a setting; a seed is the number of a point."""

    setting: Setting
    wanted: int
    steps: int

    @functools.cached_property
    def points(self) -> Points:
        return find_stuck(self.setting, self.wanted, self.steps)

    def group(self, fields: Mapping[str, Any]) -> str:
        return str(fields["condition"])

    def train(self, name: str, fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
        at = np.asarray(seeds)
        params = jax.tree.map(lambda leaf: leaf[at], self.points.params)
        starts = jnp.asarray(self.points.seeds[at])
        return {"solved": solved(CONDITIONS[name], params, stacked(Setting, fields), starts, steps=self.steps)}


def compare(results: Content) -> Content:
    """CSBP minus each condition: the primary family and the noises, each with Holm's correction of its own."""
    families = {}
    for family, names in (("primary", PRIMARY), ("noises", [n for n in results if n not in ("CSBP", *PRIMARY)])):
        pairs = compare_solved({name: results[name] for name in ("CSBP", *names)}, "CSBP")
        for pair in pairs.values():
            pair["difference"], pair["more"], pair["less"] = -pair["difference"], pair["less"], pair["more"]
        families[family] = {name: pair | {"equal": equivalence_of_shares(pair, MARGIN)} for name, pair in pairs.items()}
    return families


def verdict(primary: Content) -> str:
    """The plan's verdict from the primary family (CSBP minus a condition)."""
    above = {name: pair["p_holm"] < 0.05 and pair["difference"] > 0 for name, pair in primary.items()}
    equal = {name: pair["equal"]["p"] < 0.05 for name, pair in primary.items()}
    if all(above.values()):
        return "chaos helps to escape"
    if above["plain backpropagation"] and above["random jump"] and equal["drift"] and equal["10 sub-steps"]:
        return "the pull helps to escape"
    return "any displacement does" if equal["random jump"] else "not decided"


def page(content: Content) -> str:
    """A table for each group of stuck points."""
    tables = []
    for group, result in content["groups"].items():
        rows, pairs = [], result["compared"]["primary"] | result["compared"]["noises"]
        for name, condition in result["conditions"].items():
            pair = pairs.get(name)
            cells = ["", "", ""]
            if pair:
                ends = f"{100 * pair['equal']['low']:+.1f} to {100 * pair['equal']['high']:+.1f}"
                cells = [points_text(pair), f"{pair['p_holm']:.2g}", ends]
            setting = ", ".join(f"{field} {value:.3g}" for field, value in condition["setting"].items())
            rows.append([name, share_text(condition), *cells, setting])
        head = [f"{group}: from {result['stuck']} stuck points", "escaped (%)", "CSBP minus it", "p, Holm"]
        tables.append(study.table([*head, "90 % interval", "setting, chosen"], rows))
        area = result["rise"]["escaped_above_stuck"]
        tables.append(
            f"Verdict, {group}: **{result['verdict']}**. {result['stuck_share']:.1%} of the starts were stuck. Rise of "
            f"CSBP's annealed runs: median {np.median(result['rise']['nats']):.2f} nats"
            + (f"; a run that escapes has the larger rise in {share_text(area)} % of pairs." if area else ".")
        )
    return "\n\n".join(tables)


def run_group(group: str, setting: Setting, options: argparse.Namespace) -> Content:
    """Find the stuck points of a group, tune and test every condition from them."""
    base = Escape(setting, options.tuning + options.stuck, options.steps)
    count, last = len(base.points.seeds), int(base.points.seeds[-1])
    settings = draw_settings(options.tries, seed=1, most_shift=0.0)
    planned = Experiment(
        base,
        {name: Arm({"condition": name}) for name in CONDITIONS},
        tuned=[{field: getattr(tried, field) for field in FIELDS} for tried in settings],
        tuning_seeds=range(options.tuning),
        seeds=range(options.tuning, count),
    )
    table = planned.run(study.WORK / "xor_escape" / group, chunk=CHUNK)
    result: Content = {"conditions": {name: result_of(table, name, of, settings) for name, of in CONDITIONS.items()}}
    result |= {"setting": study.changed_fields(setting), "stuck": count - options.tuning}
    result["stuck_share"] = count / (last - SEEDS + 1)
    csbp = result["conditions"]["CSBP"]
    first = base.points.part(options.tuning, options.tuning + options.rises)
    nats = rises(settings[int(np.argmax(csbp["tuning"]))], first.params, options.steps)
    success = np.array([bit == "1" for bit in csbp["solved"][: len(nats)]])
    result["rise"] = {"nats": nats, "escaped_above_stuck": ranked_above(np.array(nats), success)}
    result["compared"] = compare(result["conditions"])
    return result | {"verdict": verdict(result["compared"]["primary"])}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor/escape", **SIZES)
    options = parser.parse_args(arguments)
    earlier = study.read(parser, study.RESULTS / "xor" / "tuned" / "tuned.json", "python -m experiments.xor.tuned")
    content: Content = {name: getattr(options, name) for name in SIZES}
    tuned = Setting(**earlier["conditions"]["plain backpropagation"]["setting"])
    content["groups"] = {
        group: run_group(group, setting, options) for group, setting in (("tuned", tuned), ("untuned", Setting()))
    }
    study.sign(content, study.provenance(MODULE))
    study.write(options.out, "escape", content, page(content))


if __name__ == "__main__":
    study.run(main)
