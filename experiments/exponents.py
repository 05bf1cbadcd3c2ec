"""Is the training of a config chaotic? All instruments on it and on its controls, over some starts.

    python -m experiments.exponents DATASET [--starts 8] [--steps 300] [--map batch] [--sequences N] [--exponents 3]
                                    [--anneal-to 1e-3] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--map: "batch", of one fixed batch; "epoch", of an epoch's batches in the same order again and again; "stream", of a
stream of batches that nearby runs share, another for each start, or, with --sequences, each start on each of N streams.
In the annealed runs z falls, step by step, to --anneal-to of what it was.
A FIELD is any of the config. What is done is kept in ``exponents.json`` and not done again.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
import optax

from csbp_jax import configs, controls, data
from csbp_jax.cli.options import parse
from csbp_jax.config import replaced, to_json
from csbp_jax.instruments import classify, measure, training_map
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_json
from csbp_jax.training.compiled import resolve
from experiments.machine import about

EACH, SHOWN = 10, (1e-8, 1e-2)
NOISES = {
    "Gaussian noise": lambda tx: optax.chain(controls.gaussian(), tx),
    "logistic sequences": lambda tx: optax.chain(controls.logistic(), tx),
}


def measured(config, options, file):
    """The content of the file: every condition's results, one a start."""
    parts = data.load(config, options.data_dir)
    config, source = resolve(config, parts), parts["train"]
    steps_per_epoch = len(source) // config.batch_size
    probe = training_map.batches(config, source, 1)[0]
    config = annealed(training_map.in_plain_units(config, probe, steps_per_epoch), options)
    asked = {name: getattr(options, name) for name in ("map", "steps", "sequences", "exponents", "anneal_to")}
    asked |= {"config": to_json(config), "steps_per_epoch": steps_per_epoch}
    content = json.loads(file.read_text()) if file.exists() else {**asked, "conditions": {}}
    if {name: content.get(name) for name in asked} != asked:
        raise SystemExit(f"{file} was made with other options; give another --out")
    count = {"batch": 1, "epoch": steps_per_epoch, "stream": options.steps}[options.map]
    runs = {
        name: training_map.make(condition, probe, steps_per_epoch)
        for name, condition in training_map.conditions(config).items()
    }
    silent = replaced(config, "chaos.z0", (0.0,))
    runs |= {name: training_map.make(silent, probe, steps_per_epoch, control) for name, control in NOISES.items()}
    for name, run in runs.items():
        done = content["conditions"].setdefault(name, [])
        for seed, sequence in pairs(options)[len(done) :]:
            given = training_map.batches(config, source, count, sequence)
            one = training_map.forced(run, runs["as given"], given, options.steps) if name in NOISES else run
            found = measure.measure(
                one, given, seed=seed, steps=options.steps, warmup=options.steps // 3, n=options.exponents
            )
            told = {"word": classify.classify(found), "rise": classify.rise(found["cumulated"])}
            done.append({"start": seed, "sequence": sequence} | thinned(found | told))
            write_json(file, content)
            line = f"{told['word']}, {found['tangent']['exponents'][0]:+.4f}"
            print(f"{name:14} start {seed}, batches {sequence}: {line}", flush=True)
    return content


def annealed(config, options):
    """With z annealed to the share that is asked for, step by step; an epoch's beta would leave most of z after 300."""
    return replaced(replaced(config, "chaos.anneal", "step"), "chaos.beta", options.anneal_to ** (1 / options.steps))


def thinned(found):
    """With every EACH-th step of what is told of each, in five digits: files that a repository can hold."""
    kept = found | {"cumulated": found["cumulated"][EACH - 1 :: EACH]}
    kept["apart"] = {name: each if name == "deltas" else each[::EACH] for name, each in found["apart"].items()}
    return jax.tree.map(lambda leaf: float(f"{leaf:.5g}") if isinstance(leaf, float) else leaf, kept)


