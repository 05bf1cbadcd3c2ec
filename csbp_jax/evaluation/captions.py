"""Captions of the figures of runs: what is drawn, and from how many examples, epochs or seeds."""

import pathlib
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.evaluation import restore
from csbp_jax.runs.table import RunTable
from csbp_jax.runtime import files
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import read_rows

_SYNOPS = (
    "Operations of a synapse at a time step are accumulates (AC) if all its inputs are -1, 0 or 1, otherwise "
    "multiply-accumulates (MAC), as after grey values and averages or sums of spikes."
)


def caption(folder: pathlib.Path, figure: str) -> str:
    """Return the caption of a figure of a run.

    Args:
      folder: the directory of the run.
      figure: its path below ``folder/figures``, without its ending. A figure that is not drawn by this package, or
        whose numbers are missing or damaged, keeps this path as its caption.
    """
    try:
        if figure.startswith("evaluation-"):
            return _evaluation(files.read_json(folder / f"{figure}.json"))
        if figure.startswith("inspect/"):
            return _inspection(figure.removeprefix("inspect/"), files.read_json(folder / "inspect.json"))
        if figure == "robustness":
            return _robustness(files.read_json(folder / "robustness.json"))
        return _training(figure, folder)
    except (ConfigError, OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return figure


def of_table(table: RunTable) -> str:
    """Return the caption of the figure of a table of runs."""
    tests = table.frame[table.frame["role"] == "test"]
    measure = table.measures[0].replace("_", " ")
    return f"{measure.capitalize()} of {len(tests)} runs, a point for each, pairs joined; means with 95 % intervals."


def _training(figure: str, folder: pathlib.Path) -> str:
    config = run_json.read_config(folder, run_json.REPAIR)["config"]
    rows = read_rows(folder / "metrics.jsonl")
    last = [row for row in rows if row["kind"] == "epoch"][-1]
    length = f"{last['epoch']} epochs, {last['step']} steps"
    validation = f" and on {last['validation_count']} validation examples" if "validation_count" in last else ""
    texts = {
        "training": f"Training over {length}: losses of batches of {config['batch_size']} examples; chaos strength z; "
        f"accuracy of each epoch on the training examples{validation}.",
        "rates": f"Firing rate of each layer, mean of each epoch, over {length} of training.",
    }
    return texts[figure]


def _evaluation(result: dict[str, Any]) -> str:
    names = [row["class"] for row in result["per_class"]]
    numbered = [f"#{i} {name}" for i, name in enumerate(names) if not name.isascii()]
    weights = f"{restore.WEIGHTS_LABELS[result['weights_of']]} ({result['epoch']})"
    return (
        f"Evaluation on {result['count']} examples of the {result['split']} split, {weights}. Left: confusion matrix; "
        "numbers are examples. Middle: accuracy of the logits averaged over the first 1 to "
        f"{len(result['accuracy_by_time'])} time steps, all on the same examples. Right: accuracy over mean "
        "confidence, in bins of confidence. Bars are 95 % Wilson intervals."
        + (f" Classes: {', '.join(numbered)}." if numbered else "")
    )


def _inspection(figure: str, result: dict[str, Any]) -> str:
    split = f"of the {result['split']} split"
    first, all_examples = f"the first example {split}", f"{result['examples']} examples {split}"
    texts = {
        "raster": f"Spikes (black) of {first}: a row per neuron, a column per time step.",
        "membranes": f"Membrane potentials of four neurons of each layer, from the median to the most excited one, on "
        f"{first}: up to the value before reset, then down to that after it.",
        "rates": f"Firing rates of the neurons of each layer over {all_examples}.",
        "spikes": f"Number of spikes of each layer in each of {all_examples}.",
        "operations": f"Synaptic operations, mean of {all_examples}. {_SYNOPS}",
    }
    return texts[figure]


def _robustness(result: dict[str, Any]) -> str:
    plan, runs = result["plan"], result["runs"]
    counts = {len(run[key]) for run in runs for key in ("examples", "attacked") if run[key]}
    number = f"{len(runs)} runs" if len(runs) > 1 else "one run"
    return (
        f"Accuracy of {number} under each perturbation, on {' or '.join(map(str, sorted(counts)))} examples of the "
        f"{plan['split']} split, from clean to the most severe. Bars are 95 % intervals, over the seeds of a setting, "
        "or else over examples."
    )
