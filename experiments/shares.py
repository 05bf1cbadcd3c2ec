"""Shares of starts, and paired tests between conditions that had the same starts."""

import numpy as np
from scipy import stats


def share(found):
    """A share and its 95 % Wilson interval."""
    low, high = stats.binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
    return {"share": float(found.mean()), "low": low, "high": high}


def compared(results, reference):
    """Each condition against the reference, start by start: difference, McNemar's exact p, Holm's correction.

    ``half`` is half the difference's 95 % interval, by the normal distribution of paired shares.
    """
    bits = {name: np.array(list(map(int, r["solved"]))) for name, r in results.items()}
    found = {}
    for name, mine in bits.items():
        if name != reference:
            more, less = int((mine > bits[reference]).sum()), int((mine < bits[reference]).sum())
            p = stats.binomtest(more, more + less).pvalue if more + less else 1.0
            half = stats.norm.ppf(0.975) * np.sqrt(more + less - (more - less) ** 2 / len(mine)) / len(mine)
            found[name] = {"difference": (more - less) / len(mine), "half": float(half), "p": p}
    corrected = holm({name: one["p"] for name, one in found.items()})
    for name, one in found.items():
        one["p_holm"] = corrected[name]
    return found


def points(pair):
    """A difference with half its 95 % interval, in points."""
    return f"{100 * pair['difference']:+.1f} ± {100 * pair['half']:.1f}"


def holm(ps):
    """Holm's correction of ``{name: p}``."""
    corrected, worst = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=ps.__getitem__)):
        corrected[name] = worst = max(worst, min(1.0, ps[name] * (len(ps) - rank)))
    return corrected
