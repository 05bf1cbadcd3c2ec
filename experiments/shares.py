"""Shares of starts, and paired tests between conditions that had the same starts."""

import numpy as np
from scipy import stats


def share(found):
    """A share and its 95 % Wilson interval."""
    low, high = stats.binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
    return {"share": float(found.mean()), "low": low, "high": high}


def compared(results, reference):
    """Each condition against the reference, start by start: difference, McNemar's exact p, Holm's correction."""
    bits = {name: np.array(list(map(int, r["solved"]))) for name, r in results.items()}
    found = {}
    for name, mine in bits.items():
        if name != reference:
            more, less = int((mine > bits[reference]).sum()), int((mine < bits[reference]).sum())
            p = stats.binomtest(more, more + less).pvalue if more + less else 1.0
            found[name] = {"difference": (more - less) / len(mine), "p": p}
    corrected = holm({name: one["p"] for name, one in found.items()})
    for name, one in found.items():
        one["p_holm"] = corrected[name]
    return found


def holm(ps):
    """Holm's correction of ``{name: p}``."""
    corrected, worst = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=ps.__getitem__)):
        corrected[name] = worst = max(worst, min(1.0, ps[name] * (len(ps) - rank)))
    return corrected
