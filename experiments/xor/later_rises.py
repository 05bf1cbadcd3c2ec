"""Measure how far annealed runs expand in two studies of XOR without this measure: phases, and basins.

    python -m experiments.xor.later_rises [--out docs/results] [--starts 128]

Writes ``rises.json`` and ``rises.md`` beside the results of ``xor_phase`` and ``basins``, whose plans do not have it.
Finished targets and conditions are not repeated.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import dynamics
from csbp_jax.instruments.classify import RISE
from experiments import basins, study
from experiments.statistics import EACH_SIDE, ranked_above, ranked_text
from experiments.study import Content
from experiments.xor.maps import TERMS
from experiments.xor.net import Kind, Params, Setting, start, train
from experiments.xor.phase import LR
from experiments.xor.tuned import annealed_step

COMMAND, STEPS = "python -m experiments.xor.later_rises", 5000
TARGETS, STRENGTHS = (0.65, 0.85), (0.25, 0.5, 1.0, 2.0, 8.0, 32.0)
BASINS = ("plain", "CSBP", "drift")


State = tuple[Params, Setting, jax.Array]
"""Parameters, hyperparameters and number of the step."""


def step(kind: Kind, state: State, batch: None) -> State:
    """A step of the annealed run, as a map of :data:`State`, so that runs of many settings are one program."""
    params, setting, n = state
    params, n = annealed_step(setting, kind, (params, n), batch)
    return params, setting, n


STEP = {term: functools.partial(step, Kind(term=term)) for term in TERMS}


def rises(term: str, params: Params, settings: Setting) -> NDArray[Any]:
    """Rises of the annealed runs of many starts, each with its own setting, in nats."""
    leaves = (dict.fromkeys(params, True), Setting(*(False,) * len(Setting._fields)), False)
    states = (params, settings, jnp.zeros(len(settings.z0), int))
    return dynamics.annealed_rises(STEP[term], states, [None] * STEPS, dynamical_leaves=leaves)


def stacked(z0: NDArray[Any], target: float = 0.65) -> Setting:
    """Settings that differ in their strength alone."""
    fields = Setting(z0=z0, lr=LR, target=target)
    return jax.tree.map(lambda value: jnp.broadcast_to(jnp.float32(value), z0.shape), fields)


def cell(nats: NDArray[Any], solved: NDArray[Any]) -> Content:
    """The rises of the runs that did not run away, and whether solved starts have the larger ones."""
    finite = np.isfinite(nats)
    return {
        "nats": nats[finite].round(4).tolist(),
        "ran_away": int((~finite).sum()),
        "solved": float(solved.mean()),
        "solved_above_unsolved": ranked_above(nats[finite], solved[finite]),
    }


def phase(term: str, target: float, starts: int) -> dict[str, Content]:
    """All strengths at a target of the plane, from the first of the starts of its shares."""
    seeds = jnp.tile(jnp.arange(starts), len(STRENGTHS))
    settings = stacked(np.repeat(STRENGTHS, starts) / LR, target)
    solved = jax.vmap(functools.partial(train, kind=Kind(term=term), steps=STEPS))(seeds, settings)[0]
    nats = rises(term, jax.vmap(start)(seeds, settings), settings)
    cells = zip(np.split(nats, len(STRENGTHS)), np.split(np.asarray(solved), len(STRENGTHS)), strict=True)
    return {f"{strength:g}": cell(*of_cell) for strength, of_cell in zip(STRENGTHS, cells, strict=True)}


def basin(name: str) -> Content:
    """A condition of the basins: the starts of its check, whose labels are stored."""
    condition = basins.CONDITIONS[name]
    with np.load(study.RESULTS / "basins" / f"{basins.file_stem(name)}.npz") as stored:
        solved, points = stored["checked"].ravel() == basins.XOR, len(stored["labels"])
    axis = np.linspace(-basins.SPAN, basins.SPAN, points, dtype=np.float32)[:: points // basins.CHECKED]
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    params = jax.vmap(basins.plane())(jnp.asarray(grid))
    return cell(rises(condition.kind.term, params, stacked(np.full(len(grid), condition.z0))), solved)


def row(cells: Iterable[str], result: Content) -> list[str]:
    """A row of the table: median and quartiles of the rises, the share above the bound, and the shares of success."""
    above, measured = result["solved_above_unsolved"], ["", ""]
    # Starts that are solved do not run away.
    solved = round(result["solved"] * (len(result["nats"]) + result["ran_away"]))
    if result["nats"]:
        low, median, high = np.quantile(result["nats"], (0.25, 0.5, 0.75))
        measured = [f"{median:.1f} ({low:.1f} to {high:.1f})", f"{100 * np.mean(np.array(result['nats']) >= RISE):.0f}"]
    return [
        *cells,
        *measured,
        str(result["ran_away"]),
        f"{100 * result['solved']:.0f}",
        ranked_text(above, (solved, len(result["nats"]) - solved)) if above else "",
    ]


HEAD = [
    "rise (nats), median (quartiles)",
    f"{RISE:g} nats or more (%)",
    "runs away",
    "solved (%)",
    "a solved start has the larger rise (%)",
]


def page(title: str, head: list[str], results: Content) -> str:
    """A page of rises, a row a cell or condition; a cell's name is its values, divided by ``|``."""
    return f"""# {title}: rises of the annealed runs

The largest growth of a small difference along the annealed run ([rise](../../lab.md#rise-of-the-run-that-is-trained)).
Not in the [plan](plan.md). Made by `{COMMAND}`; `rises.json` holds all rises, the versions and
the machine.

In the last column, n is the number of solved or of unsolved starts, whichever is smaller, where it is below
{EACH_SIDE}: a bootstrap of so few does not show their spread, so there is no interval.

{study.table([*head, *HEAD], [row(name.split(" | "), result) for name, result in results.items()])}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, ".")
    parser.add_argument("--starts", type=int, default=128)
    options = parser.parse_args(arguments)
    file = options.out / "xor_phase" / "rises.json"
    content = study.resume(parser, file, {"starts": options.starts}, {"cells": {}})
    for term, target in itertools.product(TERMS, TARGETS):
        if not any(name.startswith(f"{term} | {target:g} | ") for name in content["cells"]):
            cells = phase(term, target, options.starts)
            content["cells"] |= {f"{term} | {target:g} | {strength}": result for strength, result in cells.items()}
            study.store(file, content, COMMAND)
            print(f"{term}, I0 = {target:g}", flush=True)
    file.with_name("rises.md").write_text(page("Phases of XOR", ["term", "I0", "a"], content["cells"]))
    file = options.out / "basins" / "rises.json"
    content = study.resume(parser, file, {}, {"conditions": {}})
    for name in BASINS:
        if name not in content["conditions"]:
            content["conditions"][name] = basin(name)
            study.store(file, content, COMMAND)
            print(name, flush=True)
    file.with_name("rises.md").write_text(page("Basins of XOR", ["condition"], content["conditions"]))


if __name__ == "__main__":
    study.run(main)
