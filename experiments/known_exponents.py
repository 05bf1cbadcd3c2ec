"""Compare exponents and their standard errors with four maps whose exponents are known.

    python -m experiments.known_exponents [--out docs/checks/known_exponents] [--starts 64]

The scatter of the exponents over starts is the true standard error of one run; the ratio of the reported standard error
to it should be 1. Takes about a minute.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from csbp_jax.dynamics.state import summary
from experiments import study
from experiments.study import Content

CHUNKS = (200, 1000)
"""Lengths of the runs, in chunks."""

RATE = 0.01
"""Time of a step of the Lorenz flow."""

ROUNDING = 1e-7
"""Scatter that is rounding or, of the sum of the Lorenz flow's exponents, the error of its steps."""


class System(NamedTuple):
    """A map, and what is known of it; None for what is not.

    step: of one state ``[n]``. scale: starts are uniform in [0.1, scale + 0.1]. every, warmup: steps per chunk, and
    before the first; by then the starts are independent. exponents, total: in nats per step, each and their sum.
    dimension: of Kaplan and Yorke.
    """

    step: Callable[[jax.Array, Any], jax.Array]
    scale: tuple[float, ...]
    every: int
    warmup: int
    exponents: tuple[float | None, ...]
    total: float
    dimension: float


def logistic(x: jax.Array, _: Any) -> jax.Array:
    """The logistic map at rate 4."""
    return 4 * x * (1 - x)


def henon(state: jax.Array, _: Any) -> jax.Array:
    """Hénon's map at 1.4 and 0.3."""
    x, y = state
    return jnp.stack([1 - 1.4 * x**2 + y, 0.3 * x])


def standard(state: jax.Array, _: Any) -> jax.Array:
    """The standard map at K = 8, which preserves areas."""
    angle, momentum = state
    momentum = (momentum + 8 * jnp.sin(angle)) % (2 * jnp.pi)
    return jnp.stack([(angle + momentum) % (2 * jnp.pi), momentum])


def lorenz(state: jax.Array, _: Any) -> jax.Array:
    """A step of fourth-order Runge-Kutta through the Lorenz flow at 10, 28 and 8/3."""

    def slope(state: jax.Array) -> jax.Array:
        x, y, z = state
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    a = slope(state)
    b = slope(state + RATE / 2 * a)
    c = slope(state + RATE / 2 * b)
    d = slope(state + RATE * c)
    return state + RATE / 6 * (a + 2 * b + 2 * c + d)


# Exponents and dimensions of Hénon's map and the Lorenz flow: Sprott, Chaos and Time-Series Analysis (2003).
SYSTEMS = {
    "logistic, r = 4": System(logistic, (0.8,), 1, 100, (float(np.log(2)),), float(np.log(2)), 1.0),
    "Hénon": System(henon, (0.1, 0.1), 1, 100, (0.41922, -1.62319), float(np.log(0.3)), 1.25827),
    "standard map, K = 8": System(standard, (3.0, 3.0), 1, 100, (None, None), 0.0, 2.0),
    "Lorenz, RK4, step 0.01": System(
        lorenz, (1.0, 1.0, 20.0), 10, 5000, (RATE * 0.9056, 0.0, -RATE * 14.5723), -RATE * 41 / 3, 2.06215
    ),
}


def measure(system: System, starts: int) -> Content:
    """Measure all exponents over starts, at all lengths: plain numbers."""
    size = len(system.scale)
    with study.float64():
        states = 0.1 + jnp.asarray(np.random.default_rng(0).uniform(size=(starts, size)) * np.array(system.scale))
        batches = [None] * (system.warmup + system.every * max(CHUNKS))
        options: dict[str, Any] = {"every": system.every, "warmup": system.warmup}
        history = np.asarray(dynamics.lyapunov_many(system.step, states, batches, size, **options)[2])
        results: Content = {}
        for chunks in CHUNKS:
            exponents, errors, _ = summary([*history[:chunks]])
            results[str(chunks)] = {
                f"exponent {i + 1}": {"values": exponents[:, i].tolist(), "errors": errors[:, i].tolist()}
                for i in range(size)
            }
            for name, function in (("sum", jnp.sum), ("dimension", dynamics.kaplan_yorke)):
                runs = [dynamics.delta_method(function, history[:chunks, k]) for k in range(starts)]
                results[str(chunks)][name] = {
                    "values": [value for value, _ in runs],
                    "errors": [error for _, error in runs],
                }
    return results


def page(content: Content) -> str:
    """The table: known and measured values, scatter over starts, and ratio of the reported error to it."""
    rows = []
    for name, system in SYSTEMS.items():
        known = {f"exponent {i + 1}": exponent for i, exponent in enumerate(system.exponents)}
        if len(known) > 1:
            known |= {"sum": system.total, "dimension": system.dimension}
        for quantity, value in known.items():
            for chunks in CHUNKS:
                result = content["systems"][name][str(chunks)][quantity]
                mean, scatter = np.mean(result["values"]), np.std(result["values"], ddof=1)
                if scatter > ROUNDING:
                    half_width = 2 * scatter / content["starts"] ** 0.5
                    ratio = np.mean(result["errors"]) / scatter
                    cells = [f"{mean:.5g} ± {half_width:.1g}", f"{scatter:.2g}", f"{ratio:.2f}"]
                else:
                    cells = [f"{mean if abs(mean) > ROUNDING else 0:.5g}", "0", ""]
                rows.append([name, quantity, "" if value is None else f"{value:.5g}", str(chunks), *cells])
    head = ["map", "quantity", "known", "chunks", "mean over starts", "scatter over starts", "reported error / scatter"]
    return study.table(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, study.CHECKS / "known_exponents", starts=64)
    options = parser.parse_args(arguments)
    if options.starts < 2:
        parser.error("--starts: at least 2, since a scatter needs two")
    systems = {name: measure(system, options.starts) for name, system in SYSTEMS.items()}
    content: Content = {
        "starts": options.starts,
        "systems": jax.tree.map(lambda number: float(f"{number:.6g}"), systems),
        **study.provenance("python -m experiments.known_exponents"),
    }
    study.write(options.out, "known_exponents", content, page(content))


if __name__ == "__main__":
    study.run(main)
