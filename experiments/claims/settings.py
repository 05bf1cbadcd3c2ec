"""Conditions of the study of generalisation, and their random settings."""

import numpy as np

from experiments.claims import runs
from experiments.study import Content

PRIMARY = ("P", "C", "D", "S")
NAMES = {
    "P": "plain backpropagation",
    "C": "CSBP",
    "D": "drift",
    "S": "10 sub-steps",
    "L": "linear pull",
    "N": "noise",
    "LS": "label smoothing",
    "WD": "weight decay",
    "DO": "dropout",
    "RMP": "membrane regulariser",
    "SAM": "SAM",
}


def draw_settings() -> dict[str, list[Content]]:
    """The random settings of every condition, 16 of P and 8 of each other."""
    generator = np.random.default_rng(20240601)

    def log_uniform(low: float, high: float) -> float:
        return float(f"{np.exp(generator.uniform(np.log(low), np.log(high))):.4g}")

    def uniform(low: float, high: float) -> float:
        return float(f"{generator.uniform(low, high):.4g}")

    plain = [{"lr": log_uniform(0.01, 0.5), "width": log_uniform(0.3, 3)} for _ in range(16)]
    strengths = [{"flips": log_uniform(0.002, 2), "beta": uniform(0.6, 0.98)} for _ in range(8)]
    return {
        "P": plain,
        **{name: strengths for name in ("C", "D", "S", "L", "N")},
        "LS": [{"smoothing": uniform(0.02, 0.4)} for _ in range(8)],
        "WD": [{"decay": log_uniform(1e-4, 3e-2)} for _ in range(8)],
        "DO": [{"dropout": uniform(0.05, 0.6)} for _ in range(8)],
        "RMP": [{"membrane": log_uniform(0.01, 10)} for _ in range(8)],
        "SAM": [{"radius": log_uniform(0.01, 1)} for _ in range(8)],
    }


SETTINGS = draw_settings()
KIND = {"S": "substeps", "N": "noise", "SAM": "sam"}
"""Programs of conditions that have one of their own."""
TERM = {"D": "drift", "L": "linear"}


def knobs_of(condition: str, setting: Content, base: Content, unit: float) -> runs.Knobs:
    """Knobs of a run: P's setting or its base, with the condition's own on top; ``unit`` is the flip ratio at z = 1."""
    own = {name: value for name, value in setting.items() if name != "flips"}
    strength = {"z0": setting["flips"] / unit} if "flips" in setting else {}
    terms = dict.fromkeys(("chaos", "drift", "linear"), 0.0) | {TERM.get(condition, "chaos"): 1.0}
    return runs.OFF | base | own | strength | terms
