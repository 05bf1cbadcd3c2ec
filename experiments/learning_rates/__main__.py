"""Run the plan of docs/results/learning_rates/plan.md: time to accuracy and exponents over learning rates.

    python -m experiments.learning_rates [--starts 10] [--out docs/results/learning_rates]

Finished rates are read from ``learning_rates.json`` and not measured again.
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.learning_rates import systems
from experiments.learning_rates.systems import CONDITIONS, SUBSTEPS
from experiments.statistics import half_widths, mean_text
from experiments.study import Content

MODULE = "python -m experiments.learning_rates"
RATIOS = [2.0**power for power in range(-4, 7)]
"""Flip ratios of the task at the first step, one per rate."""
LIMITS = (1000, 300)
"""Steps at most, below the flip and from it on."""
FACTOR, MARGIN, DRAWS = 2, 0.1, 2000

Array = NDArray[np.float64]


def measured(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Content:
    """Measure every rate of every system that the file lacks, and return its content."""
    file = options.out / "learning_rates.json"
    content = study.resume(parser, file, {"starts": options.starts, "ratios": RATIOS}, {"systems": {}})
    for network, name in systems.systems():
        results = content["systems"].setdefault(f"{network}, {name}", {condition: [] for condition in CONDITIONS})
        if all(len(results[condition]) == len(RATIOS) for condition in CONDITIONS):
            continue
        system = systems.make(network, name)
        states = systems.begin(system, options.starts)
        base = results.setdefault("flip rate", systems.flip_rate(system, states))
        for condition, (i, ratio) in itertools.product(CONDITIONS, enumerate(RATIOS)):
            if len(results[condition]) > i:
                continue
            row = systems.measure(system, condition, states, ratio * base, LIMITS[ratio >= 1])
            results[condition].append(row)
            study.store(file, content, MODULE)
            reached = [time for time in row["time"] if time]
            line = f"{len(reached)} reach 90 %, in {np.mean(reached or [np.nan]):.0f} steps"
            print(f"{network}, {name}, {condition}, ratio {ratio:g}: {line}", flush=True)
    return content


# --- endpoints ----------------------------------------------------------------------------------------------------


def column(rows: Sequence[Content], name: str) -> Array:
    """A quantity of all rates and starts, ``[rates, starts]``; NaN where there is none."""
    return np.array([row[name] for row in rows], float)


def mean_times(times: Array) -> Array:
    """Geometric mean of the times over starts, ``[rates]``; NaN where a start does not reach the accuracy."""
    return np.exp(np.mean(np.log(times), axis=1))


def fastest(times: Array) -> int | None:
    """Number of the rate with the shortest time among those that count; None if none does."""
    mean = mean_times(times)
    return None if np.isnan(mean).all() else int(np.nanargmin(mean))


def zero(exponents: Array) -> float:
    """Place of the first zero from negative to positive among the rates, by linear interpolation; NaN without one."""
    mean = exponents.mean(axis=1)
    for i, (low, high) in enumerate(itertools.pairwise(mean)):
        if low < 0 <= high:
            return float(i - low / (high - low))
    return float("nan")


def coincidence(times: Array, exponents: Array) -> Content:
    """The plan's endpoint 1: ``{fastest, zero, low, high, share, verdict}``.

    ``fastest`` and ``zero`` are numbers of rates (half numbers lie between two), ``low`` and ``high`` the ends of the
    bootstrap interval of their difference, in factors of 2, over the share of the samples that have both.
    """
    best, crossing = fastest(times), zero(exponents)
    result: Content = {"fastest": best, "zero": study.finite_or_none(crossing)}
    generator, starts = np.random.default_rng(0), times.shape[1]
    samples = [generator.integers(0, starts, starts) for _ in range(DRAWS)]
    bests = [fastest(times[:, sample]) for sample in samples]
    differences = np.array(
        [np.nan if b is None else b - zero(exponents[:, s]) for b, s in zip(bests, samples, strict=True)]
    )
    share = float(np.isfinite(differences).mean())
    result["share"] = share
    if share < 0.95:
        return result | {"verdict": "no zero" if best is not None else "no rate counts"}
    low, high = np.nanquantile(differences, (0.025, 0.975))
    within = low >= -1 and high <= 1
    outside = low > 1 or high < -1
    verdict = "coincides" if within else "does not" if outside else "not decided"
    return result | {"low": float(low), "high": float(high), "verdict": verdict}


def ratio_of_times(direct: Array, substeps: Array) -> Content | None:
    """The plan's endpoint 2 at one rate, ``{ratio, low, high, p, verdict}``; None unless all starts have both times."""
    logs = np.log(substeps) - np.log(direct)
    if not np.isfinite(logs).all() or len(logs) < 2:
        return None
    mean, error = float(logs.mean()), float(logs.std(ddof=1) / np.sqrt(len(logs)))
    half, narrow = (float(stats.t.ppf(q, len(logs) - 1)) * error for q in (0.975, 0.95))
    low, high = np.exp(mean - half), np.exp(mean + half)
    p = float(2 * stats.t.sf(abs(mean) / error, len(logs) - 1)) if error else float(mean == 0)
    equal = np.log(1 - MARGIN) < mean - narrow and mean + narrow < np.log(1 + MARGIN)
    verdict = "slower" if low > 1 else "faster" if high < 1 else "equal" if equal else "not decided"
    return {"ratio": float(np.exp(mean)), "low": float(low), "high": float(high), "p": p, "verdict": verdict}


