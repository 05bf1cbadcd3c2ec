"""Compare the GPU kernels of the neuron with the plain form on this machine's GPU, and time both.

    python -m experiments.gpu_kernel.check

Compares spikes, membranes and gradients, then times a forward and a backward pass. Run it before the kernels are used.
Exits with a one-line message if JAX has no GPU or one before Hopper, or if the two forms differ.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import surrogate
from csbp_jax.neurons import lif_scan
from csbp_jax.neurons.lif import prepare_arguments
from experiments.gpu_kernel import kernel

Lif = Callable[..., tuple[jax.Array, jax.Array]]
TOLERANCE = 1e-4


def options(
    reset: str = "hard", detach: bool = False, residual: str = "full", spike: surrogate.Surrogate = surrogate.triangle()
) -> dict[str, Any]:
    """Static options of a case, as keyword arguments of :func:`gradients`."""
    return {"reset": reset, "detach": detach, "residual": residual, "spike": spike}


# (neurons, with an initial membrane, options); neurons: two blocks that overlap, of one, two and four per thread.
CASES = [
    (131, True, options()),
    (258, False, options("soft", spike=surrogate.arctan())),
    (516, True, options("soft", detach=True, spike=surrogate.sigmoid())),
    (130, False, options("hard", detach=True, spike=surrogate.fast_sigmoid())),
    (132, True, options("none", spike=surrogate.rectangle())),
    (129, True, options("hard", residual="half", spike=surrogate.piecewise_exp())),
    (516, False, options("soft", residual="half")),
]


def draw(*shape: int, seed: int = 0) -> jax.Array:
    """Normal numbers of mean 0.3 and deviation 0.9."""
    return jnp.asarray(np.random.default_rng(seed).normal(0.3, 0.9, shape), jnp.float32)


def arguments(
    batch: int, T: int, width: int, with_membrane: bool = True, dtype: Any = jnp.float32
) -> dict[str, jax.Array]:
    """Arrays of a case: x, decay, threshold and, if there is an initial one, the membrane."""
    membrane = {"membrane": draw(batch, width, seed=1)} if with_membrane else {}
    constants = {"decay": jnp.float32(0.5), "threshold": jnp.float32(0.8)}
    return {"x": draw(batch, T, width).astype(dtype), **constants, **membrane}


def gradients(run: Lif, p: dict[str, jax.Array], reset: Any, detach: bool, residual: str, spike: surrogate.Surrogate):
    """``(gradients, (spikes, membranes))``: gradients of weighted spikes and membranes in every array of ``p``."""

    def loss(p):
        arrays = prepare_arguments(p["x"], p.get("membrane"), p["decay"], p["threshold"], reset)
        inside = surrogate.Surrogate(spike.formula, (p["width"],)) if "width" in p else spike
        spikes, end = run(*arrays, inside, lif_scan.Rule(reset, detach, residual))
        weights = draw(*spikes.shape, seed=2), draw(*end.shape, seed=3)
        return (weights[0] * spikes).sum() + (weights[1] * end).sum(), (spikes, end)

    return jax.jit(jax.grad(loss, has_aux=True))(p)


def differences(actual: Any, expected: Any) -> dict[str, float]:
    """Compare two results of :func:`gradients`.

    Returns ``{"spikes": number that differ, "membrane": largest difference, NAME: largest difference of that gradient
    over its largest entry}``.
    """
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (actual, expected))
    (gradient, (spikes, end)), (gradient_, (spikes_, end_)) = wide
    largest = {name: np.abs(gradient_[name]).max() for name in gradient_}
    return {
        "spikes": int((spikes != spikes_).sum()),
        "membrane": np.abs(end - end_).max(),
        **{name: np.abs(gradient[name] - gradient_[name]).max() / (largest[name] or 1) for name in gradient_},
    }


def seconds(run: Lif, shape: tuple[int, ...], calls: int = 50) -> float:
    """Time a forward and a backward pass, each a program, as between the layers of a net."""
    arrays = prepare_arguments(draw(*shape), None, 0.5, 1.0, "hard")
    spike, rule = surrogate.triangle(), lif_scan.Rule("hard", False)
    forward = jax.jit(lambda x: jax.vjp(lambda x: run(x, *arrays[1:], spike, rule), x))
    backward = jax.jit(lambda pull, bars: pull(bars))
    bars, pull = forward(arrays[0])
    jax.block_until_ready(backward(pull, bars))
    began = time.perf_counter()
    for _ in range(calls):
        outputs, pull = forward(arrays[0])
        gradient = backward(pull, outputs)
    jax.block_until_ready(gradient)
    return (time.perf_counter() - began) / calls


def main() -> None:
    if jax.default_backend() != "gpu":
        sys.exit("gpu_kernel.check: JAX has no GPU on this machine; install jax[cuda12] on a machine with one")
    if kernel.is_before_hopper():
        name = jax.devices()[0].device_kind
        sys.exit(f"gpu_kernel.check: {name} is older than Hopper: it runs the plain neuron, not the kernels")
    runs: dict[str, Lif] = {"kernel": kernel.lif, "plain": lif_scan.lif}
    worst = 0.0
    for width, with_membrane, static in CASES:
        for T in (1, 4, 40):
            actual, expected = (
                gradients(run, arguments(3, T, width, with_membrane), **static) for run in runs.values()
            )
            differ = differences(actual, expected)
            worst = float(np.max([worst, *differ.values()]))  # max would drop what is not a number
            print(width, T, static["reset"], static["residual"], {k: float(f"{v:.1e}") for k, v in differ.items()})
    for T in (4, 16, 32, 100):
        times = {name: seconds(run, (16, T, 62500)) for name, run in runs.items()}
        print(f"T={T}", {name: f"{1e3 * value:.3f} ms" for name, value in times.items()})
    if not worst < TOLERANCE:
        sys.exit(f"gpu_kernel.check: the kernel differs by up to {worst:.1e}; report this, and do not use the kernel")


if __name__ == "__main__":
    main()
