"""Run the plan of docs/results/xor_escape/plan.md: from where plain training of XOR is stuck.

    python -m experiments.xor.escape [--out docs/results/xor_escape] [--tries 16] [--tuning 256] [--stuck 1024]

Reads the setting of plain backpropagation from docs/results/xor_tuned/tuned.json. Finished conditions are read from
``escape.json`` and not repeated.
"""

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import controls
from experiments import forcing, study
from experiments.statistics import (
    bits,
    compare_solved,
    equivalence_of_shares,
    points_text,
    ranked_above,
    share_text,
    wilson,
)
from experiments.study import Content
from experiments.xor.net import Kind, Params, Setting, train, train_from
from experiments.xor.tuned import draw_settings, rises

MODULE = "python -m experiments.xor.escape"

SEEDS, MOST, BLOCK, MARGIN = 1_000_000, 20_480, 1024, 0.03
UNTUNED = Setting()


class Condition(NamedTuple):
    """A kind, how its force is made of the paired CSBP run's record, and whether a random jump precedes it."""

    kind: Kind
    forced: str | None = None
    jump: bool = False


PLAIN = Kind(alone=True)
CONDITIONS = {
    "CSBP": Condition(Kind()),
    "plain backpropagation": Condition(PLAIN),
    "drift": Condition(Kind(term="drift")),
    "10 sub-steps": Condition(Kind(substeps=10)),
    "random jump": Condition(PLAIN, jump=True),
    "Gaussian noise": Condition(Kind(force=controls.gaussian(), alone=True), "rms"),
    "AR(1) noise": Condition(Kind(force=controls.ar1(0.9), alone=True), "rms"),
}
PRIMARY = ("plain backpropagation", "drift", "10 sub-steps", "random jump")


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


def jumped(params: Params, end: Params, seed: jax.Array) -> Params:
    """The parameters after a random jump, in each tensor as far as ``end`` is from them."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), len(params))

    def jump(key: jax.Array, name: str) -> jax.Array:
        direction = jax.random.normal(key, params[name].shape)
        length = jnp.linalg.norm(end[name] - params[name])
        return params[name] + length * direction / jnp.linalg.norm(direction)

    return {name: jump(key, name) for key, name in zip(keys, sorted(params), strict=True)}


def escaped(condition: Condition, setting: Setting, points: Points, steps: int) -> np.ndarray:
    """Whether each point is left for a solution, ``[points]``."""
    seeds, traced = jnp.asarray(points.seeds), jax.tree.map(jnp.float32, setting)
    z = traced.z0 * traced.beta ** jnp.arange(steps)

    def run(params: Params, seed: jax.Array) -> jax.Array:
        force = None
        if condition.forced or condition.jump:
            _, end, record = train_from(params, seed, traced, kind=Kind(), steps=steps, record=True)
            force = forcing.from_record(condition.forced, seed, z, record) if condition.forced else None
            params = jumped(params, end, seed) if condition.jump else params
        return train_from(params, seed, traced, force, kind=condition.kind, steps=steps)[0]

    return np.asarray(jax.jit(jax.vmap(run))(points.params, seeds))


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


def run_group(group: str, setting: Setting, content: Content, options: argparse.Namespace, file: pathlib.Path) -> None:
    """Find the stuck points of a group, tune and test every condition from them."""
    result = content["groups"].setdefault(group, {"conditions": {}})
    points = find_stuck(setting, options.tuning + options.stuck, options.steps)
    tried = int(points.seeds[-1]) - SEEDS + 1
    tuning, test = points.part(0, options.tuning), points.part(options.tuning, len(points.seeds))
    result |= {"setting": study.changed_fields(setting), "stuck": len(test.seeds)}
    result["stuck_share"] = len(points.seeds) / tried
    settings = draw_settings(options.tries, seed=1, most_shift=0.0)
    for name, condition in CONDITIONS.items():
        if name not in result["conditions"]:
            shares = [float(escaped(condition, s, tuning, options.steps).mean()) for s in settings]
            chosen = settings[int(np.argmax(shares))]
            values = escaped(condition, chosen, test, options.steps)
            shown = study.changed_fields(chosen)
            if condition.kind == PLAIN and not condition.jump:
                shown = {field: value for field, value in shown.items() if field not in ("z0", "beta")}
            result["conditions"][name] = {"setting": shown, "tuning": shares, **wilson(values), "solved": bits(values)}
            study.store(file, content, MODULE)
        print(f"{group}, {name:24} {result['conditions'][name]['share']:.3f}", flush=True)
    if "rise" not in result:
        csbp = result["conditions"]["CSBP"]
        first = test.part(0, options.rises)
        nats = rises(settings[int(np.argmax(csbp["tuning"]))], first.params, options.steps)
        success = np.array([bit == "1" for bit in csbp["solved"][: len(nats)]])
        result["rise"] = {"nats": nats, "escaped_above_stuck": ranked_above(np.array(nats), success)}
        study.store(file, content, MODULE)
    result["compared"] = compare(result["conditions"])
    result["verdict"] = verdict(result["compared"]["primary"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor_escape")
    sizes = (("tries", 16), ("tuning", 256), ("stuck", 1024), ("rises", 512), ("steps", 5000))
    for name, size in sizes:
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--tuned", type=pathlib.Path, default=study.RESULTS / "xor_tuned" / "tuned.json")
    options = parser.parse_args(arguments)
    earlier = study.read(parser, options.tuned, "python -m experiments.xor.tuned")
    file = options.out / "escape.json"
    content = study.resume(parser, file, {name: getattr(options, name) for name, _ in sizes}, {"groups": {}})
    tuned = Setting(**earlier["conditions"]["plain backpropagation"]["setting"])
    for group, setting in (("tuned", tuned), ("untuned", UNTUNED)):
        run_group(group, setting, content, options, file)
    study.write(options.out, "escape", content, page(content))


if __name__ == "__main__":
    study.run(main)
