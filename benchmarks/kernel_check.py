"""The GPU kernels of the neuron against the plain form, on the GPU that is there: what to run before they are used.

    python -m benchmarks.kernel_check

Compares spikes, membranes and gradients, then times both, forward and backward. Without a GPU it ends with one line.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import surrogate
from csbp_jax.neurons import lif_scan
from csbp_jax.neurons.lif import prepare_arguments
from experiments.gpu_kernel import kernel


def options(reset="hard", detach=False, residual="full", spike=surrogate.triangle()):
    return {"reset": reset, "detach": detach, "residual": residual, "spike": spike}


# Neurons: two blocks that overlap, of one, two and four neurons a thread. Is a membrane given?
CASES = [
    (131, True, options()),
    (258, False, options("soft", spike=surrogate.arctan())),
    (516, True, options("soft", detach=True, spike=surrogate.sigmoid())),
    (130, False, options("hard", detach=True, spike=surrogate.fast_sigmoid())),
    (132, True, options("none", spike=surrogate.rectangle())),
    (129, True, options("hard", residual="half", spike=surrogate.piecewise_exp())),
    (516, False, options("soft", residual="half")),
]


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0.3, 0.9, shape), jnp.float32)


def arguments(batch, T, width, given=True, dtype=jnp.float32):
    membrane = {"membrane": draw(batch, width, seed=1)} if given else {}
    numbers = {"decay": jnp.float32(0.5), "threshold": jnp.float32(0.8)}
    return {"x": draw(batch, T, width).astype(dtype), **numbers, **membrane}


def gradients(run, p, reset, detach, residual, spike):
    """Of weighted spikes and membranes in all of ``p``, and these: ``(gradients, (spikes, membranes))``."""

    def loss(p):
        arrays = prepare_arguments(p["x"], p.get("membrane"), p["decay"], p["threshold"], reset)
        inside = surrogate.Surrogate(spike.formula, (p["width"],)) if "width" in p else spike
        spikes, end = run(*arrays, inside, reset, detach, residual)
        weights = draw(*spikes.shape, seed=2), draw(*end.shape, seed=3)
        return (weights[0] * spikes).sum() + (weights[1] * end).sum(), (spikes, end)

    return jax.jit(jax.grad(loss, has_aux=True))(p)


def differences(found, expected):
    """``{spikes: how many differ, membrane: largest difference, NAME: of a gradient, over its largest}``."""
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (found, expected))
    (gradient, (spikes, end)), (gradient_, (spikes_, end_)) = wide
    largest = {name: np.abs(gradient_[name]).max() for name in gradient_}
    return {
        "spikes": int((spikes != spikes_).sum()),
        "membrane": np.abs(end - end_).max(),
        **{name: np.abs(gradient[name] - gradient_[name]).max() / (largest[name] or 1) for name in gradient_},
    }


def seconds(run, shape, calls=50):
    """A forward and a backward pass, each a program, as between the layers of a net."""
    x = draw(*shape)
    rest = options().values()
    arrays = prepare_arguments(x, None, 0.5, 1.0, "hard")
    reset, detach, residual, spike = rest
    forward = jax.jit(lambda x: jax.vjp(lambda x: run(x, *arrays[1:], spike, reset, detach, residual), x))
    backward = jax.jit(lambda pull, bars: pull(bars))
    bars, pull = forward(x)
    jax.block_until_ready(backward(pull, bars))
    began = time.perf_counter()
    for _ in range(calls):
        outputs, pull = forward(x)
        found = backward(pull, outputs)
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / calls


def main():
    if jax.default_backend() != "gpu":
        sys.exit("kernel_check: no GPU here that JAX can use; install jax[cuda12] on a machine with one")
    runs = {"kernel": kernel.lif, "plain": lif_scan.lif}
    worst = 0.0
    for width, given, static in CASES:
        for T in (1, 4, 40):
            found, expected = (gradients(run, arguments(3, T, width, given), **static) for run in runs.values())
            differ = differences(found, expected)
            worst = max(worst, *differ.values())
            print(width, T, static["reset"], static["residual"], {k: float(f"{v:.1e}") for k, v in differ.items()})
    for T in (4, 16, 32, 100):
        times = {name: seconds(run, (16, T, 62500)) for name, run in runs.items()}
        print(f"T={T}", {name: f"{1e3 * value:.3f} ms" for name, value in times.items()})
    sys.exit(
        0 if worst < 1e-4 else f"kernel_check: differences up to {worst:.1e}; please report this, and do not use it"
    )


if __name__ == "__main__":
    main()
