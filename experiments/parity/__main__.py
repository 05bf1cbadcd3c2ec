"""Runs every case and writes the largest differences from the twins: ``python -m experiments.parity``."""

import argparse
import os
import pathlib
import platform
from importlib import metadata

import numpy as np

from csbp_jax.runtime.files import write_json
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


def table(differences):
    """Case x quantity, in Markdown."""
    lines = [f"| network, recipe | {' | '.join(QUANTITIES.values())} |", "|---" * (1 + len(QUANTITIES)) + "|"]
    for name, row in differences.items():
        lines.append(f"| {name} | {' | '.join(f'{row[quantity]:.0e}' for quantity in QUANTITIES)} |")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/parity"))
    options = parser.parse_args(arguments)
    differences = {}
    for name, config in cases.CASES.items():
        with np.load(f"tests/data/parity_{name}.npz") as reference:
            differences[name] = ours.largest_differences(ours.run(config), dict(reference))
        print(name, f"{max(differences[name].values()):.0e}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "command": "python -m experiments.parity",
        "largest_relative_difference": differences,
        "versions": {package: metadata.version(package) for package in ("jax", "flax", "optax", "numpy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
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
