"""Run the plan of docs/results/xor/tuned/plan.md: XOR with every condition tuned over the same joint space.

    python -m experiments.xor.tuned [--out docs/results/xor/tuned] [--tries 24] [--tuning 1024] [--starts 4096]

Finished runs are in ``runs/xor_tuned`` and not repeated. ``--secondary NAME ...`` runs only these of the secondary
conditions.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import Experiment, RunTable, chaos, dynamics
from experiments import study
from experiments.statistics import (
    compare_solved,
    equivalence_of_shares,
    points_text,
    ranked_above,
    share_text,
    solved_starts,
)
from experiments.study import Content
from experiments.xor.conditions import (
    CHUNK,
    CONDITIONS,
    NOISES,
    PLAIN,
    Condition,
    Xor,
    arms,
    draw_setting,
    draw_settings,
)
from experiments.xor.net import Kind, Params, Setting, start, task_loss, term_gradient

MODULE = "python -m experiments.xor.tuned"

CSBP = Kind()
TUNING_SEEDS, TEST_SEEDS = 200_000, 600_000
PRIMARY = {"drift": 0.01, "chaos term in 10 sub-steps": 0.01, "plain backpropagation": 0.02}
"""Conditions of the primary family, with the margins of their equivalence to CSBP."""
SIZES: dict[str, Any] = {"tries": 24, "tuning": 1024, "starts": 4096, "rises": 1024, "steps": 5000}


def experiment(
    names: Iterable[str], steps: int, tries: int, tuning: Sequence[int], test: Sequence[int], draws: int = 1
) -> Experiment:
    """The conditions, each tuned over the same settings on some starts and tested on others; a draw has its own."""
    return Experiment(
        Xor(steps), arms(names), tuned=draw_setting, tries=tries, draws=draws, tuning_seeds=tuning, seeds=test
    )


def tuning_shares(table: RunTable) -> list[float]:
    """The share of tuning starts that each try of an arm solves."""
    return table.where(role="tune").frame.groupby("try")["solved"].mean().tolist()


def annealed_step(setting: Setting, kind: Kind, state: tuple[Params, jax.Array], _: Any) -> tuple[Params, jax.Array]:
    """A step of training without a force, as a map of ``(params, number of the step)``."""
    params, n = state
    gradient, _ = jax.grad(task_loss, has_aux=True)(params, setting)
    z = chaos.strength(n, setting.z0, setting.beta)
    pushed = term_gradient(params, setting, kind, z, setting.lr)
    return jax.tree.map(lambda p, g, c: p - setting.lr * (g + c), params, gradient, pushed), n + 1


def rises(setting: Setting, params: Params, steps: int, kind: Kind = CSBP) -> list[float]:
    """Largest rise of the cumulated local exponents of the annealed run, for each of many nets, in nats."""
    states = (params, jnp.zeros(len(params["b2"]), int))
    step = functools.partial(annealed_step, setting, kind)
    return dynamics.annealed_rises(step, states, [None] * steps).tolist()


def measure_rise(setting: Setting, seeds: np.ndarray, solved: str, steps: int) -> Content:
    """Rises of CSBP's annealed runs, and whether starts that are solved (as bits) have larger ones."""
    nats = rises(setting, jax.vmap(lambda seed: start(seed, setting))(jnp.asarray(seeds)), steps)
    success = np.array([bit == "1" for bit in solved[: len(seeds)]])
    return {"nats": nats, "solved_above_unsolved": ranked_above(np.array(nats), success)}


def rise_text(rise: Content) -> str:
    """The rises in a sentence or two."""
    nats, area = rise["nats"], rise["solved_above_unsolved"]
    return (
        f"Rise of CSBP's annealed run, {len(nats)} starts: median {np.median(nats):.2f} nats, "
        f"95 % quantile {np.quantile(nats, 0.95):.2f}. "
        + (f"A solved start has the larger rise in {share_text(area)} % of pairs." if area else "")
    )


def compare(results: Content) -> Content:
    """Both families against CSBP, the noises against plain backpropagation (not in the plan), and the verdict."""
    primary = compare_solved({name: results[name] for name in ("CSBP", *PRIMARY)}, "CSBP")
    primary = {
        name: pair | equivalence_of_shares(pair, PRIMARY[name]) | {"p": pair["p"]} for name, pair in primary.items()
    }
    secondary = compare_solved({name: r for name, r in results.items() if name not in PRIMARY}, "CSBP")
    plain = "plain backpropagation"
    noises = compare_solved({name: results[name] for name in (plain, *NOISES) if name in results}, plain)
    return {"primary": primary, "secondary": secondary, "noises": noises, "verdict": verdict(primary)}


