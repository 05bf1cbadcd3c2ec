"""Run the plan of docs/results/released_code/fixed_batch/plan.md and write its results beside it.

    python -m experiments.release [--part cnn7|small] [--data-dir data] [--out docs/results/released_code/fixed_batch]

Finished measurements are read from ``release.json`` and not repeated. MNIST must have been prepared (make data).
"""

from collections.abc import Sequence
from typing import Any

from experiments import study
from experiments.release import cnn7, small
from experiments.study import Content

MODULE = "python -m experiments.release"

PARTS: dict[str, Any] = {"cnn7": cnn7, "small": small}


def page(content: Content) -> str:
    """The tables of the parts that are measured, in Markdown."""
    return "\n\n".join("\n".join(module.rows(content)) for part, module in PARTS.items() if part in content)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "released_code/fixed_batch", data_dir=True)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args(arguments)
    file = options.out / "release.json"
    content = study.resume(parser, file, {}, {})

    def save(name):
        study.store(file, content, MODULE)
        print(f"measured: {name}", flush=True)

    for part, module in PARTS.items():
        if options.part in (None, part):
            module.measure(content, save, options.data_dir)
        if part in content:
            module.draw(content, options.out)
    study.write(options.out, "release", content, page(content))


if __name__ == "__main__":
    study.run(main)
