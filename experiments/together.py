"""Combine the paired accuracies of several data sets: does CSBP differ from plain backpropagation over all of them?

    python -m experiments.together [--out docs/results/together]

Reads the ``accuracy.json`` of digits, digits_events and mnist, which ``experiments.accuracy`` made.
"""

from collections.abc import Sequence

import numpy as np

from experiments import study
from experiments.statistics import mean_text, paired_t, stouffer
from experiments.study import Content

DATASETS = ("digits", "digits_events", "mnist")


def combine(accuracies: dict[str, dict[str, Sequence[float]]]) -> Content:
    """Compare both arms, ``{dataset: {"csbp": ..., "bp": ...}}``, in each data set and over all of them.

    Returns:
      ``{datasets: {name: {differences, p}}, pairs: {below, equal, above}, stouffer: {z, p}}``.
    """
    datasets = {}
    for name, arms in accuracies.items():
        csbp, bp = np.array(arms["csbp"]), np.array(arms["bp"])
        datasets[name] = {"differences": (csbp - bp).tolist(), "p": paired_t(csbp, bp)}
    signs = np.sign(np.concatenate([result["differences"] for result in datasets.values()]))
    counts = {name: int((signs == sign).sum()) for name, sign in (("below", -1), ("equal", 0), ("above", 1))}
    ps = [result["p"] for result in datasets.values()]
    z, p = stouffer(ps, [float(np.sign(np.mean(result["differences"]))) for result in datasets.values()])
    return {"datasets": datasets, "pairs": counts, "stouffer": {"z": z, "p": p}}


def page(content: Content) -> str:
    """The table, and a sentence on all data sets."""
    rows = []
    for name, result in content["datasets"].items():
        points = [100 * difference for difference in result["differences"]]
        rows.append([name, str(len(points)), mean_text(points, ".2f"), f"{result['p']:.2g}"])
    table = study.table(["data set", "pairs", "CSBP - BP (points), 95 % interval", "p"], rows)
    counts, combined = content["pairs"], content["stouffer"]
    words = (
        f"CSBP is below plain backpropagation in {counts['below']} pairs, equal in {counts['equal']} and above in "
        f"{counts['above']}. Combined over the data sets (Stouffer): z = {combined['z']:+.2f}, two-sided "
        f"p = {combined['p']:.2g}."
    )
    return f"{table}\n\n{words}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "together")
    options = parser.parse_args(arguments)
    accuracies = {}
    for name in DATASETS:
        file, command = study.RESULTS / name / "accuracy.json", f"python -m experiments.accuracy {name}"
        of_name = study.read(parser, file, command)
        if fields := of_name.get("fields"):
            parser.error(f"{file}: not of the preset, but of {' '.join(fields)}; move it away and run {command}")
        accuracies[name] = of_name["accuracy"]["last"]
    content = combine(accuracies)
    options.out.mkdir(parents=True, exist_ok=True)
    study.write(options.out, "together", content, page(content))


if __name__ == "__main__":
    study.run(main)
