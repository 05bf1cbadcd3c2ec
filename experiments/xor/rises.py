"""Measure how far annealed runs of the primary conditions of docs/results/xor_tuned expand, at their chosen settings.

    python -m experiments.xor.rises [--out docs/results/xor_tuned] [--starts 256]

Reads ``tuned.json``, and writes ``rises.json`` and ``rises.md``. It was not in the plan of that study. Finished
conditions are not repeated.
"""

import json
from collections.abc import Sequence

import numpy as np

from csbp_jax.instruments.classify import RISE
from csbp_jax.runtime.files import write_json
from experiments import study
from experiments.statistics import share_text
from experiments.study import Content
from experiments.xor.tuned import COMPARED, PRIMARY_FIRST, TEST_SEEDS, draw_settings, measure_rise


def page(content: Content) -> str:
    """A row a condition: median and quartiles of its rises, and whether solved starts have the larger ones."""
    rows = []
    for name, rise in content["conditions"].items():
        low, median, high = np.quantile(rise["nats"], (0.25, 0.5, 0.75))
        expanding = f"{100 * np.mean(np.array(rise['nats']) >= RISE):.0f}"
        above = rise["solved_above_unsolved"]
        rows.append([name, f"{median:.1f} ({low:.1f} to {high:.1f})", expanding, share_text(above) if above else ""])
    head = ["condition", "rise (nats), median (quartiles)", f"{RISE:g} nats or more (%)"]
    return f"""# XOR with equal tuning: rises of the annealed runs

The largest growth of a small difference along the annealed run ([rise](../../lab.md#rise-of-the-run-that-is-trained)),
of {content["starts"]} of the fresh starts, each condition at its chosen setting. Not in the [plan](plan.md). Made by
`python -m experiments.xor.rises`; `rises.json` holds all rises, the versions and the machine.

{study.table([*head, "a solved start has the larger rise (%)"], rows)}"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "xor_tuned")
    parser.add_argument("--starts", type=int, default=256)
    options = parser.parse_args(arguments)
    tuned = json.loads((options.out / "tuned.json").read_text())
    file = options.out / "rises.json"
    content = study.resume(parser, file, {"starts": options.starts, "steps": tuned["steps"]}, {"conditions": {}})
    settings, seeds = draw_settings(tuned["tries"]), TEST_SEEDS + np.arange(options.starts)
    for name in PRIMARY_FIRST:
        if name not in content["conditions"]:
            result, kind = tuned["conditions"][name], COMPARED[name].kind
            setting = settings[int(np.argmax(result["tuning"]))]
            setting = setting._replace(z0=0.0) if kind.alone else setting
            rise = measure_rise(setting, seeds, result["solved"], tuned["steps"], kind._replace(alone=False))
            content["conditions"][name] = rise | {"nats": [round(nats, 4) for nats in rise["nats"]]}
            write_json(file, content)
            print(f"{name:30} {np.median(rise['nats']):.2f} nats", flush=True)
    content |= study.provenance("python -m experiments.xor.rises")
    write_json(file, content)
    (options.out / "rises.md").write_text(page(content) + "\n")


if __name__ == "__main__":
    main()
