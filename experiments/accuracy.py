"""Test accuracy of a data set's config, CSBP against plain backpropagation, on paired seeds.

    python -m experiments.accuracy DATASET [--seeds 10] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/DATASET by default, a FIELD any of the config.

A pair shares its seed: the same starting weights and the same order of data; only z0 differs. Runs that are finished
under ``runs/accuracy`` are not done again, so the study can be stopped and gone on with. Both the last epoch and the
epoch chosen by validation are reported, never the best on test.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
from importlib import metadata

import numpy as np

from csbp_jax import configs
from csbp_jax.cli.options import parse
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime.files import write_json
from csbp_jax.training.loop import train

# What the figures cannot say by themselves.
NOTES = {
    "digits": "Both arms are near the ceiling, so this says that the method trains, not that it gains; pictures of one "
    "writer stand in all parts.",
}


def interval(values):
    """Mean and its 95 % interval by Student's t; of one value there is none."""
    return {name: value for name, value in student(values)._asdict().items() if value is not None}


def summary(results):
    """Accuracies of both arms and their paired difference, for the last and for the chosen epoch."""
    accuracy = {
        which: {arm: [run[which]["test_accuracy"] for run in runs] for arm, runs in results.items()}
        for which in ("last", "chosen")
    }
    share = [run["gradient_norms"]["chaos"] / run["gradient_norms"]["task"] for run in results["csbp"]]
    return {
        "accuracy": accuracy,
        "intervals": {
            which: {arm: interval(values) for arm, values in arms.items()}
            | {"csbp - bp": interval(np.subtract(arms["csbp"], arms["bp"]))}
            for which, arms in accuracy.items()
        },
        "chaos_share_of_task_gradient_at_step_0": {"min": min(share), "median": np.median(share), "max": max(share)},
        "median_seconds": {arm: np.median([run["seconds"] for run in runs]) for arm, runs in results.items()},
    }


def table(content):
    """The intervals in Markdown."""
    lines = ["| test accuracy (%) | CSBP | plain backpropagation | CSBP - BP, paired |", "|---|---|---|---|"]
    for which, label in (("last", "last epoch"), ("chosen", "epoch chosen by validation")):
        cells = [cell(**interval) for interval in content["intervals"][which].values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(mean, low=None, high=None):
    """A mean and its interval, in percent; equal values have none to speak of."""
    if low is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f}" + (" (all alike)" if np.isclose(low, high) else f" [{100 * low:.2f}, {100 * high:.2f}]")


def conclusion(content):
    """What the paired difference at the last epoch says."""
    found = content["intervals"]["last"]["csbp - bp"]
    if "low" not in found:
        return "One pair says nothing of a difference."
    low, high = found["low"], found["high"]
    word = "no difference is seen" if low <= 0 <= high else f"CSBP is {'above' if low > 0 else 'below'}"
    return f"At the last epoch {word}: the paired interval {'holds' if low <= 0 <= high else 'does not hold'} 0."


def page(content):
    """What a reader sees: the table and what stands behind it."""
    seeds, share = content["seeds"], content["chaos_share_of_task_gradient_at_step_0"]
    over = f"Mean and 95 % interval (Student's t, which knows no ceiling) over {seeds} paired seeds"
    return f"""# {content["dataset"]}: CSBP against plain backpropagation

{table(content)}

{over if seeds > 1 else "One pair of runs"}, {content["test_count"]} test examples.
At step 0 the chaos term's gradient has {share["min"]:.0%} to {share["max"]:.0%} of the task gradient's norm.
{conclusion(content)}
{NOTES.get(content["dataset"], "")}

Made by `{content["command"]}`; `accuracy.json` holds the figures of each seed, the versions and the machine.
"""


def train_arms(arms, seeds, data_dir):
    """What each run gave, ``{arm: [seed 0, seed 1, ...]}``, of configs ``{arm: config}``."""
    results = {arm: [] for arm in arms}
    with open(os.devnull, "w") as nowhere:
        for seed in range(seeds):
            for arm, config in arms.items():
                config = dataclasses.replace(config, seed=seed)
                run = train(config, root="runs/accuracy", console=Console(file=nowhere), data_dir=data_dir)
                results[arm].append(run)
                last = run["last"]["test_accuracy"]
                print(f"seed {seed} {arm:4} last {last:.2%} in {run['seconds']:.0f} s", flush=True)
    return results


def provenance(module, options, fields):
    """What stands behind the figures: the command, versions and machine."""
    out = [f"--out {options.out}"] if options.out else []
    return {
        "command": " ".join([f"python -m {module}", options.dataset, f"--seeds {options.seeds}", *out, *fields]),
        "versions": {package: metadata.version(package) for package in ("jax", "flax", "optax", "numpy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }


def write(out, content, text):
    """``accuracy.json`` and ``README.md`` in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "accuracy.json", json.loads(json.dumps(content, default=float)))
    (out / "README.md").write_text(text)


def arguments_of(module, summary, arguments):
    """``(options, fields, config)``: DATASET, --seeds, --data-dir and --out, and what is left, fields of the config."""
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("dataset", choices=configs.NAMES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path)
    options, fields = parser.parse_known_args(arguments)
    return options, fields, parse(configs.load(options.dataset), fields, module)


def plain(config):
    """Its twin by plain backpropagation."""
    return dataclasses.replace(config, chaos=dataclasses.replace(config.chaos, z0=(0.0,)))


def main(arguments=None):
    module = "experiments.accuracy"
    options, fields, csbp = arguments_of(module, __doc__.splitlines()[0], arguments)
    results = train_arms({"csbp": csbp, "bp": plain(csbp)}, options.seeds, options.data_dir)
    content = {"dataset": options.dataset, "seeds": options.seeds} | summary(results)
    content |= provenance(module, options, fields)
    content["test_count"] = results["csbp"][0]["last"]["test_count"]
    write(options.out or pathlib.Path("docs/results") / options.dataset, content, page(content))
    print(table(content))


if __name__ == "__main__":
    main()
