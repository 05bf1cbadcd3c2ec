"""Run the plan of docs/results/delays/plan.md: spoken digits with learned delays of connections, and without.

    python -m experiments.delays [--seeds 2] [--data-dir data] [--out docs/results/delays]

Both networks are two dense layers, trained by plain backpropagation; a pair shares its seed. The splits are those of
``experiments.speakers``. Finished runs under ``runs/accuracy`` are not repeated.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from csbp_jax.config import Config, replaced
from csbp_jax.configs import load
from experiments import accuracy, study
from experiments.speakers import KNOWN, SPEAKERS, left_out
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.delays"
ARMS = ("delays", "none")
UNKNOWN = "unknown, over the six speakers"


def arms() -> dict[str, Config]:
    """The two configs, which differ in the delays alone."""
    delays = load("fsdd_delays_bp")
    return {"delays": delays, "none": replaced(delays, "model.max_delay", None)}


def summary(splits: Mapping[str, Mapping[str, Sequence[Content]]]) -> Content:
    """Accuracies of the last epoch of each seed, and of each speaker their mean over seeds."""
    last = {
        split: {arm: [run["last"]["test_accuracy"] for run in of_arm[arm]] for arm in ARMS}
        for split, of_arm in splits.items()
    }
    last[UNKNOWN] = {arm: [float(np.mean(last[speaker][arm])) for speaker in SPEAKERS] for arm in ARMS}
    return {
        "accuracy": last,
        "validation": {arm: [run["last"]["validation_accuracy"] for run in splits[KNOWN][arm]] for arm in ARMS},
        "median_seconds": {
            arm: float(np.median([run["seconds"] for of_arm in splits.values() for run in of_arm[arm]])) for arm in ARMS
        },
    }


def table(content: Content) -> str:
    """Mean accuracies and the paired differences, in Markdown."""
    rows = []
    for split in (KNOWN, *SPEAKERS, UNKNOWN):
        values = content["accuracy"][split]
        difference = np.subtract(values["delays"], values["none"])
        rows.append([split, *(accuracy.cell(student_dict(v)) for v in (*values.values(), difference))])
    return study.table(["speaker of the test split", "delays (%)", "no delays (%)", "difference, paired"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "delays", data_dir=True)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    splits = {}
    with study.one_line_errors(parser):
        for split in (KNOWN, *SPEAKERS):
            print(split, flush=True)
            configs = {arm: left_out(config, "" if split == KNOWN else split) for arm, config in arms().items()}
            splits[split] = accuracy.train_arms(configs, options.seeds, options.data_dir)
    content = {"seeds": options.seeds} | summary(splits)
    content |= study.provenance(f"python -m {MODULE} --seeds {options.seeds}", ("jax", "flax", "optax", "numpy"))
    options.out.mkdir(parents=True, exist_ok=True)
    study.write(options.out, "delays", json.loads(json.dumps(content, default=float)), table(content))


if __name__ == "__main__":
    study.run(main)
