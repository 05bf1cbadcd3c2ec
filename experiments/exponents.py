"""Is the training of a config chaotic? All instruments on it and on its controls, over some starts.

    python -m experiments.exponents DATASET [--starts 8] [--steps 300] [--map batch] [--sequences N] [--data-dir data]
                                    [--out FOLDER] [--FIELD VALUE ...]

--map: "batch", of one fixed batch; "epoch", of an epoch's batches in the same order again and again; "stream", of a
stream of batches that nearby runs share, another for each start, or, with --sequences, each start on each of N streams.
A FIELD is any of the config. What is done is kept in ``exponents.json`` and not done again.
"""

import argparse
import json
import pathlib

import jax
import numpy as np

from csbp_jax import configs, data, lab
from csbp_jax.config import to_json
from csbp_jax.figures import PALETTE, blank
from csbp_jax.intervals import student
from csbp_jax.options import parse
from csbp_jax.program import resolve
from csbp_jax.run_folder import write_json
from experiments.machine import about

EACH = 10


def measured(config, options, file):
    """The content of the file: every condition's results, one a start."""
    parts = data.load(config, options.data_dir)
    config, source = resolve(config, parts), parts["train"]
    steps_per_epoch = len(source) // config.batch_size
    probe = lab.batches(config, source, 1)[0]
    config = lab.in_plain_units(config, probe, steps_per_epoch)
    asked = {"config": to_json(config), "map": options.map, "steps": options.steps, "sequences": options.sequences}
    content = json.loads(file.read_text()) if file.exists() else {**asked, "conditions": {}}
    if {name: content[name] for name in asked} != asked:
        raise SystemExit(f"{file} was made with other options; give another --out")
    count = {"batch": 1, "epoch": steps_per_epoch, "stream": options.steps}[options.map]
    for name, condition in lab.conditions(config).items():
        done, run = content["conditions"].setdefault(name, []), lab.make(condition, probe, steps_per_epoch)
        for seed, sequence in pairs(options)[len(done) :]:
            given = lab.batches(condition, source, count, sequence)
            found = lab.measure(run, given, seed=seed, steps=options.steps, warmup=options.steps // 3)
            done.append({"start": seed, "sequence": sequence, "word": lab.word(found)} | thinned(found))
            write_json(file, content)
            told = f"{done[-1]['word']}, {found['tangent']['exponents'][0]:+.4f}"
            print(f"{name:14} start {seed}, batches {sequence}: {told}", flush=True)
    return content


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
    """A table in Markdown: means, their 95 % intervals over the starts, and what was said of each run.

    With several sequences of batches, the interval over those, of means over the starts, follows.
    """
    rows = [
        "| condition | exponent (nats a step) | neutral | at distance 1e-2 | of logits, annealed "
        "| flip ratio, start | warm | words |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in content["conditions"].items():
        far = int(np.argmin(np.abs(np.log(np.array(found[0]["finite_size"]["deltas"]) / 1e-2))))
        words = [one["word"] for one in found]
        cells = [
            intervals(found, [one["tangent"]["exponents"][0] for one in found]),
            f"{np.mean([one['neutral'] for one in found]):.1f}",
            intervals(found, [one["finite_size"]["exponents"][far] for one in found]),
            intervals(found, [parting(one) for one in found]),
            *(intervals(found, [one["flip_ratio"][when]["both"] for one in found]) for when in ("start", "warm")),
            ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def parting(one):
    """Of two runs 1e-8 apart: the mean growth of the distance of their logits, in nats a step."""
    logits = np.maximum(np.array(one["apart"]["logits"])[:, 0], np.finfo(float).tiny)
    return float(np.log(logits[-1] / logits[0]) / (EACH * (len(logits) - 1)))


def intervals(found, values):
    """Mean, and its interval over starts and, where each start had the same several, over sequences of batches."""
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
    figure = blank(12, 7)
    spectra, sizes, cumulated, apart = figure.subplots(2, 2).ravel()
    for i, (name, found) in enumerate(content["conditions"].items()):
        style = {"color": PALETTE[i], "label": name}
        starts = [one["start"] for one in found]
        values = np.array(means([one["tangent"]["exponents"] for one in found], starts))
        place = np.arange(1, values.shape[1] + 1) + 0.08 * (i - 2)
        spectra.errorbar(place, values.mean(0), yerr=_half_width(values), fmt="o", ms=4, **style)
        _band(
            sizes,
            found[0]["finite_size"]["deltas"],
            means([one["finite_size"]["exponents"] for one in found], starts),
            style,
        )
        steps = EACH * np.arange(1, len(found[0]["cumulated"]) + 1)
        _band(cumulated, steps, means([one["cumulated"] for one in found], starts), style)
        logits = np.log10(np.maximum(np.array([one["apart"]["logits"] for one in found])[:, :, 0], 1e-17))
        _band(apart, EACH * np.arange(logits.shape[1]), means(logits, starts), style)
    for axes in (spectra, sizes):
        axes.axhline(0, color="black", lw=0.8)
    spectra.set(xlabel="exponent number", ylabel="tangent exponent (nats a step)", title="fixed z")
    spectra.set_xticks(range(1, values.shape[1] + 1))
    sizes.set(xlabel="distance", ylabel="finite-size exponent (nats a step)", title="fixed z", xscale="log")
    cumulated.set(xlabel="step", ylabel="cumulated local exponent (nats)", title="annealed")
    apart.set(xlabel="step", ylabel="log10 of the distance of logits", title="annealed, two runs 1e-8 apart")
    figure.legend(*spectra.get_legend_handles_labels(), loc="outside lower center", ncols=len(content["conditions"]))
    figure.suptitle(f"Means and 95 % intervals over {len(set(starts))} starts")
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
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path)
    options, fields = parser.parse_known_args(arguments)
    if options.sequences and options.map != "stream":
        parser.error("--sequences: only with --map stream")
    config = parse(configs.load(options.dataset), fields, "python -m experiments.exponents")
    out = options.out or pathlib.Path("docs/results/exponents") / options.dataset
    out.mkdir(parents=True, exist_ok=True)
    content = measured(config, options, out / "exponents.json")
    content |= {
        **about(),
    }
    write_json(out / "exponents.json", content)
    draw(content, out)
    (out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
