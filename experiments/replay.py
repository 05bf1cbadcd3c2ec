"""Does the feedback of the chaos term matter? What it did to a run, on the same run: replayed, reordered, or as noise.

    python -m experiments.replay DATASET [--seeds 12] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/replay_DATASET by default, a FIELD any of the config. For each seed the CSBP run is recorded
(csbp_jax.instruments.replay), then each condition trains from the same start on the same batches. All forces stand
before the optimiser, as the term's gradient does. A finished seed is kept in ``replay.json`` and not run again.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from scipy import stats

from csbp_jax import Own, configs, controls, data
from csbp_jax.cli.options import parse
from csbp_jax.config import ConfigError, Diverged, replaced, to_json
from csbp_jax.instruments import replay, training_map
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_json
from csbp_jax.training.compiled import resolve
from experiments.machine import about
from experiments.shares import holm

REFERENCE = "CSBP"


class Condition(NamedTuple):
    """term: left in the loss, or None. force: on the gradient. record: what is made of the twin's, as in forcing()."""

    term: str | None = None
    force: Callable[[], Any] | None = None
    record: str = "none"


NOISES = {"Gaussian noise": controls.gaussian, "AR(1) noise": functools.partial(controls.ar1, 0.9)}
NOISES |= {"logistic sequences": controls.logistic}
CONDITIONS = {
    "plain backpropagation": Condition(),
    "drift": Condition("drift"),
    "replay": Condition(force=controls.replay, record="replayed"),
    "replay, shuffled in time": Condition(force=controls.replay, record="shuffled"),
    "replay, random phases": Condition(force=controls.replay, record="phases"),
    "replay of another seed": Condition(force=controls.replay, record="other"),
    **{name: Condition(force=force, record="sizes") for name, force in NOISES.items()},
    **{f"drift + {name}": Condition("drift", force, "sizes") for name, force in NOISES.items()},
}


def forcing(how, run, seed, record, other):
    """What a force is given: made of the seed's own record, or another seed's."""
    # No step's key is folded with the number of steps.
    key, z = jax.random.fold_in(jax.random.key(seed), run.total_steps), replay.annealing(run)
    shuffled = functools.partial(controls.shuffled, key)
    phases = functools.partial(controls.phase_randomised, key)
    return {
        "none": lambda: None,
        "replayed": lambda: record,
        "shuffled": lambda: controls.annealed(shuffled, z, record),
        "phases": lambda: controls.annealed(phases, z, record),
        "other": lambda: other,
        "sizes": lambda: controls.rms(record),
    }[how]()


def compiled(config, source):
    """The run of each condition; those that differ only in the forcing share one."""

    @functools.cache
    def one(term, force):
        alone = replaced(config, "chaos.z0", (0.0,)) if term is None else replaced(config, "chaos.term", term)
        own = Own(control=lambda _, tx: optax.chain(force(), tx)) if force else Own()
        return replay.make(alone, source, own)

    return {name: one(condition.term, condition.force) for name, condition in CONDITIONS.items()}


def told(run, parts, state):
    """Accuracies of a state, and whether it is finite."""
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    return {part: run.evaluate(state, parts[part])["accuracy"] for part in ("validation", "test")} | {"finite": finite}


def measured(config, parts, seeds, content, save):
    """Trains all that is missing in ``content["seeds"]``: ``{seed: {condition: {validation, test}}}``."""
    csbp, runs = replay.make(config, parts["train"]), compiled(config, parts["train"])
    twin = functools.lru_cache(maxsize=2)(lambda seed: replay.record(csbp, seed))
    for seed in range(seeds):
        if str(seed) in content["seeds"]:
            continue
        begun, (end, record) = time.perf_counter(), twin(seed)
        found, other = {REFERENCE: told(csbp, parts, end)}, twin(seed + 1)[1]
        for name, condition in CONDITIONS.items():
            given = forcing(condition.record, csbp, seed, record, other)
            found[name] = told(runs[name], parts, replay.train(runs[name], seed, given))
            print(f"seed {seed}, {name}: {found[name]['test']:.4f}", flush=True)
        content["seeds"][str(seed)] = found
        save(content)
        print(f"seed {seed}: {time.perf_counter() - begun:.1f} s, CSBP {found[REFERENCE]['test']:.4f}", flush=True)


def accuracies(content, part):
    """``{condition: [seeds]}``."""
    each = [content["seeds"][seed] for seed in sorted(content["seeds"], key=int)]
    return {name: np.array([found[name][part] for found in each]) for name in each[0]}


