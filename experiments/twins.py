"""Run the plan of docs/results/twins/plan.md: do twins of a training move apart exponentially, then diffusively?

    python -m experiments.twins [--starts 8] [--steps 20000] [--data-dir data] [--out docs/results/twins]

Finished conditions are read from ``twins.json`` and not repeated.
"""

import argparse
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from csbp_jax import configs, data, dynamics, learner
from csbp_jax.config import Chaos, Config, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.instruments.training_map import TrainingMap
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training.compiled import resolve
from experiments import study
from experiments.statistics import holm, mean_text, paired_t, student_dict
from experiments.study import Content, finite_or_none

MODULE = "python -m experiments.twins"

DELTA, EVERY, BATCH = 1e-7, 5, 16
TWINS = ("1e-7", "one ulp")

FIRST, LAST, FEWEST, FAR = 100, 2000, 20, 1e-3
"""Steps of the exponential phase, its fewest records, and the distance that ends it, over the parameters' norm."""

QR_EVERY = 10
LAGS, SHORTEST, NEAREST = 20, 2000, 100
"""Lags of the diffusive phase, its fewest steps, and its first lag."""

GROWING, TOLERANCE, DIFFUSIVE, REACHED = 0.0005, 0.001, (0.4, 0.6), 0.75
"""Least rate, difference between rate and exponent that is agreement, alpha of a random walk, share of starts."""

PRIMARY = ("plain", "drift, 0.25 flips", "10 sub-steps, 0.25 flips")

Array = NDArray[np.float64]


class Condition(NamedTuple):
    """A term, its strength in flips, the sub-steps of its gradient, and the learning rate."""

    term: str = "chaos"
    flips: float = 0.0
    substeps: int = 1
    lr: float = 0.1


CONDITIONS = {
    "plain": Condition(),
    "CSBP, 0.25 flips": Condition(flips=0.25),
    "drift, 0.25 flips": Condition("drift", 0.25),
    "10 sub-steps, 0.25 flips": Condition(flips=0.25, substeps=10),
    "CSBP, 1 flip": Condition(flips=1.0),
    "drift, 1 flip": Condition("drift", 1.0),
    "10 sub-steps, 1 flip": Condition(flips=1.0, substeps=10),
    "plain, rate 0.5": Condition(lr=0.5),
    "plain, rate 1": Condition(lr=1.0),
}


# --- training -----------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """The resolved config in plain units, z0 for 1 flip, all training data as one batch, and the probe batch."""

    config: Config
    everything: Any
    probe: Any


