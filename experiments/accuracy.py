"""Compare test accuracy of CSBP and of plain backpropagation on paired seeds of a data set's config.

    python -m experiments.accuracy DATASET [--seeds 10] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/presets/DATASET by default, a FIELD any of the config.

A pair shares its seed: the same initial weights and the same order of data; only z0 differs. Finished runs under
``runs/accuracy`` are not repeated, so the study can be stopped and resumed. Results of other options or of more seeds
are not replaced. It reports the last epoch and the epoch chosen by validation, never the best on test.
"""

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csbp_jax.config import Config, replaced
from csbp_jax.reporting.terminal import Console
from csbp_jax.training.loop import train
from experiments import study
from experiments.statistics import percent_text, student_dict
from experiments.study import Content

MODULE = "experiments.accuracy"
# Caveats that the numbers do not show.
NOTES = {"digits": "Images by the same writer occur in all splits."}
# These hold for a preset whose fields are unchanged.
NOTES_OF_PRESETS = {
    "digits": "Both methods are near 100 %, so this shows that the method trains, not that it improves accuracy.",
}
UNPLANNED = ("digits", "digits_events", "mnist")
"""Data sets whose committed runs had no plan."""
ORIGIN = "There was no plan, and $z_0$ is the preset's, not tuned."


def summary(results: Mapping[str, list[Content]]) -> Content:
    """Accuracies of both arms and their paired difference, for the last and for the chosen epoch."""
    accuracy = {
        which: {arm: [run[which]["test_accuracy"] for run in runs] for arm, runs in results.items()}
        for which in ("last", "chosen")
    }
    share = [run["gradient_norms"]["chaos"] / run["gradient_norms"]["task"] for run in results["csbp"]]
    return {
        "accuracy": accuracy,
        "intervals": {
            which: {arm: student_dict(values) for arm, values in arms.items()}
            | {"csbp - bp": student_dict(np.subtract(arms["csbp"], arms["bp"]))}
            for which, arms in accuracy.items()
        },
        "chaos_share_of_task_gradient_at_step_0": {"min": min(share), "median": np.median(share), "max": max(share)},
        "median_seconds": {arm: np.median([run["seconds"] for run in runs]) for arm, runs in results.items()},
    }


def table(content: Content) -> str:
    """The intervals in Markdown."""
    rows = [
        [label, *(cell(interval) for interval in content["intervals"][which].values())]
        for which, label in (("last", "last epoch"), ("chosen", "epoch chosen by validation"))
    ]
    return study.table(["test accuracy (%)", "CSBP", "plain backpropagation", "CSBP - BP, paired"], rows)


def cell(interval: Mapping[str, float]) -> str:
    """A mean and its interval in percent; equal values have no interval."""
    if "low" in interval and np.isclose(interval["low"], interval["high"]):
        return f"{100 * interval['mean']:.2f} (all equal)"
    return percent_text(interval)


def conclusion(content: Content) -> str:
    """One sentence on the paired difference at the last epoch."""
    interval = content["intervals"]["last"]["csbp - bp"]
    if "low" not in interval:
        return "One pair says nothing of a difference."
    low, high = interval["low"], interval["high"]
    if np.isclose(low, high):
        return "At the last epoch a difference is neither shown nor excluded: all pairs differ by the same."
    if low <= 0 <= high:
        return "At the last epoch a difference is neither shown nor excluded: the paired interval contains 0."
    return f"At the last epoch CSBP is {'above' if low > 0 else 'below'}: the paired interval does not contain 0."


def page(content: Content) -> str:
    """The text of accuracy.md: the table and its provenance."""
    dataset, seeds, share = content["dataset"], content["seeds"], content["chaos_share_of_task_gradient_at_step_0"]
    unchanged = not content.get("fields")
    notes = [of[dataset] for of in (NOTES_OF_PRESETS if unchanged else {}, NOTES) if dataset in of]
    origin = f"{ORIGIN}\n" if unchanged and dataset in UNPLANNED else ""
    over = f"Mean and 95 % interval (Student's t, not bounded at 100 %) over {seeds} paired seeds"
    return f"""# {dataset}, all labels: CSBP against plain backpropagation

Does CSBP change test accuracy with all labels?

{" ".join([f"**{conclusion(content)}**", *notes])}

{table(content)}

{over if seeds > 1 else "One pair of runs"}, {content["test_count"]} test examples. At step 0 the chaos term's gradient
has {share["min"]:.0%} to {share["max"]:.0%} of the task gradient's norm.

{origin}
Made by `{content["command"]}`; `accuracy.json` holds the results of each seed, the versions and the machine.
"""


def train_arms(arms: Mapping[str, Config], seeds: int, data_dir: str) -> dict[str, list[Content]]:
    """Train every arm's config on every seed: ``{arm: [result of seed 0, of seed 1, ...]}``."""
    results: dict[str, list[Content]] = {arm: [] for arm in arms}
    with open(os.devnull, "w") as nowhere:
        for seed in range(seeds):
            for arm, config in arms.items():
                config = dataclasses.replace(config, seed=seed)
                run = train(config, root="runs/accuracy", console=Console(file=nowhere), data_dir=data_dir)
                results[arm].append(run)
                last = run["last"]["test_accuracy"]
                print(f"seed {seed} {arm:4} last {last:.2%} in {run['seconds']:.0f} s", flush=True)
    return results


def earlier(
    parser: argparse.ArgumentParser, file: pathlib.Path, options: argparse.Namespace, fields: Sequence[str]
) -> None:
    """Exit with usage and one line if results that are to be replaced are of other options or more seeds."""
    stored: Content = json.loads(file.read_text()) if file.exists() else {}
    same = stored.get("dataset") == options.dataset and stored.get("fields", []) == fields
    if stored and not (same and stored["seeds"] <= options.seeds):
        parser.error(f"{file}: made with other options or more seeds; give another --out")


def write(out: pathlib.Path, content: Content, text: str, page: str = "accuracy.md") -> None:
    """Write ``accuracy.json`` and its page into the folder ``out``."""
    study.write_json(out / "accuracy.json", json.loads(json.dumps(content, default=float)))
    (out / page).write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_dataset_parser(__doc__, seeds=10)
    with study.one_line_errors(parser):
        options, fields, csbp = study.parse_dataset(parser, MODULE, arguments)
        out = options.out or study.PRESETS / options.dataset
        earlier(parser, out / "accuracy.json", options, fields)
        plain = replaced(csbp, "chaos.z0", (0.0,))
        results = train_arms({"csbp": csbp, "bp": plain}, options.seeds, options.data_dir)
    content: dict[str, Any] = {"dataset": options.dataset, "fields": fields, "seeds": options.seeds} | summary(results)
    command = study.command_of(parser, f"python -m {MODULE}", options, fields)
    content |= study.provenance(command, ("jax", "flax", "optax", "numpy"))
    content["test_count"] = results["csbp"][0]["last"]["test_count"]
    write(out, content, page(content))
    print(table(content))


if __name__ == "__main__":
    study.run(main)
