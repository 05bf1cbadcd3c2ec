"""Run the plan of docs/results/delays/plan.md: spoken digits with learned delays of connections, and without.

    python -m experiments.delays [--seeds 2] [--data-dir data] [--out docs/results/delays]

Both networks are two dense layers, trained by plain backpropagation; a pair shares its seed. The splits are those of
``experiments.speakers``. Finished runs are in ``runs/delays`` and not repeated.
"""

from collections.abc import Sequence

import numpy as np

from csbp_jax import Experiment, RunTable
from csbp_jax.configs import load
from csbp_jax.experiment import Training
from experiments import accuracy, study
from experiments.speakers import CASES, KNOWN, SPEAKERS, by_case
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.delays"
UNKNOWN = "unknown, over the six speakers"


def experiment(seeds: int, data_dir: str = "data") -> Experiment:
    """The two arms, which differ in the delays alone, on the split of known speakers and on each unknown one."""
    base = Training(load("fsdd_delays_bp"), data_dir=data_dir)
    return Experiment(base, {"delays": {}, "none": {"model.max_delay": None}}, cases=CASES, seeds=range(seeds))


def summary(table: RunTable) -> Content:
    """Accuracies of the last epoch of each seed, and of each speaker their mean over seeds."""
    last = by_case(table, "last_test_accuracy")
    last[UNKNOWN] = {arm: [float(np.mean(last[speaker][arm])) for speaker in SPEAKERS] for arm in table.arms}
    return {"accuracy": last, "validation": by_case(table, "last_validation_accuracy")[KNOWN]}


def page(content: Content) -> str:
    """Mean accuracies and the paired differences, in Markdown."""
    rows = []
    for split in (KNOWN, *SPEAKERS, UNKNOWN):
        values = content["accuracy"][split]
        difference = np.subtract(values["delays"], values["none"])
        rows.append([split, *(accuracy.cell(student_dict(v)) for v in (*values.values(), difference))])
    return study.table(["speaker of the test split", "delays (%)", "no delays (%)", "difference, paired"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "delays", data_dir=True, seeds=2)
    options = parser.parse_args(arguments)
    with study.one_line_errors(parser):
        table = experiment(options.seeds, options.data_dir).run(study.WORK / "delays")
    origin = study.provenance(f"python -m {MODULE} --seeds {options.seeds}", ("jax", "flax", "optax", "numpy"))
    content = {"seeds": options.seeds} | summary(table) | origin
    study.write(options.out, "delays", content, page(content))


if __name__ == "__main__":
    study.run(main)
