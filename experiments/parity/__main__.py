"""Run every case and write the largest differences from the PyTorch references: ``python -m experiments.parity``."""

from collections.abc import Mapping, Sequence

import numpy as np

from csbp_jax.runtime.files import write_json
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
    options = study.make_parser(__doc__, "parity").parse_args(arguments)
    differences = {}
    for name, config in cases.CASES.items():
        with np.load(f"tests/data/parity_{name}.npz") as reference:
            differences[name] = ours.largest_differences(ours.run(config), dict(reference))
        print(name, f"{max(differences[name].values()):.0e}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "largest_relative_difference": differences,
        **study.provenance("python -m experiments.parity", ("jax", "flax", "optax", "numpy")),
    }
    write_json(options.out / "parity.json", content)
    (options.out / "README.md").write_text(
        f"""# Networks and recipes against PyTorch references

{table(differences)}

Largest difference in float64, relative to the quantity's largest value, over {cases.STEPS} training steps (SGD,
momentum 0.9, weight decay 5e-4) from the same weights and batches; true depth, reduced width, dropout off. The
references are written from the definitions, in `experiments/parity`, and their results are in
`tests/data/parity_*.npz`. `experiments/parity/cases.py` lists the cases with their norms, neurons, losses and taps.

Made by `{content["command"]}`; `parity.json` holds the numbers.
"""
    )
    print(table(differences))


if __name__ == "__main__":
    main()
