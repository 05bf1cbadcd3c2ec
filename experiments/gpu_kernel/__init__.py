"""The LIF neuron as Pallas GPU kernels (Mosaic GPU), used as a neuron of one's own.

    python -m experiments.gpu_kernel.check                    # compare with the plain form on this GPU, and time
    csbp_jax train experiments/gpu_kernel/cifar10_dvs.py      # train with it

A file of your own imports :func:`experiments.gpu_kernel.kernel.neuron` beside its ``config``, as cifar10_dvs.py does.
"""