def pairs(options):
    """Starts and the seeds of their batches, starts first, so that more of them go on with what there is."""
    streams = options.sequences
    return [(start, stream) for start in range(options.starts) for stream in (range(streams) if streams else [start])]


def page(content):
    """Tables in Markdown: means, their 95 % intervals over the starts, what was said of each run; and of nearby runs.

    With several sequences of batches, the interval over those, of means over the starts, follows.
    """
    rows = [
        "| condition | exponent (nats a step) | (nats an epoch) | neutral | rise, annealed (nats) | flip ratio, start "
        "| warm | words |",
        "|" + 8 * "---|",
    ]
    for name, found in content["conditions"].items():
        words = [one["word"] for one in found]
        exponents = np.array([one["tangent"]["exponents"][0] for one in found])
        cells = [
            intervals(found, exponents),
            intervals(found, content["steps_per_epoch"] * exponents),
            f"{np.mean([one['neutral'] for one in found]):.1f} of {content['exponents']}",
            intervals(found, [one["rise"] for one in found]),
            *(intervals(found, [one["flip_ratio"][when]["both"] for one in found]) for when in ("start", "warm")),
            ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", *nearby(content), "", *notes(content)])


def nearby(content):
    """Rows of exponents between nearby runs at fixed z, at the distances of SHOWN."""
    yield "| condition | distance | all that feeds back (nats a step) | parameters | logits | spikes that differ |"
    yield "|" + 6 * "---|"
    for name, found in content["conditions"].items():
        deltas = found[0]["finite_size"]["deltas"]
        for at in (int(np.argmin(np.abs(np.log(np.array(deltas) / shown)))) for shown in SHOWN):
            sized = [one["finite_size"] for one in found]
            growth = [sized, [one["parameters"] for one in sized], [one["logits"] for one in sized]]
            cells = [intervals(found, [one["exponents"][at] for one in kind]) for kind in growth]
            cells.append(intervals(found, [one["spikes"][at] for one in sized]))
            yield f"| {name} | {deltas[at]:g} | {' | '.join(cells)} |"


def notes(content):
    """What the tables leave unsaid."""
    counted, beta = content["steps"] - content["steps"] // 3, content["config"]["chaos"]["beta"]
    yield (
        f"Exponents at fixed z, over {counted} of {content['steps']} steps; an epoch has {content['steps_per_epoch']}. "
        f"Annealed: z falls to {content['anneal_to']:g} of z0, by {beta:.4g} a step. "
        f"Spikes that differ are of a batch of {content['config']['batch_size']}, a step."
    )
    words = {one["word"] for found in content["conditions"].values() for one in found}
    optimizer = content["config"]["optimizer"]
    if "no exponent" in words and optimizer["name"] != "sgd" and not optimizer["eps_root"]:
        yield "No exponent: with optimizer.eps_root 0, Adam has no tangent where second moments are 0; give 1e-12."


def intervals(found, values):
    """Mean, and its interval over starts and, where each start had the same several, over sequences of batches."""
    if missing := int(np.isnan(values).sum()):
        return "not defined" + (f" in {missing} of {len(values)}" if missing < len(values) else "")
    starts, sequences = ([one[kind] for one in found] for kind in ("start", "sequence"))
    if starts == sequences:
        return interval(values)
    over = [interval(means(values, kind)) for kind in (starts, sequences)]
    return over[0] + "," + over[1][over[1].index(" ") :]  # without the comma, Markdown's link


def means(values, kinds):
    """Of each kind."""
    pairs = list(zip(values, kinds, strict=True))
    return [np.mean([value for value, k in pairs if k == kind], axis=0) for kind in sorted(set(kinds))]


def interval(values):
    """Mean and 95 % interval as text."""
    mean, low, high = student(values)[:3]
    return f"{mean:.3g}" if low is None else f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def draw(content, out):
    """Spectra, finite-size curves, cumulated local exponents and the logits' separation, a line a condition."""
    figure = empty_figure(12, 7)
    spectra, sizes, cumulated, apart = figure.subplots(2, 2).ravel()
    for i, (name, found) in enumerate(content["conditions"].items()):
        style = {"color": PALETTE[i], "label": name}
        starts = [one["start"] for one in found]
        values = np.array(means([one["tangent"]["exponents"] for one in found], starts))
        place = np.arange(1, values.shape[1] + 1) + 0.08 * (i - 2)
        spectra.errorbar(place, values.mean(0), yerr=_half_width(values), fmt="o", ms=4, **style)
        sized = [one["finite_size"] for one in found]
        _band(sizes, sized[0]["deltas"], means([one["exponents"] for one in sized], starts), style)
        logits = np.mean([one["logits"]["exponents"] for one in sized], axis=0)
        sizes.plot(sized[0]["deltas"], logits, ls="--", lw=1.2, color=style["color"])
        steps = EACH * np.arange(1, len(found[0]["cumulated"]) + 1)
        _band(cumulated, steps, means([one["cumulated"] for one in found], starts), style)
        logits = np.log10(np.maximum(np.array([one["apart"]["logits"] for one in found])[:, :, 0], 1e-17))
        low, middle, high = np.quantile(
            means(logits, starts), (0.25, 0.5, 0.75), axis=0
        )  # near and far, little between
        apart.plot(EACH * np.arange(len(middle)), middle, lw=1.2, color=style["color"])
        apart.fill_between(EACH * np.arange(len(middle)), low, high, color=style["color"], alpha=0.2, lw=0)
    for axes in (spectra, sizes):
        axes.axhline(0, color="black", lw=0.8)
    spectra.set(xlabel="exponent number", ylabel="tangent exponent (nats a step)", title="fixed z")
    spectra.set_xticks(range(1, values.shape[1] + 1))
    sizes.set(xlabel="distance", ylabel="finite-size exponent (nats a step)", xscale="log")
    sizes.set_title("fixed z; dashed: of logits")
    cumulated.set(xlabel="step", ylabel="cumulated local exponent (nats)", title="annealed")
    apart.set(xlabel="step", ylabel="log10 of the distance of logits", title="annealed, two runs 1e-8 apart")
    figure.legend(*spectra.get_legend_handles_labels(), loc="outside lower center", ncols=len(content["conditions"]))
    figure.suptitle(f"Means and 95 % intervals (last panel: medians and quartiles) over {len(set(starts))} starts")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"exponents.{kind}", dpi=120)


