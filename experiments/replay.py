"""Test whether the feedback of the chaos term matters: what it did to a run is replayed, reordered, or drawn as noise.

    python -m experiments.replay DATASET [--seeds 12] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/replay_DATASET by default, a FIELD any of the config. For each seed the CSBP run is recorded
(csbp_jax.instruments.replay), then each condition trains from the same start on the same batches. All forces stand
before the optimiser, as the term's gradient does. Finished seeds are read from ``replay.json`` and not repeated.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from csbp_jax import Own, controls, data
from csbp_jax.config import Config, replaced, to_json
from csbp_jax.instruments import replay, training_map
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training.compiled import CompiledRun, resolve
from experiments import forcing, study
from experiments.statistics import holm, paired_t, percent_text
from experiments.study import Content

MODULE = "experiments.replay"
REFERENCE, PLAIN = "CSBP", "plain backpropagation"


class Condition(NamedTuple):
    """A control condition of the chaos term.

    term: the term of the loss, or None. force: makes the force on the gradient, or None. record: how its forcing is
    made of the seed's record, as in :func:`experiments.forcing.of_starts`; "none" for no forcing.
    """

    term: str | None = None
    force: Callable[[], Any] | None = None
    record: str = "none"


NOISES: dict[str, Callable[[], Any]] = {
    "Gaussian noise": controls.gaussian,
    "AR(1) noise": functools.partial(controls.ar1, 0.9),
    "logistic sequences": controls.logistic,
}
CONDITIONS = {
    PLAIN: Condition(),
    "drift": Condition("drift"),
    "replay": Condition(force=controls.replay, record="replayed"),
    "replay, shuffled in time": Condition(force=controls.replay, record="shuffled, annealed"),
    "replay, random phases": Condition(force=controls.replay, record="phases, annealed"),
    "replay of another seed": Condition(force=controls.replay, record="other"),
    **{name: Condition(force=force, record="rms") for name, force in NOISES.items()},
    **{f"drift + {name}": Condition("drift", force, "rms") for name, force in NOISES.items()},
}


def compiled(config: Config, source: Any) -> dict[str, CompiledRun]:
    """The training of each condition; those that differ only in the forcing share a compilation."""

    @functools.cache
    def make(term, force):
        condition = replaced(config, "chaos.z0", (0.0,)) if term is None else replaced(config, "chaos.term", term)
        own = Own(control=lambda _, tx: optax.chain(force(), tx)) if force else Own()
        return replay.make(condition, source, own)

    return {name: make(condition.term, condition.force) for name, condition in CONDITIONS.items()}


def evaluate(run: CompiledRun, parts: Mapping[str, Any], state: Any) -> Content:
    """Validation and test accuracy of a state, and whether its parameters are finite."""
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    return {part: run.evaluate(state, parts[part])["accuracy"] for part in ("validation", "test")} | {"finite": finite}


def measure(
    config: Config, parts: Mapping[str, Any], seeds: int, content: Content, save: Callable[[Content], None]
) -> None:
    """Train every seed that is missing in ``content["seeds"]``: ``{seed: {condition: {validation, test}}}``."""
    csbp, runs = replay.make(config, parts["train"]), compiled(config, parts["train"])
    recorded = functools.lru_cache(maxsize=2)(lambda seed: replay.record(csbp, seed))
    z = replay.annealing(csbp)
    for seed in range(seeds):
        if str(seed) in content["seeds"]:
            continue
        begun, (end, record) = time.perf_counter(), recorded(seed)
        results, other = {REFERENCE: evaluate(csbp, parts, end)}, recorded(seed + 1)[1]
        for name, condition in CONDITIONS.items():
            if condition.record in ("none", "other"):
                force = {"none": None, "other": other}[condition.record]
            else:
                force = forcing.from_record(condition.record, seed, z, record)
            results[name] = evaluate(runs[name], parts, replay.train(runs[name], seed, force))
            print(f"seed {seed}, {name}: {results[name]['test']:.4f}", flush=True)
        content["seeds"][str(seed)] = results
        save(content)
        print(f"seed {seed}: {time.perf_counter() - begun:.1f} s, CSBP {results[REFERENCE]['test']:.4f}", flush=True)


def accuracies(content: Content, part: str) -> dict[str, NDArray[np.float64]]:
    """``{condition: [seeds]}``."""
    results = [content["seeds"][seed] for seed in sorted(content["seeds"], key=int)]
    return {name: np.array([result[name][part] for result in results]) for name in results[0]}


def summary(content: Content) -> Content:
    """Means, paired differences to CSBP and to plain backpropagation, their intervals, p against CSBP, and Holm's p."""
    summaries: dict[str, Content] = {}
    for part in ("validation", "test"):
        accuracy = accuracies(content, part)
        summaries[part] = {
            name: {"accuracy": student(values.tolist())._asdict()}
            | {
                f"minus {of}": student((values - accuracy[of]).tolist())._asdict()
                for of in (REFERENCE, PLAIN)
                if of != name
            }
            for name, values in accuracy.items()
        }
        ps = {name: paired_t(values, accuracy[REFERENCE]) for name, values in accuracy.items() if name != REFERENCE}
        for name, p in holm(ps).items():
            summaries[part][name] |= {"p": ps[name], "p_holm": p}
    return summaries


