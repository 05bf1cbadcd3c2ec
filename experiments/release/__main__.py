"""Runs the plan of docs/results/release/plan.md and writes its results beside it.

    python -m experiments.release [--part cnn7|small] [--data-dir data] [--out docs/results/release]

What is measured is kept in ``release.json`` and not measured again. MNIST must have been prepared (make data).
"""

import argparse
import json
import pathlib

from csbp_jax.runtime.files import write_json
from experiments.machine import about
from experiments.release import cnn7, small

PARTS = {"cnn7": cnn7, "small": small}


def page(content):
    """What there is, in Markdown."""
    return "\n\n".join("\n".join(module.rows(content)) for part, module in PARTS.items() if part in content)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/release"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "release.json"
    content = (json.loads(file.read_text()) if file.exists() else {}) | about()

    def save(what):
        write_json(file, content)
        print(f"measured: {what}", flush=True)

    for part, module in PARTS.items():
        if options.part in (None, part):
            module.measure(content, save, options.data_dir)
        if part in content:
            module.draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