def load(data_dir: str) -> Source:
    """Load the digits, and measure the flip at the start of seed 0."""
    base = configs.load("digits")
    config = dataclasses.replace(
        base,
        batch_size=BATCH,
        model=dataclasses.replace(base.model, name="dense", features=(16,), time_steps=4),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("fc1.membrane",), unit="flip", scale=1.0),
    )
    splits = data.load(config, data_dir)
    config, source = resolve(config, splits), splits["train"]
    probe = training_map.batches(config, source, 1)[0]
    everything = training_map.batches(dataclasses.replace(config, batch_size=len(source)), source, 1)[0]
    config = training_map.in_plain_units(config, probe, len(source) // BATCH)
    return Source(config, training_map.to_default_precision(everything), probe)


def make(source: Source, condition: Condition) -> TrainingMap:
    """The map of a condition."""
    config = replaced(source.config, "chaos.term", condition.term)
    config = replaced(config, "chaos.substeps", condition.substeps)
    config = replaced(config, "optimizer.lr", condition.lr)
    config = replaced(config, "chaos.z0", tuple(condition.flips * z for z in source.config.chaos.z0))
    return training_map.make(config, source.probe, len(source.everything["y"]) // BATCH)


def stream(size: int, seed: int, steps: int) -> NDArray[np.int32]:
    """Indices of the batches of a stream, shuffled in each epoch, ``[steps, BATCH]``, without a last smaller batch."""
    generator, per_epoch = np.random.default_rng(seed), size // BATCH
    epochs = [
        generator.permutation(size)[: per_epoch * BATCH].reshape(per_epoch, BATCH)
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps].astype(np.int32)


def twins_of(state: learner.State, seed: int) -> learner.State:
    """A state and its two twins, stacked; the parameters alone differ."""
    x, unravel = ravel_pytree(state.params)
    direction = jax.random.normal(jax.random.key(seed), x.shape, x.dtype)
    moved = (x, x + DELTA * direction / jnp.linalg.norm(direction), jnp.nextafter(x, jnp.inf))
    states = [dataclasses.replace(state, params=unravel(vector)) for vector in moved]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def distances(run: TrainingMap, states: learner.State) -> dict[str, jax.Array]:
    """Distances of the twins from the first state, ``[2]`` for each read-out, and its ``norm``."""
    read = jax.vmap(run.readouts)(states)
    apart = {
        name: jnp.linalg.norm((value[1:] - value[:1]).reshape(len(value) - 1, -1), axis=1)
        for name, value in read.items()
    }
    apart["spikes"] = apart["spikes"] ** 2
    return apart | {"norm": jnp.linalg.norm(read["parameters"][0])}


def follow(run: TrainingMap, source: Source, starts: int, steps: int) -> dict[str, Array]:
    """Distances every ``EVERY`` steps, from step 0 on: ``[records, starts, 2]`` of parameters, logits and spikes."""
    indices = np.stack([stream(len(source.everything["y"]), seed, steps) for seed in range(starts)], axis=1)
    chunks = jnp.asarray(indices[: steps - steps % EVERY].reshape(-1, EVERY, starts, BATCH))
    states = [twins_of(run.start(seed, fixed=True), seed) for seed in range(starts)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def step(states: learner.State, index: jax.Array) -> tuple[learner.State, None]:
        batches = jax.tree.map(lambda leaf: leaf[index], source.everything)
        of_twins = jax.vmap(run.step, (0, None))
        return jax.vmap(of_twins)(states, batches), None

    @jax.jit
    def chunk(states: learner.State, chunks: jax.Array) -> tuple[learner.State, Any]:
        def record(states: learner.State, chunk: jax.Array) -> tuple[learner.State, Any]:
            states = lax.scan(step, states, chunk)[0]
            return states, jax.vmap(functools.partial(distances, run))(states)

        return lax.scan(record, states, chunks)

    first = jax.vmap(functools.partial(distances, run))(stacked)
    _, later = chunk(stacked, chunks)
    return {name: np.concatenate([np.asarray(first[name])[None], np.asarray(later[name])]) for name in first}


def exponents(run: TrainingMap, source: Source, starts: int) -> list[float | None]:
    """Largest tangent exponent of each run over the steps of the exponential phase, on its own stream."""
    indices = np.stack([stream(len(source.everything["y"]), seed, LAST) for seed in range(starts)], axis=1)
    stacked = jax.tree.map(lambda *s: jnp.stack(s), *[run.start(seed, fixed=True) for seed in range(starts)])
    numbered = (stacked, jnp.arange(starts))
    mask = (learner.dynamical_leaves(run.start(0, fixed=True)), False)

    def step(state: Any, index: jax.Array) -> Any:
        training, number = state
        batch = jax.tree.map(lambda leaf: leaf[index[number]], source.everything)
        return run.step(training, batch), number

    batches: Iterator[jax.Array] = iter(jnp.asarray(indices))
    options: Any = {"every": QR_EVERY, "warmup": FIRST, "dynamical_leaves": mask}
    values, _, _ = dynamics.lyapunov_many(step, numbered, batches, **options)
    return [finite_or_none(value) for value in np.asarray(values)[:, 0]]


# --- fits ---------------------------------------------------------------------------------------------------------


def exponential_rate(distance: Array, norm: Array, spikes: Array, every: int = EVERY) -> float | None:
    """Rate of the exponential phase of records ``[records]``, in nats per step; None if it is too short.

    Args:
      distance: of the parameters.
      norm: of the parameters of the first run.
      spikes: how many differ.
      every: steps between two records.
    """
    ended = np.flatnonzero((distance >= FAR * norm) | (spikes > 0))
    end = min(int(ended[0]) if len(ended) else len(distance), LAST // every + 1)
    phase = slice(FIRST // every, end)
    values = distance[phase]
    if len(values) < FEWEST or not (np.isfinite(values).all() and (values > 0).all()):
        return None
    return float(np.polyfit(every * np.arange(len(values)), np.log(values), 1)[0])


def growth_exponent(distance: Array, norm: Array, every: int = EVERY) -> float | None:
    """Growth exponent of the diffusive phase, ``distance ~ (t - t1)^alpha``; None if the phase is too short."""
    far = np.flatnonzero(distance >= FAR * norm)
    if not len(far) or every * (len(distance) - 1 - far[0]) < SHORTEST or not np.isfinite(distance).all():
        return None
    lags = np.geomspace(NEAREST / every, len(distance) - 1 - far[0], LAGS).round().astype(int)
    values = distance[far[0] + lags]
    return float(np.polyfit(np.log(lags), np.log(values), 1)[0]) if (values > 0).all() else None


def measured(run: TrainingMap, source: Source, options: argparse.Namespace) -> Content:
    """Fits of all twins of a condition, its exponents, and courses at log-spaced steps for the figure."""
    courses = follow(run, source, options.starts, options.steps)
    shown = np.unique(np.geomspace(1, len(courses["norm"]) - 1, 120).round().astype(int))
    content: Content = {"exponent": exponents(run, source, options.starts), "steps": (EVERY * shown).tolist()}
    for number, name in enumerate(TWINS):
        apart = {key: courses[key][..., number] for key in ("parameters", "logits", "spikes")}
        columns = range(options.starts)
        fits = [
            (
                exponential_rate(apart["parameters"][:, i], courses["norm"][:, i], apart["spikes"][:, i]),
                growth_exponent(apart["parameters"][:, i], courses["norm"][:, i]),
                growth_exponent(apart["logits"][:, i], np.zeros(len(courses["norm"]))),
            )
            for i in columns
        ]
        far = apart["parameters"] >= FAR * courses["norm"]
        content[name] = {
            "rate": [fit[0] for fit in fits],
            "alpha": [fit[1] for fit in fits],
            "first_spike": [_first(apart["spikes"][:, i] > 0) for i in columns],
            "far": [_first(far[:, i]) for i in columns],
            "ends": [finite_or_none(v) for v in (apart["parameters"][-1] / courses["norm"][-1])],
            "parameters": _rounded(apart["parameters"][shown]),
            "logits": _rounded(apart["logits"][shown]),
        }
    return content


def _first(reached: NDArray[np.bool_]) -> int | None:
    """First step of the records at which something is reached."""
    return EVERY * int(np.argmax(reached)) if reached.any() else None


def _rounded(courses: Array) -> list[list[float | None]]:
    return [[float(f"{v:.4g}") if np.isfinite(v) else None for v in row] for row in courses.tolist()]


# --- verdicts -----------------------------------------------------------------------------------------------------


def conclusions(conditions: Mapping[str, Content]) -> Content:
    """Verdicts of the finished conditions, and the primary family if all of it is finished."""
    content: Content = {"verdicts": {name: verdict(result) for name, result in conditions.items()}}
    csbp = "CSBP, 0.25 flips"
    if all(name in conditions for name in (csbp, *PRIMARY)):
        pairs = {name: _paired(conditions[csbp]["1e-7"]["rate"], conditions[name]["1e-7"]["rate"]) for name in PRIMARY}
        defined = {name: pair for name, pair in pairs.items() if pair}
        corrected = holm({name: pair["p"] for name, pair in defined.items()})
        content["primary"] = {name: pair | {"p_holm": corrected[name]} for name, pair in defined.items()}
    return content


def _paired(values: Sequence[float | None], reference: Sequence[float | None]) -> dict[str, float]:
    """Mean paired difference with its interval and p, over the starts that have both; empty with fewer than two."""
    both = [(v, r) for v, r in zip(values, reference, strict=True) if v is not None and r is not None]
    if len(both) < 2:
        return {}
    first, second = np.array(both).T
    return student_dict(first - second) | {"p": paired_t(first, second)}


def verdict(result: Content) -> dict[str, str]:
    """The plan's verdicts on a condition, from its twins of 1e-7."""
    twins = result["1e-7"]
    rates = [rate for rate in twins["rate"] if rate is not None]
    return {"exponential": _exponential(twins["rate"], result["exponent"], rates), "diffusive": _diffusive(twins)}


def _exponential(paired_rates: Sequence[float | None], exponent: Sequence[float | None], rates: Sequence[float]) -> str:
    difference = _paired(paired_rates, exponent)
    if len(rates) < 2 or not difference:
        return "not decided"
    rate = student_dict(rates)
    bound = max(TOLERANCE, 0.1 * abs(float(np.mean([e for e in exponent if e is not None]))))
    agrees = -bound < difference["low"] and difference["high"] < bound
    differs = difference["low"] > bound or difference["high"] < -bound
    if rate["high"] < GROWING or differs:
        return "refuted"
    return "confirmed" if rate["low"] > GROWING and agrees else "not decided"


def _diffusive(twins: Content) -> str:
    alphas = [alpha for alpha in twins["alpha"] if alpha is not None]
    if len(alphas) < max(2, REACHED * len(twins["alpha"])):
        return "not reached"
    interval, (low, high) = student_dict(alphas), DIFFUSIVE
    if low <= interval["low"] and interval["high"] <= high:
        return "confirmed"
    return "refuted" if interval["high"] < low or interval["low"] > high else "not decided"


# --- page ---------------------------------------------------------------------------------------------------------


def page(content: Content) -> str:
    """The tables of the conditions and of the primary family."""
    rows = []
    for name, result in content["conditions"].items():
        for twins in TWINS:
            of_twins, verdicts = result[twins], content["verdicts"][name]
            shown = [study.rule(verdicts[phase]) if twins == "1e-7" else "" for phase in ("exponential", "diffusive")]
            rows.append(
                [
                    name,
                    twins,
                    _mean(of_twins["rate"]),
                    _mean(result["exponent"]) if twins == "1e-7" else "",
                    _median(of_twins["first_spike"]),
                    _median(of_twins["far"]),
                    _mean(of_twins["alpha"]),
                    _mean(of_twins["ends"]),
                    *shown,
                ]
            )
    head = ["condition", "twins", "rate (nats per step)", "exponent", "first spike differs at", "1e-3 of norm at"]
    head += ["alpha", "end distance / norm", "exponential first", "diffusive then"]
    pairs = [
        [name, f"{pair['mean']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]", f"{pair['p_holm']:.2g}"]
        for name, pair in content.get("primary", {}).items()
    ]
    primary = study.table(["rate of CSBP at 0.25 flips minus", "nats per step", "p, Holm"], pairs)
    return "\n\n".join([study.table(head, rows), primary])


def _mean(values: Sequence[float | None]) -> str:
    """Mean and interval over the starts that have a value, with their number if some have none."""
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    missing = f", {len(known)} of {len(values)}" if len(known) < len(values) else ""
    return mean_text(known) + missing


def _median(values: Sequence[float | None]) -> str:
    """Median step; "never" where half of the starts do not reach it."""
    median = np.median([np.inf if value is None else value for value in values])
    return f"{median:.0f}" if np.isfinite(median) else "never"


def draw(content: Content, out: Any) -> None:
    """Draw the distances of parameters and logits, medians over the starts of the twins of 1e-7 and one ulp."""
    figure = empty_figure(12, 4.5)
    panels = figure.subplots(1, 2)
    for axes, read in zip(panels, ("parameters", "logits"), strict=True):
        for i, (name, result) in enumerate(content["conditions"].items()):
            for twins, style in zip(TWINS, ("-", ":"), strict=True):
                course = np.array(result[twins][read], float)
                middle = np.maximum(np.median(course, axis=1), 1e-17)
                label = name if twins == "1e-7" else None
                dash = {"color": PALETTE[i % len(PALETTE)], "lw": 1.2 if i < len(PALETTE) else 2.4, "label": label}
                axes.loglog(result["steps"], middle, style, **dash)
        axes.set(xlabel="step", ylabel=f"distance of {read}, median")
        axes.grid(alpha=0.3)
    guide = np.array([2000.0, 20_000.0])
    panels[0].loglog(guide, 0.2 * guide**0.5, color="black", lw=0.8, ls="--")
    panels[0].set_title("solid: 1e-7 apart; dotted: one ulp; dashed: a random walk", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    study.save_figure(figure, out, "twins")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "twins", data_dir=True)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args(arguments)
    if options.starts < 2 or options.steps < LAST:
        parser.error(f"--starts: from 2 on; --steps: from {LAST} on")
    file = options.out / "twins.json"
    sizes = {"starts": options.starts, "steps": options.steps}
    content = study.resume(parser, file, sizes, {"conditions": {}})
    with study.float64():
        source = load(options.data_dir)
        for name, condition in CONDITIONS.items():
            if name not in content["conditions"]:
                content["conditions"][name] = measured(make(source, condition), source, options)
                study.store(file, content, MODULE)
                print(f"{name}: {verdict(content['conditions'][name])}", flush=True)
    content |= conclusions(content["conditions"])
    draw(content, options.out)
    study.write(options.out, "twins", content, page(content))


if __name__ == "__main__":
    study.run(main)