def verdict(primary: Content) -> str:
    """The plan's verdict from the primary family, whose differences are a condition minus CSBP."""
    below = {name: pair["p_holm"] < 0.05 and pair["difference"] < 0 for name, pair in primary.items()}
    equal = {name: max(abs(pair["low"]), abs(pair["high"])) < pair["margin"] for name, pair in primary.items()}
    plain, controls = "plain backpropagation", [name for name in PRIMARY if name != "plain backpropagation"]
    if below[plain] and all(below[name] for name in controls):
        return "chaos helps"
    if below[plain] and all(equal[name] for name in controls):
        return "the pull helps"
    if equal[plain]:
        return "nothing"
    return "the term helps; whether by chaos is not decided" if below[plain] else "not decided"


def page(content: Content) -> str:
    """The table of conditions, from the best on, and the lines of the primary family."""
    rows = []
    against = content["secondary"] | content["primary"]
    for name, result in sorted(content["conditions"].items(), key=lambda item: -item[1]["share"]):
        pair = against.get(name)
        cells = [points_text(pair), f"{pair['p_holm']:.2g}"] if pair else ["", ""]
        setting = ", ".join(f"{field} {value:.3g}" for field, value in result["setting"].items())
        rows.append([name, share_text(result), f"{100 * max(result['tuning']):.1f}", *cells, setting])
    head = ["condition", "solved (%), 95 % interval", "best try (%)", "minus CSBP (points)", "p, Holm"]
    equivalent = [
        [
            name,
            f"{100 * pair['low']:+.2f} to {100 * pair['high']:+.2f}",
            f"{100 * pair['margin']:g}",
            "yes" if max(abs(pair["low"]), abs(pair["high"])) < pair["margin"] else "not shown",
        ]
        for name, pair in content["primary"].items()
    ]
    noises = [[name, points_text(pair), f"{pair['p_holm']:.2g}"] for name, pair in content["noises"].items()]
    return "\n\n".join(
        [
            study.table([*head, "setting, chosen"], rows),
            study.table(["minus CSBP", "90 % interval (points)", "margin", "equal within it"], equivalent),
            study.table(["not planned", "minus plain backpropagation (points)", "p, Holm"], noises),
            f"Verdict of the plan: **{content['verdict']}**.",
            rise_text(content["rise"]),
        ]
    )


def result_of(table: RunTable, name: str, condition: Condition, settings: Sequence[Setting]) -> Content:
    """The shares of an arm's tries ``settings``, and its starts at the best of them."""
    of_arm = table.where(arm=name)
    tests = of_arm.where(role="test").frame
    setting = settings[int(tests["try"].iloc[0])]
    shown = study.changed_fields(setting._replace(z0=setting.z0 * setting.lr) if condition.kind.cbp else setting)
    if condition.kind == PLAIN and not condition.jump:
        shown = {field: value for field, value in shown.items() if field not in ("z0", "beta")}
    return {"tuning": tuning_shares(of_arm), "setting": shown, **solved_starts(tests["solved"])}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor/tuned", **SIZES)
    parser.add_argument("--secondary", nargs="*", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME")
    options = parser.parse_args(arguments)
    sizes = {name: getattr(options, name) for name in SIZES}
    tuning, test = TUNING_SEEDS + np.arange(options.tuning), TEST_SEEDS + np.arange(options.starts)
    names = dict.fromkeys(("CSBP", *PRIMARY, *options.secondary))
    planned = experiment(names, options.steps, options.tries, tuning.tolist(), test.tolist())
    table = planned.run(study.WORK / "xor_tuned", chunk=CHUNK)
    settings = draw_settings(options.tries)
    content = sizes | {"conditions": {name: result_of(table, name, CONDITIONS[name], settings) for name in names}}
    csbp = content["conditions"]["CSBP"]
    setting = settings[int(np.argmax(csbp["tuning"]))]
    content["rise"] = measure_rise(setting, test[: options.rises], csbp["solved"], options.steps)
    study.sign(content, study.provenance(MODULE))
    content |= compare(content["conditions"])
    study.write(options.out, "tuned", content, page(content))


if __name__ == "__main__":
    study.run(main)