def page(content: Content) -> str:
    """A table in Markdown, the largest mean on test first."""
    test, validation = content["summary"]["test"], content["summary"]["validation"]
    head = ["condition", "test (%), 95 % interval", "validation (%)", "against CSBP (points)", "p, Holm"]
    rows = []
    for name, result in sorted(test.items(), key=lambda item: -item[1]["accuracy"]["mean"]):
        cells = [percent_text(result["accuracy"]), percent_text(validation[name]["accuracy"])]
        against = (
            [percent_text(result["minus CSBP"], "+"), f"{result['p_holm']:.2g}"] if name != REFERENCE else ["", ""]
        )
        plain = percent_text(result[f"minus {PLAIN}"], "+") if name != PLAIN else ""
        rows.append([name, *cells, *against, plain])
    return study.table([*head, "against plain (points)"], rows)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the test accuracy of each condition, and its paired difference to CSBP."""
    order = sorted(content["summary"]["test"].items(), key=lambda item: item[1]["accuracy"]["mean"])
    figure = empty_figure(9, 0.3 * len(order) + 1)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, ("accuracy", "minus CSBP"), strict=True):
        for row, (name, result) in enumerate(order):
            if key in result:
                mean, *ends = (100 * value for value in result[key].values() if value is not None)
                spread = [[mean - ends[0]], [ends[1] - mean]] if ends else None
                color = PALETTE[1] if name == REFERENCE else PALETTE[0]
                axes.errorbar([mean], [row], xerr=spread, fmt="o", ms=4, lw=1.5, color=color)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(order)), [name for name, _ in order])
    panels[0].set(xlabel=f"test accuracy (%), 95 % interval, {len(content['seeds'])} seeds")
    panels[1].set(xlabel="minus CSBP (points), paired, 95 % interval")
    panels[1].axvline(0, color="black", lw=0.8)
    study.save_figure(figure, out, "replay")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_dataset_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    with study.one_line_errors(parser):
        options, fields, config = study.parse_dataset(parser, MODULE, arguments)
        out = options.out or study.RESULTS / f"replay_{options.dataset}"
        parts = data.load(config, options.data_dir)
        config = resolve(config, parts, 1)  # replay.make trains on one device
        if config.chaos.unit == "flip":
            probe = training_map.batches(config, parts["train"], 1, config.seed)[0]
            config = training_map.in_plain_units(config, probe, len(parts["train"]) // config.batch_size)
        settings = {"config": to_json(dataclasses.replace(config, seed=0))}
        file = out / "replay.json"
        content = study.resume(parser, file, settings, {"seeds": {}, "data_marks": {}})
        if any(str(seed) not in content["seeds"] for seed in range(options.seeds)):
            command = study.command_of(parser, f"python -m {MODULE}", options, fields)
            study.begin(parser, file, content, options.dataset, study.data_mark(config, options.data_dir), command)
        measure(config, parts, options.seeds, content, functools.partial(study.write_json, file))
    content |= {"test_count": len(parts["test"]), "summary": summary(content)}
    draw(content, out)
    study.write(out, "replay", content, page(content))


if __name__ == "__main__":
    study.run(main)
