"""Measure whether the training of a config is chaotic: all instruments on it and on its controls, over some starts.

    python -m experiments.exponents DATASET [--starts 8] [--steps 300] [--map batch] [--sequences N] [--exponents 3]
                                    [--anneal-to 1e-3] [--data-dir data] [--out runs/exponents_DATASET]
                                    [--FIELD VALUE ...]

--map: "batch", one fixed batch; "epoch", the batches of one epoch, repeated in the same order; "stream", a stream of
batches that nearby runs share: a different one per start or, with --sequences, each start on each of N streams.
In the annealed runs z falls, step by step, to the fraction --anneal-to of its initial value, and the learning rate
follows its schedule; at fixed z it is held at its peak.
Noise as large as the term's pushes is left out with chaos.term cbp, chaos.substeps above 1 and SAM, whose pushes are
not the term's gradient.
A FIELD is any of the config. Finished runs are read from ``exponents.json`` and not repeated: the same command goes on
where it was stopped, and more --starts are added to those that are there.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import ArrayLike

from csbp_jax import controls, data
from csbp_jax.config import Config, replaced, to_json
from csbp_jax.instruments import classify, measure, training_map
from csbp_jax.reporting import statistics
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training.build import resolve
from experiments import study
from experiments.statistics import group_means, half_widths, mean_text
from experiments.study import Content

MODULE = "python -m experiments.exponents"
STRIDE = 10  # of the steps that are stored
SHOWN = (1e-8, 1e-2)  # distances in the table
DRAWN = ("as given", "z = 0", "drift")  # the conditions that the figure has as lines
NOISES = {
    "Gaussian noise": lambda tx: optax.chain(controls.gaussian(), tx),
    "logistic sequences": lambda tx: optax.chain(controls.logistic(), tx),
}


def measured(
    config: Config, options: argparse.Namespace, file: pathlib.Path, parser: argparse.ArgumentParser, command: str
) -> Content:
    """Measure every condition on every start that the file lacks, and return its content."""
    parts = data.load(config, options.data_dir)
    config, source = resolve(config, parts), parts["train"]
    steps_per_epoch = len(source) // config.batch_size
    probe = training_map.batches(config, source, 1)[0]
    config = annealed(config, options)
    settings = {name: getattr(options, name) for name in ("map", "steps", "sequences", "exponents", "anneal_to")}
    settings |= {"config": to_json(config), "steps_per_epoch": steps_per_epoch}
    content = study.resume(parser, file, settings, {"conditions": {}, "data_marks": {}})
    stored = {run["start"] for done in content["conditions"].values() for run in done}
    if len(stored) > options.starts:
        parser.error(f"{file}: has {len(stored)} starts; give --starts {len(stored)} or more, or another --out")
    mark = study.data_mark(config, options.data_dir)
    count = {"batch": 1, "epoch": steps_per_epoch, "stream": options.steps}[options.map]
    runs = {
        name: training_map.make(condition, probe, steps_per_epoch)
        for name, condition in training_map.conditions(config).items()
    }
    noises = {} if training_map.push_obstacle(config) else NOISES
    runs |= {
        name: training_map.make(replaced(config, "chaos.z0", (0.0,)), probe, steps_per_epoch, control)
        for name, control in noises.items()
    }
    for name, run in runs.items():
        done = content["conditions"].setdefault(name, [])
        for seed, sequence in pairs(options)[len(done) :]:
            study.check_data(parser, file, content, options.dataset, mark)
            batches = training_map.batches(config, source, count, sequence)
            if name in noises:
                run = training_map.forced(runs[name], runs["as given"], batches, options.steps)
            plan = measure.Plan(options.steps, options.steps // 3, options.exponents)
            result = measure.measure(run, batches, plan, seed)
            word, rise = classify.classify(result), classify.rise(result["cumulated"])
            verdict = {"word": word, "rise": rise, "bound": classify.BOUND}
            done.append({"start": seed, "sequence": sequence} | thinned(result | verdict))
            study.store(file, content, command)
            line = f"{word}, {result['tangent']['exponents'][0]:+.4f}"
            print(f"{name:14} start {seed}, batches {sequence}: {line}", flush=True)
    return content


def annealed(config: Config, options: argparse.Namespace) -> Config:
    """The config with z annealed step by step to ``--anneal-to`` of z0 at the last step.

    An epoch's beta would leave most of z after 300 steps.
    """
    return replaced(replaced(config, "chaos.anneal", "step"), "chaos.beta", options.anneal_to ** (1 / options.steps))


def thinned(result: Content) -> Content:
    """A result with every ``STRIDE``-th step of its courses, in five digits, to keep the files small."""
    courses = {name: course if name == "deltas" else course[::STRIDE] for name, course in result["apart"].items()}
    result = result | {"cumulated": result["cumulated"][STRIDE - 1 :: STRIDE], "apart": courses}
    return jax.tree.map(lambda leaf: float(f"{leaf:.5g}") if isinstance(leaf, float) else leaf, result)


def pairs(options: argparse.Namespace) -> list[tuple[int, int]]:
    """``(start, seed of its batches)`` of every run, starts first, so that more starts extend what is measured."""
    streams = options.sequences
    return [(start, stream) for start in range(options.starts) for stream in (range(streams) if streams else [start])]


def page(content: Content) -> str:
    """Tables in Markdown: means and 95 % intervals over the starts, and verdicts; differences paired over the starts;
    growth between nearby runs.

    With several sequences of batches, the interval over those, of means over the starts, follows.
    """
    head = ["condition", "exponent (nats per step)", "(nats per epoch)", "neutral", "rise, annealed (nats)"]
    rows = []
    for name, runs in content["conditions"].items():
        words = [run["word"] for run in runs]
        exponents = np.array([run["tangent"]["exponents"][0] for run in runs])
        cells = [
            intervals(runs, exponents),
            intervals(runs, content["steps_per_epoch"] * exponents),
            f"{np.mean([run['neutral'] for run in runs]):.1f} of {content['exponents']}",
            intervals(runs, [run["rise"] for run in runs]),
            *(intervals(runs, [run["flip_ratio"][when]["both"] for run in runs]) for when in ("start", "warm")),
            ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)),
        ]
        rows.append([name, *cells])
    tables = [study.table([*head, "flip ratio, start", "warm", "classes"], rows), paired(content), nearby(content)]
    return "\n\n".join(tables) + "\n\n" + "\n".join(notes(content))


def paired(content: Content) -> str:
    """A table of differences of exponents from those with the term and without, paired over the starts."""
    means = {
        name: np.array(group_means([run["tangent"]["exponents"][0] for run in runs], [run["start"] for run in runs]))
        for name, runs in content["conditions"].items()
    }
    references = [name for name in ("as given", "z = 0") if name in means]
    rows = []
    for name, values in means.items():
        cells = []
        for other in references:
            differences = values - means[other]
            defined = name != other and np.all(np.isfinite(differences))
            cells += [mean_text(differences), f"{statistics.paired(differences).p:.2g}"] if defined else ["", ""]
        rows.append([name, *cells])
    head = [cell for name in references for cell in (f"from {name}", "p")]
    return study.table(["difference of exponents, paired", *head], rows)


def nearby(content: Content) -> str:
    """A table of exponents between nearby runs at fixed z, at the distances of ``SHOWN``."""
    head = ["condition", "distance", "all dynamical leaves (nats per step)", "parameters", "logits"]
    rows = []
    for name, runs in content["conditions"].items():
        deltas = runs[0]["finite_size"]["deltas"]
        for at in (int(np.argmin(np.abs(np.log(np.array(deltas) / shown)))) for shown in SHOWN):
            sized = [run["finite_size"] for run in runs]
            measures = [sized, [run["parameters"] for run in sized], [run["logits"] for run in sized]]
            cells = [intervals(runs, [growth["exponents"][at] for growth in growths]) for growths in measures]
            cells.append(intervals(runs, [run["spikes"][at] for run in sized]))
            rows.append([name, f"{deltas[at]:g}", *cells])
    return study.table([*head, "spikes that differ"], rows)


def notes(content: Content) -> Iterator[str]:
    """Sentences below the tables: how the numbers were measured."""
    counted, beta = content["steps"] - content["steps"] // 3, content["config"]["chaos"]["beta"]
    yield (
        f"Exponents at fixed z, over {counted} of {content['steps']} steps; an epoch has {content['steps_per_epoch']} "
        f"steps. Annealed: z falls to {content['anneal_to']:g} of z0, by a factor of {beta:.4g} per step. "
        f"Spikes that differ: per step, in a batch of {content['config']['batch_size']}."
    )
    runs = [run for runs in content["conditions"].values() for run in runs]
    words = [run["word"] for run in runs]
    if undecided := words.count("not decided"):
        yield f"Not decided: {undecided} of {len(words)} runs; more steps may decide them (--steps, --out)."
    if 0 < (earlier := sum("bound" not in run for run in runs)) < len(runs):
        yield f"The classes of {earlier} runs were made by an earlier rule, which depends on the number of steps."
    optimizer = content["config"]["optimizer"]
    if "no exponent" in words and optimizer["name"] != "sgd" and not optimizer["eps_root"]:
        yield "No exponent: with optimizer.eps_root 0, Adam has no tangent where second moments are 0; give 1e-12."


def intervals(runs: Sequence[Content], values: ArrayLike) -> str:
    """Mean and its interval over starts and, where all starts had the same sequences, over sequences of batches."""
    values = np.asarray(values)
    if missing := int(np.isnan(values).sum()):
        return "not defined" + (f" in {missing} of {len(values)}" if missing < len(values) else "")
    starts, sequences = ([run[kind] for run in runs] for kind in ("start", "sequence"))
    if starts == sequences:
        return mean_text(values)
    over_starts, over_sequences = (mean_text(group_means(values, groups)) for groups in (starts, sequences))
    return over_starts + "," + over_sequences[over_sequences.index(" ") :]  # without the comma, Markdown's link


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw exponents and rises, a row a condition, and finite-size exponents and annealed growth of :data:`DRAWN`."""
    figure = empty_figure(12, 6)
    tangent, sizes, rises, cumulated = figure.subplots(2, 2).ravel()
    names = list(content["conditions"])
    for i, (name, runs) in enumerate(content["conditions"].items()):
        starts = [run["start"] for run in runs]
        for axes, values in (
            (tangent, [run["tangent"]["exponents"][:1] for run in runs]),
            (rises, [[run["rise"]] for run in runs]),
        ):
            means = np.array(group_means(values, starts))
            axes.errorbar(means.mean(0), [i], xerr=half_widths(means), fmt="o", color=_color(name))
        if name in DRAWN:
            style = {"color": _color(name), "label": name}
            sized = [run["finite_size"] for run in runs]
            _band(sizes, sized[0]["deltas"], group_means([run["exponents"] for run in sized], starts), style)
            steps = STRIDE * np.arange(1, len(runs[0]["cumulated"]) + 1)
            _band(cumulated, steps, group_means([run["cumulated"] for run in runs], starts), style)
    for axes, label in ((tangent, "exponent at fixed z (nats per step)"), (rises, "rise of the annealed run (nats)")):
        axes.axvline(0, color="black", lw=0.8)
        axes.set(xlabel=label, yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    sizes.axhline(0, color="black", lw=0.8)
    sizes.set(xlabel="distance of two runs, fixed z", ylabel="growth (nats per step)", xscale="log")
    cumulated.set(xlabel="step, annealed", ylabel="cumulated local exponent (nats)")
    for axes in (sizes, cumulated):
        axes.legend(fontsize="small", loc="upper left")
    figure.suptitle(f"Means and 95 % intervals over {len(set(starts))} starts")
    study.save_figure(figure, out, "exponents")


def _color(name: str) -> str:
    return PALETTE[DRAWN.index(name)] if name in DRAWN else "0.4"


def _band(axes: Any, x: ArrayLike, lines: ArrayLike, style: dict[str, Any]) -> None:
    lines = np.asarray(lines)
    mean, half = lines.mean(0), half_widths(lines)
    axes.plot(x, mean, ".-" if len(mean) < 20 else "-", lw=1.2, **style)
    axes.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.2, lw=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_dataset_parser(__doc__, starts=8, steps=300, exponents=3)
    parser.add_argument("--map", choices=("batch", "epoch", "stream"), default="batch")
    parser.add_argument("--sequences", type=study.positive)
    parser.add_argument("--anneal-to", type=float, default=1e-3)
    with study.one_line_errors(parser):
        options, fields, config = study.parse_dataset(parser, MODULE, arguments)
        if options.sequences and options.map != "stream":
            parser.error("--sequences: only with --map stream")
        if options.steps < 3 or not 0 <= options.anneal_to <= 1:
            parser.error("--steps: from 3 on; --anneal-to: from 0 to 1")
        out = options.out or pathlib.Path("runs", f"exponents_{options.dataset}")
        command = study.command_of(parser, MODULE, options, fields)
        content = measured(config, options, out / "exponents.json", parser, command)
    draw(content, out)
    study.write(out, "exponents", content, page(content))


if __name__ == "__main__":
    study.run(main)
