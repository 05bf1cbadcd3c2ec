"""The mixed model of the study, in the closed form that balanced paired runs have, and its verdicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from csbp_jax.reporting.intervals import student
from experiments.claims import report
from experiments.statistics import holm, paired_t
from experiments.study import Content

CONTRASTS = {"C-P": ("C", "P"), "C-D": ("C", "D"), "D-P": ("D", "P")}
MARGIN, INFERIORITY = 0.5, -0.25
"""In points: of equivalence, and above which a method's lower end counts as no harm."""


def pooled(differences: NDArray[np.float64]) -> Content:
    """Effect of the term over methods, from the paired differences of each, ``[methods, seeds]``.

    The model is ``accuracy ~ term x method`` with seed within method random. For balanced pairs its effect of the term
    is the mean of all differences, and its residual the mean square of differences within methods:

        mean +- t s / sqrt(K n),    s**2 = MS within, with K (n - 1) degrees of freedom
        F of the interaction = MS between / MS within

    Returns:
      ``{mean, low, high, sd, n, p, tost, F, p_interaction, random_low, random_high, tau, weighted}``. random_low and
      random_high: the interval of the mean over methods like these (methods random: Student's t over their means). tau:
      the standard deviation of true effects over methods. weighted: see :func:`weighted`.
    """
    count, seeds = differences.shape
    means, mean = differences.mean(axis=1), float(differences.mean())
    within = float(differences.var(axis=1, ddof=1).mean())
    between = float(seeds * means.var(ddof=1))
    freedom = count * (seeds - 1)
    error = np.sqrt(within / (count * seeds))
    half = stats.t.ppf(0.975, freedom) * error
    ratio = between / within
    _, random_low, random_high = student(means.tolist())
    assert random_low is not None and random_high is not None
    return {
        "mean": mean,
        "low": float(mean - half),
        "high": float(mean + half),
        "sd": float(np.sqrt(within)),
        "n": count * seeds,
        "p": float(2 * stats.t.sf(abs(mean) / error, freedom)),
        "tost": float(stats.t.sf((MARGIN - abs(mean)) / error, freedom)),
        "F": ratio,
        "p_interaction": float(stats.f.sf(ratio, count - 1, freedom)),
        "random_low": random_low,
        "random_high": random_high,
        "tau": float(np.sqrt(max(0.0, (between - within) / seeds))),
        "weighted": weighted(differences),
    }


def weighted(differences: NDArray[np.float64]) -> dict[str, float]:
    """Effect over methods with weights by precision, for methods whose spread over seeds differs (not planned).

    Random effects by DerSimonian and Laird (Controlled Clinical Trials 1986), ``{mean, low, high, p_Q}``, with p of
    Cochran's test of equal effects. The interval is that of Hartung and Knapp (Statistics in Medicine 2001): Student's
    t with the spread of the methods about their mean, as the normal one is too narrow for a few methods that differ.
    The error is at least that of DerSimonian and Laird (Roever, Knapp and Friede, BMC Med. Res. Methodol. 2015).
    """
    means = differences.mean(axis=1)
    variances = np.maximum(differences.var(axis=1, ddof=1) / differences.shape[1], 1e-12)
    weights = 1 / variances
    q = float(weights @ (means - weights @ means / weights.sum()) ** 2)
    freedom = len(means) - 1
    between = max(0.0, (q - freedom) / (weights.sum() - weights @ weights / weights.sum()))
    weights = 1 / (variances + between)
    mean = float(weights @ means / weights.sum())
    spread = max(1.0, float(weights @ (means - mean) ** 2) / freedom)
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(spread / weights.sum()))
    return {"mean": mean, "low": mean - half, "high": mean + half, "p_Q": float(stats.chi2.sf(q, freedom))}


def leave_one_out(differences: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """The pooled effect without each method in turn, ``{method: {mean, low, high}}`` (not planned)."""
    effects = {}
    for method in differences:
        rest = pooled(np.stack([values for name, values in differences.items() if name != method]))
        effects[method] = {name: rest[name] for name in ("mean", "low", "high")}
    return effects


def of_method(differences: NDArray[np.float64]) -> dict[str, float]:
    """Mean and interval of one method's differences, and p of the paired t test."""
    mean, low, high = student(differences.tolist())
    assert low is not None and high is not None
    return {"mean": mean, "low": low, "high": high, "p": paired_t(differences, np.zeros_like(differences))}


def analyse(accuracy: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> Content:
    """Contrasts of a data set, by method and pooled, and its verdicts.

    Args:
      accuracy: ``{method: {"P", "C", "D": percent [seeds]}}``, of one seed count.
    """
    methods: dict[str, dict[str, dict[str, float]]] = {}
    family = {}
    for name, (first, second) in CONTRASTS.items():
        differences = {method: values[first] - values[second] for method, values in accuracy.items()}
        family[name] = pooled(np.stack(list(differences.values())))
        corrected = holm({method: of_method(d)["p"] for method, d in differences.items()})
        for method, d in differences.items():
            methods.setdefault(method, {})[name] = of_method(d) | {"holm": corrected[method]}
    primary = {name: family[name] for name in ("C-P", "C-D")}
    corrected = holm({name: pair["p"] for name, pair in primary.items()})
    primary = {name: pair | {"holm": corrected[name]} for name, pair in primary.items()}
    content: Content = {
        "methods": methods,
        "pooled": family | primary,
        "without": leave_one_out({method: values["C"] - values["P"] for method, values in accuracy.items()}),
        "verdict": report.verdict(primary),
    }
    return content | {"any method": any_method(content)}


def any_method(analysis: Mapping[str, Any]) -> str:
    """Whether the term works with any method on a data set: the word of the plan."""
    effects = [contrasts["C-P"] for contrasts in analysis["methods"].values()]
    word = analysis["verdict"].partition(";")[0]
    if word in ("chaos helps", "the pull helps") and all(effect["low"] > INFERIORITY for effect in effects):
        return "confirmed"
    if word in ("nothing", "harm") or any(effect["holm"] < 0.05 and effect["mean"] < 0 for effect in effects):
        return "refuted"
    return "not decided"


def overall(words: list[str]) -> str:
    """The verdict over data sets: confirmed on all, refuted on one, or else not decided."""
    if "refuted" in words:
        return "refuted"
    return "confirmed" if set(words) == {"confirmed"} else "not decided"
