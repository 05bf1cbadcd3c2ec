"""Run the cases and write their largest differences from the PyTorch references.

    python -m experiments.parity [--cases CASE ...] [--out docs/results/parity]

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
    """A table in Markdown, a row a case and a column a quantity."""
    rows = [[name, *(f"{row[quantity]:.0e}" for quantity in QUANTITIES)] for name, row in differences.items()]
    return study.table(["network, recipe", *QUANTITIES.values()], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "parity")
    parser.add_argument("--cases", nargs="+", choices=cases.CASES, metavar="CASE")
    options = parser.parse_args(arguments)
    file = options.out / "parity.json"
    content: study.Content = json.loads(file.read_text()) if options.cases else {}
    known: dict[str, dict[str, float]] = content.get("largest_relative_difference", {})
    differences: dict[str, dict[str, float]] = {}
    for name, config in cases.CASES.items():
        if options.cases and name not in options.cases:
            differences |= {name: known[name]} if name in known else {}
            continue
        with np.load(f"tests/data/parity_{name}.npz") as reference:
            differences[name] = ours.largest_differences(ours.run(config), dict(reference))
        print(name, f"{max(differences[name].values()):.0e}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content["largest_relative_difference"] = differences
    command = " ".join(["python -m experiments.parity", *(["--cases", *options.cases] if options.cases else [])])
    made = study.provenance(command, ("jax", "flax", "optax", "numpy"))
    if options.cases:
        content["later"] = [*content.get("later", []), made]
    else:
        content |= made
    study.write_json(file, content)
    (options.out / "README.md").write_text(
        f"""# Networks and recipes against PyTorch references

{table(differences)}

Largest difference in float64, relative to the quantity's largest value, over {cases.STEPS} training steps (SGD,
momentum 0.9, weight decay 5e-4) from the same weights and batches; true depth, reduced width, dropout off. The
references are written from the definitions, in `experiments/parity`, and their results are in
`tests/data/parity_*.npz`. `experiments/parity/cases.py` lists the cases with their norms, neurons, losses and taps.

Made by {", ".join(f"`{made['command']}`" for made in (content, *content.get("later", [])))}; `parity.json` holds the
numbers.
"""
    )
    print(table(differences))


if __name__ == "__main__":
    study.run(main)
