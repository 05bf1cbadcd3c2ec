"""Experiments: arms on cases, tuned with equal tries, tested on fresh seeds, many runs trained at once."""

from csbp_jax.experiment.experiment import Experiment
from csbp_jax.experiment.plan import Arm
from csbp_jax.experiment.system import System, Training

__all__ = ["Arm", "Experiment", "System", "Training"]
