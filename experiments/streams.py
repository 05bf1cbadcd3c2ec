"""Run the plan of docs/results/released_code/streams/plan.md: CNN7 on a fixed batch, a cycle and a stream of batches.

    python -m experiments.streams [--starts 4] [--data-dir data] [--out docs/results/released_code/streams]

N-MNIST must have been prepared (make data). Finished runs are read from ``streams.json`` and not repeated, so that more
starts extend what is measured.
"""

import argparse
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, data, learner
from csbp_jax.config import Config, Data, replaced, to_json
from csbp_jax.dynamics.lyapunov import directions, step_tangents
from csbp_jax.dynamics.state import Mask, Step, join, log, mask_of, rounding, select, strongly_typed
from csbp_jax.instruments import training_map
from csbp_jax.instruments.training_map import TrainingMap
from csbp_jax.learner import Batch, Recipe, State
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.reporting.statistics import paired
from csbp_jax.training.resolved import resolve
from experiments import study
from experiments.statistics import mean_text, student_dict
from experiments.study import Content, finite_or_none

MODULE = "python -m experiments.streams"
STEPS, WARMUP, LONG = 144, 48, 400
DELTA, AWAY = 1e-2, 1e3
WIDTH, SIZE, CYCLE = 0.25, (17, 17), 8
MAPS = {"fixed batch": 1, "cycle": CYCLE, "stream": LONG}
"""Number of the batches that a map repeats."""
CONDITIONS = {"CSBP": ("chaos", 1.0), "plain": ("chaos", 0.0), "drift": ("drift", 1.0)}
"""Term and factor of the released z of each condition."""
GROWTHS = {"exponent": "exponent (nats per step)", "growth": f"growth at {DELTA:g} (nats per step)"}


# --- one run ------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A run and a nearby run: ``(state, loss)`` of both, and a tangent of the first, ``[size, 1]``."""

    run: Any
    tangent: jax.Array
    nearby: Any


def with_loss(recipe: Recipe) -> Step:
    """Return the training step as a map of ``(state, task loss)``."""

    def step(carry: tuple[State, jax.Array], batch: Batch) -> tuple[State, jax.Array]:
        state, metrics = learner.train_step(recipe, carry[0], batch)
        return state, metrics["task_loss"]

    return step


def begin(state: State) -> tuple[Pair, Mask]:
    """Return the pair of a start, the nearby run ``DELTA`` away in a random direction, and the dynamical leaves."""
    run = strongly_typed((state, jnp.zeros(())))
    mask = mask_of(run, (learner.dynamical_leaves(state), False))
    x = ravel_pytree(select(run, mask))[0]
    tangent = directions(x.size, 1, seed=0).astype(x.dtype)
    return Pair(run, tangent, join(x + DELTA * tangent[:, 0], run, mask)), mask


@functools.partial(jax.jit, static_argnames=("step", "mask"))
def advance(step: Step, mask: Mask, pair: Pair, batch: Batch) -> tuple[Pair, dict[str, jax.Array]]:
    """Step both runs and the tangent, rescale tangent and distance, and return what was read before the rescaling."""
    run, tangent = step_tangents(step, mask, (pair.run, pair.tangent), batch)
    nearby = step(pair.nearby, batch)
    x = ravel_pytree(select(run, mask))[0]
    difference = ravel_pytree(select(nearby, mask))[0] - x
    stretch, distance = jnp.linalg.norm(tangent), jnp.maximum(jnp.linalg.norm(difference), rounding(x))
    readings = {"exponent": log(stretch), "growth": log(distance / DELTA)}
    return Pair(run, tangent / stretch, join(x + DELTA * difference / distance, nearby, mask)), readings


def state_readings(run: tuple[State, jax.Array]) -> dict[str, jax.Array]:
    """Norm of the parameters and task loss of a run; the norm is NaN after a step that was not finite."""
    state, loss = run
    norm = jnp.linalg.norm(ravel_pytree(state.params)[0])
    return {"norm": jnp.where(state.bad_steps > 0, jnp.nan, norm), "loss": loss}


def follow(step: Step, state: State, batches: Iterable[Batch], steps: int) -> Content:
    """Measure a run at each of at most ``LONG`` steps, of which only the first ``steps`` have growths.

    The run ends when its parameters have grown by ``AWAY`` or are not finite. Norms are in units of that at the start.
    """
    pair, mask = begin(state)
    alone, run = jax.jit(step), pair.run
    first = float(state_readings(run)["norm"])
    courses: dict[str, list[float]] = {"norm": [], "loss": [], "exponent": [], "growth": []}
    for done, batch in enumerate(batches):
        readings = {}
        if done < steps:
            pair, readings = advance(step, mask, pair, batch)
            run = pair.run
        else:
            run = alone(run, batch)
        for name, value in (state_readings(run) | readings).items():
            courses[name].append(float(value))
        courses["norm"][-1] /= first
        if not courses["norm"][-1] < AWAY:
            break
    return {name: [_short(value) for value in course] for name, course in courses.items()}


