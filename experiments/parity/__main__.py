"""Run the cases and write their largest differences from the PyTorch references.

    python -m experiments.parity [--cases CASE ...] [--out docs/checks/parity]

With ``--cases``, the other cases are read from ``parity.json`` and not run.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from experiments import study
from experiments.parity import cases, ours

QUANTITIES = {
    "before": "logits, evaluation, before",
    "logits": "logits, training",
    "task_loss": "task loss",
    "chaos_loss": "chaos loss",
    "grad_norm": "gradient norm",
    "statistics": "running statistics",
    "after": "logits, evaluation, after",
}


def table(differences: Mapping[str, Mapping[str, float]]) -> str:
    """The largest difference of each quantity over the cases, in Markdown."""
    rows = []
    for quantity, label in QUANTITIES.items():
        case = max(differences, key=lambda name: differences[name][quantity])
        rows.append([label, f"{differences[case][quantity]:.0e}", f"`{case}`"])
    return study.table(["quantity", "largest relative difference", "in"], rows)


def page(content: study.Content) -> str:
    """The text of README.md."""
    differences: dict[str, dict[str, float]] = content["largest_relative_difference"]
    largest = max(value for row in differences.values() for value in row.values())
    commands = (f"`{made['command']}`" for made in (content, *content.get("later", [])))
    return f"""# Agreement with PyTorch

Do networks, losses and training steps give what PyTorch references give?

**Yes: over {cases.STEPS} training steps in float64 the largest relative difference of {len(differences)} networks and
recipes is {largest:.0e}.** At reduced width, with dropout off.

{table(differences)}

SGD with momentum 0.9 and weight decay 5e-4, from the same weights and batches, at true depth. The references are
written from the definitions, in `experiments/parity`; their results are in `tests/data/parity_*.npz`. The cases, with
the norms, neurons, losses and taps that `experiments/parity/cases.py` lists: {", ".join(differences)}.

Made by {", ".join(commands)}; `parity.json` holds every difference.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, study.CHECKS / "parity")
    parser.add_argument("--cases", nargs="+", choices=cases.CASES, metavar="CASE")
    options = parser.parse_args(arguments)
    file = options.out / "parity.json"
    content: study.Content = json.loads(file.read_text()) if options.cases else {}
    known: dict[str, dict[str, float]] = content.get("largest_relative_difference", {})
    differences: dict[str, dict[str, float]] = {}
    for name, config in cases.CASES.items():
        if not options.cases or name in options.cases:
            with np.load(f"tests/data/parity_{name}.npz") as reference:
                differences[name] = ours.largest_differences(ours.run(config), dict(reference))
            print(name, f"{max(differences[name].values()):.0e}", flush=True)
        elif name in known:
            differences[name] = known[name]
    content["largest_relative_difference"] = differences
    command = " ".join(["python -m experiments.parity", *(["--cases", *options.cases] if options.cases else [])])
    study.sign(content, study.provenance(command, ("jax", "flax", "optax", "numpy")))
    study.write_json(file, content)
    (options.out / "README.md").write_text(page(content))
    print(table(differences))


if __name__ == "__main__":
    study.run(main)
