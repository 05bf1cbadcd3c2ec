"""Measure how far annealed runs of the primary conditions of docs/results/xor/tuned expand, at their chosen settings.

Also, how near CSBP's term comes to overshooting there: controls that do not overshoot say something about chaos only as
far as CSBP does.

    python -m experiments.xor.rises [--out docs/results/xor/tuned] [--starts 256]

Reads ``tuned.json``, and writes ``rises.json`` and ``rises.md``. It was not in the plan of that study. Finished
conditions are not repeated.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from csbp_jax.instruments.classify import RISE
from experiments import study
from experiments.statistics import EACH_SIDE, ranked_text
from experiments.study import Content
from experiments.xor.conditions import CONDITIONS, draw_settings
from experiments.xor.net import Kind, Params, Setting, start, term_loss, train
from experiments.xor.tuned import PRIMARY_FIRST, TEST_SEEDS, measure_rise

MODULE = "python -m experiments.xor.rises"


@jax.jit
def _jacobians(params: Params, setting: Setting) -> jax.Array:
    """Jacobians of the gradient of the term for z = 1, one of each net."""
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], params))[1]

    def gradient(flat: jax.Array) -> jax.Array:
        return ravel_pytree(jax.grad(term_loss)(unravel(flat), setting, "chaos"))[0]

    return jax.vmap(lambda net: jax.jacfwd(gradient)(ravel_pytree(net)[0]))(params)


def flip_ratios(setting: Setting, params: Params) -> NDArray[np.float64]:
    """Flip ratio of the term alone at z0, for each of many nets: above 1, a step of descent on the term overshoots.

    ``lr z0 max Re eig(J) / 2`` with J the Jacobian of the term's gradient, as in ``dynamics.flip_ratio``.
    """
    jacobians = np.asarray(_jacobians(params, jax.tree.map(jnp.float32, setting)), float)
    values: NDArray[np.float64] = setting.lr * setting.z0 * np.linalg.eigvals(jacobians).real.max(axis=1) / 2
    return values


def measure_flips(settings: Sequence[Setting], chosen: Setting, seeds: NDArray[Any], steps: int) -> Content:
    """Flip ratios of the term, of CSBP's chosen setting and of all that were tried.

    Returns:
      ``{start: [starts], end: [starts], tries: [settings]}``; end: trained, but z at z0; tries: medians at the start.
    """
    at = jnp.asarray(seeds)
    traced = jax.tree.map(jnp.float32, chosen)
    ends = jax.vmap(lambda seed: train(seed, traced, kind=Kind(), steps=steps)[1])(at)
    starts = [flip_ratios(s, jax.vmap(lambda seed, s=s: start(seed, s))(at)) for s in (chosen, *settings)]
    return {
        "start": [round(float(ratio), 4) for ratio in starts[0]],
        "end": [round(float(ratio), 4) for ratio in flip_ratios(chosen, ends)],
        "tries": [round(float(np.median(ratios)), 4) for ratios in starts[1:]],
    }


def flips_text(flips: Content) -> str:
    """The flip ratios in a paragraph."""
    start, end = (
        f"{np.median(flips[at]):.3f} ({min(flips[at]):.3f} to {max(flips[at]):.3f})" for at in ("start", "end")
    )
    above = sum(ratio > 1 for ratio in flips["tries"])
    return (
        f"Flip ratio of CSBP's term alone at its chosen setting, 1 where it begins to overshoot: {start} at the first "
        f"step, {end} with the weights at the end and z still at z0; medians, and ranges over {len(flips['start'])} "
        f"starts. Of the {len(flips['tries'])} settings that were tried, {above} is above 1 at the first step (median)."
    )


def page(content: Content, tuned: Content) -> str:
    """A row a condition: median and quartiles of its rises, and whether solved starts have the larger ones.

    Args:
      tuned: the content of ``tuned.json``, for the starts that are solved.
    """
    rows = []
    for name, rise in content["conditions"].items():
        low, median, high = np.quantile(rise["nats"], (0.25, 0.5, 0.75))
        expanding = f"{100 * np.mean(np.array(rise['nats']) >= RISE):.0f}"
        above = rise["solved_above_unsolved"]
        solved = tuned["conditions"][name]["solved"][: content["starts"]]
        ranked = ranked_text(above, (solved.count("1"), solved.count("0"))) if above else ""
        rows.append([name, f"{median:.1f} ({low:.1f} to {high:.1f})", expanding, ranked])
    head = ["condition", "rise (nats), median (quartiles)", f"{RISE:g} nats or more (%)"]
    return f"""# XOR with equal tuning: rises of the annealed runs

The largest growth of a small difference along the annealed run
([rise](../../../lab.md#rise-of-the-run-that-is-trained)), of {content["starts"]} of the fresh starts, each condition at
its chosen setting. Not in the [plan](plan.md). Made by `python -m experiments.xor.rises`; `rises.json` holds all rises,
the versions and the machine.

In the last column, n is the number of solved or of unsolved starts, whichever is smaller, where it is below
{EACH_SIDE}: a bootstrap of so few does not show their spread, so there is no interval.

{flips_text(content["flip ratios"])}

{study.table([*head, "a solved start has the larger rise (%)"], rows)}"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor/tuned")
    parser.add_argument("--starts", type=int, default=256)
    options = parser.parse_args(arguments)
    tuned = study.read(parser, options.out / "tuned.json", "python -m experiments.xor.tuned")
    file = options.out / "rises.json"
    content = study.resume(parser, file, {"starts": options.starts, "steps": tuned["steps"]}, {"conditions": {}})
    settings, seeds = draw_settings(tuned["tries"]), TEST_SEEDS + np.arange(options.starts)
    for name in PRIMARY_FIRST:
        if name not in content["conditions"]:
            result, kind = tuned["conditions"][name], CONDITIONS[name].kind
            setting = settings[int(np.argmax(result["tuning"]))]
            setting = setting._replace(z0=0.0) if kind.alone else setting
            rise = measure_rise(setting, seeds, result["solved"], tuned["steps"], kind._replace(alone=False))
            content["conditions"][name] = rise | {"nats": [round(nats, 4) for nats in rise["nats"]]}
            study.store(file, content, MODULE)
            print(f"{name:30} {np.median(rise['nats']):.2f} nats", flush=True)
    if "flip ratios" not in content:
        chosen = settings[int(np.argmax(tuned["conditions"]["CSBP"]["tuning"]))]
        content["flip ratios"] = measure_flips(settings, chosen, seeds, tuned["steps"])
        study.store(file, content, MODULE)
    (options.out / "rises.md").write_text(page(content, tuned) + "\n")


if __name__ == "__main__":
    study.run(main)
