"""Experiments: arms on cases, tuned with equal tries, tested on fresh seeds, many runs trained at once."""

from csbp_jax.config import extras

extras.need("train", "csbp_jax.experiment")  # before what imports pandas

from csbp_jax.experiment.experiment import Experiment  # noqa: E402
from csbp_jax.experiment.plan import Arm  # noqa: E402
from csbp_jax.experiment.system import System, Training  # noqa: E402

__all__ = ["Arm", "Experiment", "System", "Training"]
