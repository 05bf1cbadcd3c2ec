"""cifar10_dvs_small with the neuron as GPU kernels: ``csbp_jax train experiments/gpu_kernel/cifar10_dvs.py``."""

import pathlib
import sys

# The folder experiments is not installed, and a run's copy of this file still has the original's path in __file__.
sys.path.append(str(pathlib.Path(__file__).parents[2]))

from csbp_jax import configs
from experiments.gpu_kernel.kernel import neuron

__all__ = ["config", "neuron"]

config = configs.load("cifar10_dvs_small")