def endpoints(results: Content) -> Content:
    """Both endpoints of a system, also that of the excess."""
    direct, substeps = results["direct"], results["sub-steps"]
    times, slow_times = column(direct, "time"), column(substeps, "time")
    exponents = column(direct, "exponent")
    ratios = [ratio_of_times(a, b) for a, b in zip(times, slow_times, strict=True)]
    best = fastest(times)
    return {
        "exponent": coincidence(times, exponents),
        "excess": coincidence(times, exponents - column(substeps, "exponent")),
        "ratios": ratios,
        "at the fastest": ratios[best] if best is not None else None,
        "at the fastest, first passage": first_passages(results, best),
        "fastest of sub-steps": fastest(slow_times),
    }


def first_passages(results: Content, rate: int | None) -> Content | None:
    """The ratio of first passages at a rate, which the plan does not ask for."""
    if rate is None:
        return None
    direct, substeps = (column(results[condition], "passage")[rate] for condition in CONDITIONS)
    return ratio_of_times(direct, substeps)


# --- page ---------------------------------------------------------------------------------------------------------


def page(content: Content) -> str:
    """The endpoints, then the rates of every system."""
    finished = {name: results for name, results in content["systems"].items() if is_finished(results)}
    tables = [endpoint_table(finished), control_table(finished)]
    for name, results in finished.items():
        tables += [f"### {name}", times_table(results), exponents_table(results)]
    return "\n\n".join(tables)


def is_finished(results: Content) -> bool:
    """Whether all rates of a system are measured."""
    return all(len(results[condition]) == len(RATIOS) for condition in CONDITIONS)


def at(position: float | None) -> str:
    """The flip ratio of a number of a rate."""
    return "none" if position is None else f"{RATIOS[0] * FACTOR**position:.3g}"


def endpoint_table(finished: Content) -> str:
    """Endpoint 1 of every system."""
    rows = []
    for name, results in finished.items():
        for kind in ("exponent", "excess"):
            end = results["endpoints"][kind]
            interval = f"{end['low']:+.2f} to {end['high']:+.2f}" if "low" in end else ""
            signs = sign_text(results, kind)
            share = f"{100 * end['share']:.0f}"
            rows.append([name, kind, at(end["fastest"]), at(end["zero"]), interval, share, end["verdict"], signs])
    head = ["system", "of", "fastest, at flip ratio", "zero, at flip ratio", "log2(fastest / zero), 95 %"]
    return study.table([*head, "samples with both (%)", "verdict", "mean exponents, from the smallest rate on"], rows)


def sign_text(results: Content, kind: str) -> str:
    """Signs of the mean exponents over the rates."""
    exponents = column(results["direct"], "exponent")
    if kind == "excess":
        exponents = exponents - column(results["sub-steps"], "exponent")
    return "`" + "".join("?" if np.isnan(x) else "-+"[int(x >= 0)] for x in exponents.mean(axis=1)) + "`"


def control_table(finished: Content) -> str:
    """Endpoint 2 of every system."""
    rows = []
    for name, results in finished.items():
        ends = results["endpoints"]
        best, control = ends["exponent"]["fastest"], ends["fastest of sub-steps"]
        times = {condition: mean_times(column(results[condition], "time")) for condition in CONDITIONS}
        pair = ends["at the fastest"]
        rows.append(
            [
                name,
                at(best),
                "" if best is None else f"{times['direct'][best]:.1f}",
                "" if best is None else f"{times['sub-steps'][best]:.1f}",
                ratio_text(pair),
                pair["verdict"] if pair else "none",
                ratio_text(ends["at the fastest, first passage"]),
                at(control),
                "" if control is None else f"{times['sub-steps'][control]:.1f}",
            ]
        )
    head = ["system", "fastest, at flip ratio", "steps, direct", f"in {SUBSTEPS} sub-steps"]
    head += ["ratio, sub-steps / direct", "sub-steps are", "ratio of first passages"]
    head += ["fastest of sub-steps, at", "steps"]
    return study.table(head, rows)


def ratio_text(pair: Content | None) -> str:
    """A ratio of times with its interval and p."""
    return f"{pair['ratio']:.3g} [{pair['low']:.3g}, {pair['high']:.3g}], p {pair['p']:.2g}" if pair else "none"