def _band(axes, x, lines, style):
    lines = np.asarray(lines)
    mean, half = lines.mean(0), _half_width(lines)
    axes.plot(x, mean, ".-" if len(x) < 20 else "-", lw=1.2, **style)
    axes.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.2, lw=0)


def _half_width(values):
    """Of the 95 % interval of the mean over the first axis; nothing where there is but one value."""
    intervals = [student(column) for column in np.asarray(values).T]
    return np.array([0.0 if one.low is None else (one.high - one.low) / 2 for one in intervals])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("dataset", choices=configs.NAMES, metavar="DATASET")
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--map", choices=("batch", "epoch", "stream"), default="batch")
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--exponents", type=int, default=3)
    parser.add_argument("--anneal-to", type=float, default=1e-3)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path)
    options, fields = parser.parse_known_args(arguments)
    if options.sequences and options.map != "stream":
        parser.error("--sequences: only with --map stream")
    if options.steps < 3 or options.exponents < 1 or not 0 <= options.anneal_to <= 1:
        parser.error("--steps: from 3 on; --exponents: from 1 on; --anneal-to: from 0 to 1")
    config = parse(configs.load(options.dataset), fields, "python -m experiments.exponents")
    out = options.out or pathlib.Path("docs/results/exponents") / options.dataset
    out.mkdir(parents=True, exist_ok=True)
    content = measured(config, options, out / "exponents.json")
    content |= about()
    write_json(out / "exponents.json", content)
    draw(content, out)
    (out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
