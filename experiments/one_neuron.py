"""Train one neuron to be silent: the authors' demonstration of chaos in training, and its bifurcations.

    python -m experiments.one_neuron [--out DIR]

Source: Z. Wang, P. Tao, L. Chen, "Brain-inspired chaotic spiking backpropagation", National Science Review 11(6),
2024, nwae037. One weight, one bias, input 1, target rate 0, plain SGD; with ``H`` the step and ``s`` the spikes:

    h = w 1 + b        u[t] = 0.2 u[t-1] (1 - s[t-1]) + h        s[t] = H(u[t] - 1)        t = 0 .. T-1
    L = (sum of s / 10)**2 + z (softplus(h) - 0.65 h)            z[n] = 10 * 0.9995**n

The sum is divided by 10 for T = 10 and for T = 20 alike; the published picture is T = 20 in float32. The start
``w + b = 0.5 + 0.5`` lies exactly on the threshold, so the value of ``H(0)`` matters: both are shown.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from csbp_jax import chaos
from csbp_jax.neurons import lif
from experiments import study

TARGET, SCALE, DECAY, START = 0.65, 1.0, 0.2, 0.5
STEPS, Z0, BETA, LR, BP_LR = 4000, 10.0, 0.9995, 1.0, 0.001
# Of the term alone: lr (1 + input**2) z sigmoid'(h) = 2 at its fixed point; first and last positive exponent.
FLIP, CHAOS = 1 / (TARGET * (1 - TARGET)), (7.2, 9.8)
BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"  # Okabe and Ito

Weights = tuple[jax.Array, jax.Array]
"""``(w, b)``."""


def loss(
    weights: Weights,
    z: Any,
    *,
    time_steps: int,
    threshold: Any = 1.0,
    divisor: float = 10.0,
    target: Any = TARGET,
) -> tuple[jax.Array, jax.Array]:
    """``(L, squared rate)``. A threshold of infinity leaves the chaos term alone."""
    w, b = weights
    h = w * 1 + b
    spikes, _ = lif(jnp.broadcast_to(h, (1, time_steps)), DECAY, threshold)
    squared_rate = (spikes.sum() / divisor) ** 2
    return squared_rate + z * chaos.term(h, target, SCALE), squared_rate


def update(weights: Weights, z: Any, lr: Any, **variant: Any) -> tuple[Weights, jax.Array]:
    """A step of SGD as a map: ``(new weights, squared rate before it)``; ``variant`` holds keywords of loss."""
    (_, squared_rate), gradient = jax.value_and_grad(loss, has_aux=True)(weights, z, **variant)
    return jax.tree.map(lambda p, g: p - lr * g, weights, gradient), squared_rate


@functools.partial(jax.jit, static_argnames=("steps", "time_steps"))
def trajectory(
    start: ArrayLike, z0: Any, beta: Any, lr: Any, *, steps: int = STEPS, **variant: Any
) -> tuple[jax.Array, jax.Array]:
    """``w`` and the squared rate before each of ``steps`` updates, from ``w = b = start``, z annealed."""

    def step(weights, n):
        new, squared_rate = update(weights, chaos.strength(n, z0, beta), lr, **variant)
        return new, (weights[0], squared_rate)

    start = jnp.asarray(start, jnp.result_type(float))
    return lax.scan(step, (start, start), jnp.arange(steps))[1]


@functools.partial(jax.jit, static_argnames=("transient", "keep", "time_steps"))
def bifurcation(
    zs: jax.Array, starts: jax.Array, *, transient: int = 1000, keep: int = 24, lr: float = LR, **variant: Any
) -> jax.Array:
    """The ``w`` visited at fixed z after a transient, ``[z, start, keep]``; many starts, since attractors coexist."""

    def orbit(z, start):
        def step(weights, _):
            return update(weights, z, lr, **variant)[0], weights[0]

        weights, _ = lax.scan(step, (start, start), length=transient)
        return lax.scan(step, weights, length=keep)[1]

    return jax.vmap(jax.vmap(orbit, (None, 0)), (0, None))(zs, starts)


def inclusive(threshold: float = 1.0) -> np.floating[Any]:
    """The next float below: ``u > inclusive(1)`` is ``u >= 1``, that is ``H(0) = 1``, without rounding."""
    return np.nextafter(jnp.result_type(float).type(threshold), 0)


def irregular(w: ArrayLike, window: int = 48, longest: int = 16, tolerance: float = 0.05) -> NDArray[np.intp]:
    """Steps whose next ``window`` values of ``w`` have no period up to ``longest``; cycles may drift, as z does."""
    w = np.asarray(w)
    regular = np.zeros(len(w) - window, bool)
    for period in range(1, longest + 1):
        difference = np.abs(w[period:] - w[:-period])
        worst = np.lib.stride_tricks.sliding_window_view(difference, window - period).max(axis=1)
        regular = regular | (worst[: len(w) - window] < tolerance)
    return np.flatnonzero(~regular)


def stretches(steps: NDArray[np.intp], gap: int = 100) -> list[tuple[int, int]]:
    """``(first, last)`` of the stretches that sorted step numbers form; gaps shorter than ``gap`` are bridged."""
    parts = np.split(steps, np.flatnonzero(np.diff(steps) >= gap) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts if part.size]


def settled(w: ArrayLike, tolerance: float = 0.01) -> int:
    """The step from which ``w`` stays within ``tolerance`` of its last value."""
    return int(np.flatnonzero(np.abs(np.asarray(w) - np.asarray(w)[-1]) >= tolerance).max(initial=-1)) + 1


def measure(time_steps: int) -> dict[str, NDArray[Any]]:
    """Everything that the figure shows of a variant."""
    zs, starts, spread = jnp.linspace(Z0, 0.1, 500), jnp.linspace(-6.0, 4.0, 8), jnp.linspace(-1e-3, 1e-3, 41)
    data: dict[str, Any] = {"z": zs, "term_alone": bifurcation(zs, starts, time_steps=1, threshold=jnp.inf)}
    for name, threshold in (("H0", 1.0), ("H1", inclusive())):
        run = functools.partial(trajectory, START, time_steps=time_steps, threshold=threshold)
        data[f"csbp_{name}"], data[f"rate2_{name}"] = run(Z0, BETA, LR)
        data[f"bp_{name}"], data[f"bp_rate2_{name}"] = run(0.0, 1.0, BP_LR)
        nearby = jax.vmap(lambda z0, run=run: run(z0, BETA, LR)[0])(Z0 + spread)
        data[f"settled_{name}"] = [settled(w) for w in np.asarray(nearby)]
    data["visited"] = bifurcation(zs, starts, time_steps=time_steps)
    return {key: np.asarray(value) for key, value in data.items()}


def report(time_steps: int, data: dict[str, NDArray[Any]]) -> str:
    """Two lines on a variant: chaos against the control, and the effect of ``H(0)``."""
    w, other, bp = data["csbp_H0"], data["csbp_H1"], data["bp_H0"]
    wandering = ", ".join(f"{first}-{last}" for first, last in stretches(irregular(w)))
    chance = [f"{data[key].min()}-{data[key].max()}" for key in ("settled_H0", "settled_H1")]
    return (
        f"T={time_steps}: with chaos, w wanders over [{w.min():.2f}, {w.max():.2f}]. It has no period in steps "
        f"{wandering}, and is at rest at {w[-1]:.4f} from step {settled(w)} on. Without chaos it goes from "
        f"{bp[0]:.1f} to {bp[-1]:.4f} by step {settled(bp)}.\n"
        f"T={time_steps}, H(0)=1: a different path with the same end, {other[-1]:.4f} from step {settled(other)} on. "
        f"For z0 = 10 +- 0.001 the end is reached at steps {chance[1]}, and with H(0)=0 at steps {chance[0]}."
    )


def draw_trajectory(axis: Any, w: ArrayLike, bp: ArrayLike) -> None:
    """Draw the chaotic run as dots and the control as a line."""
    axis.plot(w, ".", color=BLUE, markersize=2, rasterized=True)
    axis.plot([], [], ".", color=BLUE, markersize=8, label="with chaos (CSBP)")
    axis.plot(bp, color=VERMILION, linewidth=1.6, label="without ($z$ = 0, lr = 0.001)")
    axis.set(xlim=(0, STEPS), xticks=range(0, STEPS, 1000))


def draw_strength(axis: Any) -> None:
    """Draw a second scale, for z, on top of a trajectory."""
    ticks, top = (10, 7, 5, 3, 2, 1.5), axis.secondary_xaxis("top")
    top.set_xticks(np.log(np.array(ticks) / Z0) / np.log(BETA), labels=[f"{z:g}" for z in ticks])
    top.set_xlabel("chaos strength $z$ at this step")


def draw_bifurcation(axis: Any, z: NDArray[Any], visited: NDArray[Any], term_alone: NDArray[Any]) -> None:
    """Draw the visited w at fixed z over those of the term alone, with the theory of the latter as thin lines.

    The fixed point turns stable at the flip with spikes too, but the term's range of chaos is not that of the whole
    loss: spikes lock it to a cycle (T = 10), make it irregular again (T = 20), and keep cycles alive below the flip.
    """
    for w, color in ((term_alone, ORANGE), (visited, BLUE)):
        axis.plot(np.repeat(z, w[0].size), w.ravel(), ".", color=color, markersize=0.7, rasterized=True)
    axis.plot([], [], ".", color=ORANGE, markersize=8, label="chaos term alone")
    lines = functools.partial(axis.vlines, ymin=0, ymax=1, transform=axis.get_xaxis_transform(), colors="black", lw=0.8)
    lines(FLIP, linestyle="--", label=f"its flip, $z$ = {FLIP:.2f}")
    lines(CHAOS, linestyle=":", label=f"its chaos, {CHAOS[0]} < $z$ < {CHAOS[1]}")
    axis.set(xlim=(Z0, 0), xticks=range(0, 11, 2))


def figure(variants: dict[int, dict[str, NDArray[Any]]]) -> Figure:
    """A row for each variant: the annealed run with ``H(0) = 0``, with ``H(0) = 1``, and bifurcations."""
    fig = Figure(figsize=(10, 6), layout="constrained")
    axes = fig.subplots(len(variants), 3, sharex="col", sharey="row")
    for row, (time_steps, data) in zip(axes, variants.items(), strict=True):
        draw_trajectory(row[0], data["csbp_H0"], data["bp_H0"])
        draw_trajectory(row[1], data["csbp_H1"], data["bp_H1"])
        draw_bifurcation(row[2], data["z"], data["visited"], data["term_alone"])
        for axis, label in zip(row, ("$H(0)$ = 0", "$H(0)$ = 1", "fixed $z$"), strict=True):
            axis.text(0.97, 0.95, f"T = {time_steps}, {label}", transform=axis.transAxes, ha="right", va="top")
        row[0].set_ylabel("weight $w$")
    for axis, label in zip(axes[-1], ("step", "step", "chaos strength $z$"), strict=True):
        axis.set_xlabel(label)
    for axis in axes[0, :2]:
        draw_strength(axis)
    handles = [handle for axis in axes[0, ::2] for handle in axis.get_legend_handles_labels()[0]]
    fig.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return fig


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__)
    parser.set_defaults(out=pathlib.Path("demo"))
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    sentences = [
        "The start w + b = 1 lies exactly on the threshold, so H(0) decides the first spike. Both values are shown."
    ]
    variants = {time_steps: measure(time_steps) for time_steps in (10, 20)}
    for time_steps, data in variants.items():
        study.write_arrays(out / f"one_neuron_T{time_steps}.npz", data)
        sentences += report(time_steps, data).split("\n")
    origin = study.provenance(f"python -m experiments.one_neuron --out {out}")
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    page = [
        "# One neuron",
        "Is the training of a single neuron chaotic with the term, and does it settle as z is annealed?",
        "**Yes: the weight wanders without a period for hundreds of steps and comes to rest, where the term alone "
        "would.** "
        f"It is not an advantage on this task: plain descent, at a rate of {BP_LR:g} for {LR:g}, comes to rest "
        "sooner, elsewhere.",
        "![weight over steps and over fixed z](one_neuron.png)",
        *sentences,
        "The start is at the edge of a jump, so the path and the step at which it ends depend on H(0) and on changes "
        "of z0 by a thousandth. [Exponents](../bifurcations/README.md).",
        f"Made by `{origin['command']}`, on {jax.default_backend()} ({versions}; "
        f"{origin['machine']}); the `.npz` files hold the plotted data.",
    ]
    (out / "README.md").write_text("\n\n".join(page) + "\n")
    study.save_figure(figure(variants), out, "one_neuron", dpi=150)
    print(
        "Left and middle: a neuron learns to be silent. With the chaos term (dots) its weight wanders without a "
        "period for hundreds of steps, and comes to rest as the strength z is annealed.\n"
        "Without the term (line) it comes to rest sooner: chaos is shown here, and no advantage.\n"
        "Right: at fixed z, the weights that it visits. They are many where z is large, and one where z is small.\n"
        f"Figure: {out / 'one_neuron.png'}; numbers and how they were made: {out / 'README.md'}"
    )


if __name__ == "__main__":
    study.run(main)
