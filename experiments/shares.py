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
    ordered, corrected = sorted(found, key=lambda name: found[name]["p"]), 0.0
    for rank, name in enumerate(ordered):
        corrected = max(corrected, min(1.0, found[name]["p"] * (len(ordered) - rank)))
        found[name]["p_holm"] = corrected
    return found
