"""The numbers of docs/results/events/plan.md."""

from typing import Any, NamedTuple

from experiments.events.training import BASE

EPOCHS, GAP = 60, 10.0
"""Epochs, which are doubled once if training is less than GAP points above validation."""
CHECK_SEEDS = (100, 101)
SEEDS = 16
MARGIN = 1.0
"""Points within which accuracies are called equal."""
Z0 = 15.0 / 4
"""The released z0 is a mean over 64 and 1,024 channels; over a quarter of them, a quarter pulls each channel alike."""
BETA = 0.935


class Planned(NamedTuple):
    """An arm: its term and rate, and the number of its seeds, from 0 on."""

    term: str
    z0: float
    lr: float
    seeds: int


ARMS = {
    "plain": Planned("chaos", 0.0, 0.1, 16),
    "CSBP": Planned("chaos", Z0, 0.1, 16),
    "linear": Planned("linear", Z0, 0.1, 16),
    "drift": Planned("drift", Z0, 0.1, 4),
    "CSBP, z0 / 4": Planned("chaos", Z0 / 4, 0.1, 6),
    "CSBP, 4 z0": Planned("chaos", 4 * Z0, 0.1, 6),
    "plain, rate 0.03": Planned("chaos", 0.0, 0.03, 6),
    "CSBP, rate 0.03": Planned("chaos", Z0, 0.03, 6),
}


def fields_of(arm: str, epochs: int) -> dict[str, Any]:
    """The fields of an arm; z ends at the same share of z0 however many epochs there are."""
    planned = ARMS[arm]
    return {
        "chaos.term": planned.term,
        "chaos.z0": (planned.z0,) * len(BASE.chaos.taps),
        "chaos.beta": BETA ** (EPOCHS / epochs),
        "optimizer.lr": planned.lr,
        "epochs": epochs,
    }