def times_table(results: Content) -> str:
    """Times over the rates."""
    rows = []
    for i, ratio in enumerate(RATIOS):
        cells = [f"{ratio:g}", f"{ratio * results['flip rate']:.3g}"]
        for condition in CONDITIONS:
            row = results[condition][i]
            times = column([row], "time")
            cells.append(f"{np.isfinite(times).sum()}")
            cells += [time_text(times), time_text(column([row], "passage"))]
        pair = results["endpoints"]["ratios"][i]
        rows.append([*cells, ratio_text(pair), pair["verdict"] if pair else ""])
    head = ["flip ratio, first step", "rate"]
    head += [
        f"{c}: {text}" for c in CONDITIONS for text in ("starts that reach", "steps, held", "steps, first passage")
    ]
    return study.table([*head, "sub-steps / direct", "sub-steps are"], rows)


def time_text(times: Array) -> str:
    """Geometric mean of the times of a rate."""
    mean = mean_times(times)[0]
    return "" if np.isnan(mean) else f"{mean:.1f}"


def exponents_table(results: Content) -> str:
    """Exponents and flip ratios over the rates."""
    rows = []
    for i, ratio in enumerate(RATIOS):
        direct, substeps = results["direct"][i], results["sub-steps"][i]
        exponents, others = column([direct], "exponent")[0], column([substeps], "exponent")[0]
        cells = [mean_or_none(values) for values in (exponents, others, exponents - others)]
        cells += [mean_or_none(column([direct], name)[0]) for name in ("later", "growth")]
        cells += [
            f"{np.mean(np.array(row['flip'][when], float)):.3g}"
            for row in (direct, substeps)
            for when in ("half", "end")
        ]
        rows.append([f"{ratio:g}", *cells])
    head = ["flip ratio, first step", "exponent, direct (nats per step)", "sub-steps", "excess", "direct, later"]
    head += ["growth at 1e-2", "flip ratio, direct: half", "end", f"sub-steps, at rate / {SUBSTEPS}: half", "end"]
    return study.table(head, rows)


def mean_or_none(values: Array) -> str:
    """Mean and interval, where all starts have a value."""
    return mean_text(values) if np.isfinite(values).all() else "none"


def draw(content: Content, options: argparse.Namespace) -> None:
    """Draw times, exponents and flip ratios over rates: a column a system."""
    finished = {name: results for name, results in content["systems"].items() if is_finished(results)}
    figure = empty_figure(3.4 * len(finished), 9)
    for axes, (name, results) in zip(
        figure.subplots(3, len(finished), sharey="row", squeeze=False).T, finished.items(), strict=True
    ):
        time, exponent, flip = axes
        for color, condition in zip(PALETTE, CONDITIONS, strict=False):
            rows = results[condition]
            time.plot(RATIOS, mean_times(column(rows, "time")), ".-", color=color, label=condition)
            band(exponent, column(rows, "exponent"), {"color": color})
            for when, style in (("half", "--"), ("end", "-")):
                values = np.array([row["flip"][when] for row in rows], float).mean(axis=1)
                flip.plot(RATIOS, values, style, marker=".", color=color)
        band(exponent, column(results["direct"], "later"), {"color": PALETTE[2], "label": "direct, later"})
        flip.plot(RATIOS, RATIOS, color="black", lw=0.8, label="first step")
        time.set(title=name, yscale="log", ylabel="steps to 90 %, held" if name == next(iter(finished)) else "")
        exponent.set_ylabel("exponent (nats per step)" if name == next(iter(finished)) else "")
        exponent.set_yscale("symlog", linthresh=0.02)
        flip.set(yscale="log", xlabel="flip ratio of the task, first step")
        flip.set_ylabel("flip ratio (dashed: half the time)" if name == next(iter(finished)) else "")
        exponent.axhline(0, color="black", lw=0.8)
        flip.axhline(1, color="black", lw=0.8, ls=":")
        best = results["endpoints"]["exponent"]["fastest"]
        for panel in axes:
            panel.set_xscale("log", base=2)
            if best is not None:
                panel.axvline(RATIOS[best], color=PALETTE[0], lw=0.8, ls=":")
    handles = [line for panel in (time, exponent, flip) for line in panel.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    study.save_figure(figure, options.out, "learning_rates")


def band(axes: Any, values: Array, style: dict[str, Any]) -> None:
    """Draw the mean over starts with its 95 % interval."""
    mean, half = values.mean(axis=1), half_widths(values.T)
    axes.plot(RATIOS, mean, ".-", **style)
    axes.fill_between(RATIOS, mean - half, mean + half, color=style["color"], alpha=0.2, lw=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "learning_rates")
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args(arguments)
    content = measured(options, parser)
    for results in content["systems"].values():
        if is_finished(results):
            results["endpoints"] = endpoints(results)
    draw(content, options)
    study.write(options.out, "learning_rates", content, page(content))


if __name__ == "__main__":
    study.run(main)