def summary(content):
    """Means and paired differences to CSBP and to plain backpropagation, with intervals; p against CSBP, and Holm's."""
    found = {}
    for part in ("validation", "test"):
        values = accuracies(content, part)
        found[part] = {
            name: {"accuracy": student(mine)._asdict()}
            | {
                f"minus {of}": student(mine - values[of])._asdict()
                for of in (REFERENCE, "plain backpropagation")
                if of != name
            }
            for name, mine in values.items()
        }
        ps = {name: paired(mine, values[REFERENCE]) for name, mine in values.items() if name != REFERENCE}
        for name, p in holm(ps).items():
            found[part][name] |= {"p": ps[name], "p_holm": p}
    return found


def paired(one, other):
    """p of Student's paired test; 1 where all pairs are equal, or there is but one."""
    return float(stats.ttest_rel(one, other).pvalue) if len(one) > 1 and np.any(one != other) else 1.0


def page(content):
    """In Markdown, the largest mean on test first."""
    test, validation = content["summary"]["test"], content["summary"]["validation"]
    columns = ["condition", "test (%), 95 % interval", "validation (%)", "against CSBP (points)", "p, Holm"]
    rows = [f"| {' | '.join([*columns, 'against plain (points)'])} |", "|---" * 6 + "|"]
    for name, one in sorted(test.items(), key=lambda item: -item[1]["accuracy"]["mean"]):
        cells = [cell(one["accuracy"]), cell(validation[name]["accuracy"])]
        cells += [cell(one["minus CSBP"], "+"), f"{one['p_holm']:.2g}"] if name != REFERENCE else ["", ""]
        cells.append(cell(one["minus plain backpropagation"], "+") if name != "plain backpropagation" else "")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(interval, sign=""):
    """A mean and its interval, in percent."""
    mean, *ends = (None if value is None else 100 * value for value in interval.values())
    return f"{mean:{sign}.2f}" + (f" [{ends[0]:{sign}.2f}, {ends[1]:{sign}.2f}]" if ends[0] is not None else "")


def draw(content, out):
    """Test accuracy of each condition, and its paired difference to CSBP."""
    order = sorted(content["summary"]["test"].items(), key=lambda item: item[1]["accuracy"]["mean"])
    figure = empty_figure(9, 0.3 * len(order) + 1)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, ("accuracy", "minus CSBP"), strict=True):
        for place, (name, one) in enumerate(order):
            if key in one:
                mean, *ends = (100 * value for value in one[key].values() if value is not None)
                spread = [[mean - ends[0]], [ends[1] - mean]] if ends else None
                color = PALETTE[1] if name == REFERENCE else PALETTE[0]
                axes.errorbar([mean], [place], xerr=spread, fmt="o", ms=4, lw=1.5, color=color)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(order)), [name for name, _ in order])
    panels[0].set(xlabel=f"test accuracy (%), 95 % interval, {len(content['seeds'])} seeds")
    panels[1].set(xlabel="minus CSBP (points), paired, 95 % interval")
    panels[1].axvline(0, color="black", lw=0.8)
    for kind in ("png", "pdf"):
        figure.savefig(out / f"replay.{kind}", dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=configs.NAMES)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path)
    options, fields = parser.parse_known_args(arguments)
    out = options.out or pathlib.Path("docs/results") / f"replay_{options.dataset}"
    out.mkdir(parents=True, exist_ok=True)
    try:
        config = parse(configs.load(options.dataset), fields, "experiments.replay")
        parts = data.load(config, options.data_dir)
        config = resolve(config, parts)
        if config.chaos.unit == "flip":
            probe = training_map.batches(config, parts["train"], 1, config.seed)[0]
            config = training_map.in_plain_units(config, probe, len(parts["train"]) // config.batch_size)
        file, settings = out / "replay.json", to_json(dataclasses.replace(config, seed=0))
        content = json.loads(file.read_text()) if file.exists() else {"config": settings, "seeds": {}}
        if content["config"] != settings:
            parser.error(f"{file} was made with another config; give another --out")
        measured(config, parts, options.seeds, content, functools.partial(write_json, file))
    except (ConfigError, Diverged) as error:
        parser.error(str(error))
    place = [f"--out {options.out}"] if options.out else []
    words = ["python -m experiments.replay", options.dataset, f"--seeds {options.seeds}", *place, *fields]
    content |= {"command": " ".join(words)}
    content |= {"test_count": len(parts["test"]), "summary": summary(content), **about()}
    write_json(file, content)
    draw(content, out)
    (out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