def _short(value: float) -> float | None:
    return finite_or_none(float(f"{value:.5g}"))


# --- all runs -----------------------------------------------------------------------------------------------------


def smaller() -> Config:
    """The released config on N-MNIST, at the width and the resolution of the plan."""
    config = configs.load("cifar10_dvs_tebn_cnn7")
    model = dataclasses.replace(config.model, width=WIDTH, input_shape=(*SIZE, 2))
    return dataclasses.replace(config, model=model, data=Data(name="nmnist", size=SIZE))


def measured(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Content:
    """Measure all starts that the file lacks, start by start, and return its content."""
    config = smaller()
    splits = data.load(config, options.data_dir)
    config, source = resolve(config, splits), splits["train"]
    stream = training_map.batches(config, source, LONG)
    checksum = zlib.crc32(np.ascontiguousarray(stream[0]["x"]).data)
    settings = {"steps": STEPS, "warmup": WARMUP, "long": LONG, "config": to_json(config)}
    settings |= {"recordings": len(source), "crc32 of the first batch": checksum}
    file = options.out / "streams.json"
    content = study.resume(parser, file, settings, {"maps": {name: {} for name in MAPS}})
    runs = {
        term: training_map.make(replaced(config, "chaos.term", term), stream[0], len(source) // config.batch_size)
        for term in dict.fromkeys(term for term, _ in CONDITIONS.values())
    }
    steps = {term: with_loss(run.recipe) for term, run in runs.items()}
    for seed, name, condition in itertools.product(range(options.starts), MAPS, CONDITIONS):
        done = content["maps"][name].setdefault(condition, [])
        if len(done) > seed:
            continue
        term, factor = CONDITIONS[condition]
        batches = training_map.repeated(stream[: MAPS[name]], STEPS if seed else LONG)
        done.append(follow(steps[term], first_state(runs[term], seed, factor), batches, STEPS))
        study.store(file, content, MODULE)
        exponent = np.mean(np.array(done[-1]["exponent"], float)[WARMUP:])
        print(f"start {seed}, {name}, {condition}: {len(done[-1]['norm'])} steps, {exponent:+.4f}", flush=True)
    return content


def first_state(run: TrainingMap, seed: int, factor: float) -> State:
    """The first state of a seed, with z held at ``factor`` times its released value."""
    state = run.start(seed, True)
    return training_map.strength(state)(state, jnp.float32(factor))


# --- results ------------------------------------------------------------------------------------------------------


def ran_away(run: Content, steps: int = STEPS) -> bool:
    """Whether a run ended within the first steps."""
    return len(run["norm"]) <= steps and not (run["norm"][-1] or np.inf) < AWAY


def exponents(runs: Sequence[Content], growth: str) -> np.ndarray:
    """Mean local exponent of each run over the counted steps; NaN for a run that ran away."""
    return np.array([np.nan if ran_away(run) else np.mean(run[growth][WARMUP:]) for run in runs])


def sign(values: np.ndarray) -> str:
    """The plan's sign of a cell: of the 95 % interval of its mean over starts."""
    if np.isnan(values).any():
        return "runs away"
    interval = student_dict(values)
    if "low" not in interval or interval["low"] <= 0 <= interval["high"]:
        return "not shown"
    return "+" if interval["low"] > 0 else "-"


def verdict(maps: Content, condition: str) -> str:
    """The plan's verdict for a condition, from the fixed batch and the stream."""
    runs = [maps[name][condition] for name in ("fixed batch", "stream")]
    signs = [sign(exponents(cell, "exponent")) for cell in runs]
    away = sorted(sum(map(ran_away, cell)) / len(cell) for cell in runs)
    if set(signs) == {"+", "-"} or (away[0] <= 0.25 and away[1] >= 0.75):
        return "different"
    return "the same" if signs[0] == signs[1] and signs[0] in "+-" else "not decided"


def complete(maps: Content) -> Content:
    """The runs of the starts that are measured in all cells."""
    count = min(len(runs) for cells in maps.values() for runs in cells.values())
    return {name: {condition: runs[:count] for condition, runs in cells.items()} for name, cells in maps.items()}


def page(content: Content) -> str:
    """Tables of the cells, of paired differences and of the verdicts."""
    maps = complete(content["maps"])
    rows = [[name, *cell_row(condition, runs)] for name, cells in maps.items() for condition, runs in cells.items()]
    head = ["map", "condition", f"run away in {STEPS} steps", "parameters, grown", "task loss, last 16 steps"]
    head += [text for title in GROWTHS.values() for text in (title, "sign")]
    verdicts = [
        [condition, *(sign(exponents(maps[name][condition], "exponent")) for name in MAPS), verdict(maps, condition)]
        for condition in CONDITIONS
    ]
    tables = [
        study.table([*head, f"start 0, up to step {LONG}"], rows),
        study.table(["sign of the exponent", *MAPS, "fixed batch and stream"], verdicts),
        differences(maps),
    ]
    return "\n\n".join(tables)


def cell_row(condition: str, runs: Sequence[Content]) -> list[str]:
    """A row of the table of cells."""
    ends = [run["norm"][:STEPS][-1] or np.inf for run in runs]
    losses = [np.mean(np.array(run["loss"][:STEPS][-16:], float)) for run in runs]
    cells = [f"{sum(map(ran_away, runs))} of {len(runs)}", f"{min(ends):.3g} to {max(ends):.3g} times"]
    cells.append(mean_text(losses))
    for growth in GROWTHS:
        values = exponents(runs, growth)
        cells += [mean_text(values) if np.isfinite(values).all() else "none", sign(values)]
    norm = runs[0]["norm"]
    return [condition, *cells, f"{'ran away in ' if ran_away(runs[0], LONG) else ''}{len(norm)}, {norm[-1]} times"]


def differences(maps: Content) -> str:
    """A table of differences of exponents, paired over starts."""
    contrasts: list[tuple[str, str, str, str, str]] = [
        (f"{condition}: stream - fixed batch", "stream", condition, "fixed batch", condition)
        for condition in CONDITIONS
    ]
    contrasts += [
        (f"{name}: CSBP - {other}", name, "CSBP", name, other) for name in MAPS for other in ("plain", "drift")
    ]
    rows = []
    for title, name, condition, other_name, other_condition in contrasts:
        cells = []
        for growth in GROWTHS:
            values, others = (
                exponents(maps[m][c], growth) for m, c in ((name, condition), (other_name, other_condition))
            )
            both = np.isfinite(values) & np.isfinite(others)
            defined = both.sum() > 1
            cells += (
                [
                    f"{mean_text((values - others)[both])}, n = {both.sum()}",
                    f"{paired((values - others)[both]).p:.2g}",
                ]
                if defined
                else ["none", ""]
            )
        rows.append([title, *cells])
    return study.table(["difference, paired", *(text for title in GROWTHS.values() for text in (title, "p"))], rows)


def draw(content: Content, options: argparse.Namespace) -> None:
    """Draw both growths of each start with their means, and the norm of the parameters of start 0 over all steps."""
    maps = complete(content["maps"])
    figure = empty_figure(11, 3.6)
    *panels, norms = figure.subplots(1, 1 + len(GROWTHS))
    for axes, (growth, label) in zip(panels, GROWTHS.items(), strict=True):
        for x, cells in enumerate(maps.values()):
            for i, (condition, runs) in enumerate(cells.items()):
                values, at = exponents(runs, growth), x + 0.22 * (i - 1)
                axes.plot(np.full(len(values), at), values, "o", ms=5, mfc="none", color=PALETTE[i])
                mean = axes.hlines(np.mean(values), at - 0.1, at + 0.1, color=PALETTE[i], lw=2)
                mean.set_label(condition if x == 0 else None)
        axes.set_xticks(range(len(maps)), list(maps))
        axes.set(ylabel=label, ylim=(0, None))
    for name, style in (("fixed batch", "-"), ("stream", ":")):
        for i, runs in enumerate(maps[name].values()):
            norms.plot(runs[0]["norm"], style, color=PALETTE[i], lw=1.5)
    norms.set(xlabel="step", ylabel="norm of the parameters (start = 1)")
    norms.set_title("start 0; dotted: stream", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(CONDITIONS))
    study.save_figure(figure, options.out, "streams")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "released_code/streams", data_dir=True)
    parser.add_argument("--starts", type=int, default=4)
    options = parser.parse_args(arguments)
    with study.one_line_errors(parser):
        content = measured(options, parser)
    draw(content, options)
    study.write(options.out, "streams", content, page(content))


if __name__ == "__main__":
    study.run(main)
