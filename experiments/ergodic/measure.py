"""Recorded orbits of a system, and the plan's measures of them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from csbp_jax import dynamics
from csbp_jax.instruments import classify
from csbp_jax.reporting.statistics import holm
from experiments.ergodic import ergodicity, known
from experiments.ergodic.series import permutation_entropy, spectral_flatness, zero_one_test
from experiments.ergodic.surrogates import iaaft, matching_ends, nonlinearity_test
from experiments.ergodic.systems import System
from experiments.study import Content, finite_or_none

SAME, SLOW, LEVEL, MOST = 1.05, 100, 0.05, 0.95
"""R-hat of equal distributions; autocorrelation times that a record must hold; level of the energy test; share of
observables that must pass."""

LARGEST = 1e9
"""What stands for an infinite R-hat, which JSON has no number for."""

ORBITS, ALIGN, COUNTED = 16, 50, 1000
"""Orbits, steps in which directions align, and steps of the exponents."""

SERIES, LENGTH, DISTINCT, SURROGATES, TEST_LEVEL, IRREGULAR = 4, known.LENGTH, 500, 79, 0.025, 0.8
"""Series of an observable, their length, fewest distinct values, surrogates, level of each test, least K."""

CURVE = tuple(int(n) for n in np.unique(np.geomspace(1, 20_000, 25).round()))
"""Steps at which the mean number of distinct functions is stored."""

FUNCTIONS, XOR = 16, 0b0110

Array = NDArray[Any]


# --- orbits -------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """Orbits of all starts.

    functions: truth tables of the first steps, ``[starts, steps]``, or None; orbits: observables of the steps after
    them, ``[starts, steps, observables]``; pushes: root mean square of the term's push in these, tensor by tensor, or
    None; states: at the end.
    """

    functions: Array | None
    orbits: Array
    pushes: dict[str, float] | None
    states: Any


@functools.partial(jax.jit, static_argnames=("system", "steps", "what"))
def _steps(system: System, states: Any, key: jax.Array, steps: int, what: str) -> tuple[Any, Any, Any]:
    """``(states, values [steps, starts, ...], sums of squared pushes)`` of ``what``: "function" or "observe"."""
    starts = len(jax.tree.leaves(states)[0])
    read = getattr(system, what)
    push = system.push if what == "observe" else None

    def squares(states: Any) -> Any:
        if push is None:
            return None
        return {name: jnp.mean(value**2) for name, value in jax.vmap(push)(states).items()}

    def step(carry: Any, n: jax.Array) -> tuple[Any, Any]:
        states, total = carry
        total = jax.tree.map(jnp.add, total, squares(states))
        keys = jax.random.split(jax.random.fold_in(key, n), starts)
        states = jax.vmap(system.step)(states, keys)
        return (states, total), jax.vmap(read)(states) if read else None

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(squares, states)) if push else None
    (states, total), values = lax.scan(step, (states, zeros), jnp.arange(steps))
    return states, values, total


def begin(system: System, strength: float, starts: int, noise: Any = None) -> Any:
    """The states of all starts."""
    return jax.vmap(lambda seed: system.start(seed, strength, noise))(jnp.arange(starts))


def functions_from_start(system: System, states: Any, steps: int) -> tuple[Array | None, Any]:
    """Truth tables of the first steps, ``[starts, steps]``, and the states after them."""
    states, values, _ = _steps(system, states, jax.random.key(0), steps, "function")
    return (None if values is None else np.asarray(values).T), states


def record(system: System, strength: float, starts: int, steps: int) -> Record:
    """Record ``steps`` steps after as many that are only classified."""
    functions, states = functions_from_start(system, begin(system, strength, starts), steps)
    states, values, total = _steps(system, states, jax.random.key(1), steps, "observe")
    pushes = {name: float(np.sqrt(value / steps)) for name, value in total.items()} if total else None
    return Record(functions, np.moveaxis(np.asarray(values), 0, 1), pushes, states)


def exponents(system: System, states: Any) -> tuple[Array, Array]:
    """Largest tangent exponents and their standard errors of the first orbits from here on."""
    states = jax.tree.map(lambda leaf: leaf[:ORBITS], states)
    mask = system.dynamical_leaves(jax.tree.map(lambda leaf: leaf[0], states))
    keys = [jax.random.key(2)] * (ALIGN + COUNTED)  # of no effect: exponents are taken of systems without noise
    values, errors, _ = dynamics.lyapunov_many(system.step, states, keys, warmup=ALIGN, dynamical_leaves=mask)
    return np.asarray(values)[:, 0], np.asarray(errors)[:, 0]


def is_chaotic(values: Sequence[float | None], errors: Sequence[float | None]) -> bool:
    """Whether at least half of the orbits have an exponent shown to exceed the bound of ``classify``."""
    shown = [
        v is not None and e is not None and v - 4 * e > classify.BOUND for v, e in zip(values, errors, strict=True)
    ]
    return 2 * sum(shown) >= len(shown)


# --- ergodic ------------------------------------------------------------------------------------------------------


def aligned(orbits: Array, copies: Sequence[NDArray[np.intp]]) -> Array:
    """Replace each orbit by that equivalent copy whose means and deviations are nearest to those of the first orbit."""
    if not copies:
        return orbits
    scale = np.maximum(orbits.std(axis=(0, 1)), np.finfo(float).tiny)
    features = np.stack([orbits.mean(axis=1), orbits.std(axis=1)]) / scale
    distances = np.stack([((features[..., copy] - features[:, :1]) ** 2).sum(axis=(0, 2)) for copy in copies])
    nearest = np.argmin(distances, axis=0)
    return np.stack([orbit[:, copies[i]] for orbit, i in zip(orbits, nearest, strict=True)])


def ergodic(system: System, orbits: Array) -> Content:
    """The plan's measures of ergodicity, up to symmetry and as they are."""
    count, steps, _ = orbits.shape
    times = np.linspace(0, steps - 1, count).round().astype(int)
    own_times = np.random.default_rng(0).integers(steps, size=count - 1)
    matched = aligned(orbits, system.copies)
    observables: list[Content] = []
    ps: dict[int, float] = {}
    for i, name in enumerate(system.names):
        first, others = matched[0, times, i], matched[1:, :, i]
        test = ergodicity.energy_test(first, others[np.arange(count - 1), own_times])
        ps[i] = test.p
        measured: Content = {
            "name": name,
            "r_hat": min(ergodicity.split_r_hat(matched[..., i]), LARGEST),
            "r_hat_as_it_is": min(ergodicity.split_r_hat(orbits[..., i]), LARGEST),
            "time": finite_or_none(ergodicity.autocorrelation_time(matched[..., i])),
            "energy": test._asdict(),
            "p_one_time": ergodicity.energy_test(first, others[:, -1]).p,
            "spread": float(matched[..., i].std(axis=1).mean()),
        }
        observables.append(measured)
    corrected = holm(ps)
    mixing = holm({i: measured["p_one_time"] for i, measured in enumerate(observables)})
    for i, measured in enumerate(observables):
        measured["slow"] = measured["time"] is not None and measured["time"] > steps / SLOW
        measured["passes"] = measured["r_hat"] < SAME and corrected[i] >= LEVEL
        measured["mixes"] = mixing[i] >= LEVEL
    quick = [i for i, measured in enumerate(observables) if not measured["slow"]]
    groups = {
        key: _group_sizes(values[..., quick]) for key, values in (("groups", matched), ("groups_as_they_are", orbits))
    }
    return {"observables": observables, **groups, "ergodic": verdict_ergodic(observables, groups["groups"])}


def _group_sizes(orbits: Array) -> list[int]:
    """Sizes of the groups of orbits, the largest first; a single group where nothing is compared."""
    return np.bincount(ergodicity.orbit_groups(orbits, SAME)).tolist() if orbits.shape[2] else [len(orbits)]


def verdict_ergodic(observables: Sequence[Content], groups: Sequence[int]) -> str:
    """The plan's verdict on a system."""
    if len(groups) > 1:
        return "refuted"
    passed = np.mean([measured["passes"] for measured in observables])
    return "confirmed" if passed >= MOST else "not decided"


# --- pseudo-random ------------------------------------------------------------------------------------------------


def random_like(series: Array, seed: int = 0) -> Content:
    """The plan's measures of a series, and whether it is random-like."""
    k = zero_one_test(series)
    p = nonlinearity_test(series, SURROGATES, seed)
    entropy = permutation_entropy(series)
    stretch = series[matching_ends(series)]
    drawn = [permutation_entropy(surrogate) for surrogate in iaaft(stretch, SURROGATES, seed)]
    below = np.sum(np.array(drawn) <= permutation_entropy(stretch))
    above = np.sum(np.array(drawn) >= permutation_entropy(stretch))
    rank_p = min(1.0, float(2 * (1 + min(below, above)) / (1 + SURROGATES)))
    return {
        "k": k,
        "p": p,
        "entropy": entropy,
        "entropy_p": rank_p,
        "flatness": spectral_flatness(series),
        "random_like": bool(k >= IRREGULAR and p > TEST_LEVEL and rank_p > TEST_LEVEL),
    }


def pseudo_random(system: System, orbits: Array) -> list[Content]:
    """:func:`random_like` of the end of the first orbits, for each observable of enough distinct values."""
    results = []
    for i, name in enumerate(system.names):
        for number in range(min(SERIES, len(orbits))):
            series = orbits[number, -LENGTH:, i]
            if len(np.unique(np.round(series / np.max(np.abs(series) + 1e-300) / 1e-9))) >= DISTINCT:
                results.append({"name": name, "orbit": number} | random_like(series))
    return results


def verdict_random(series: Sequence[Content]) -> str:
    """The plan's verdict on a system."""
    if not series:
        return "not decided"
    share = np.mean([measured["random_like"] for measured in series])
    return "confirmed" if share >= 0.9 else "refuted" if share <= 0.5 else "bounded"


# --- functions visited --------------------------------------------------------------------------------------------


def visits(functions: Array) -> Content:
    """Truth tables that each start visits, from ``[starts, steps]``."""
    shares = np.stack([(functions == number).mean(axis=1) for number in range(FUNCTIONS)], axis=1)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    seen = np.stack([np.maximum.accumulate(functions == number, axis=1) for number in range(FUNCTIONS)])
    steps = [n for n in CURVE if n <= functions.shape[1]]
    return {
        "distinct": (shares > 0).sum(axis=1).tolist(),
        "effective": np.exp(entropy).tolist(),
        "steps_per_change": (functions.shape[1] / np.maximum(1, (np.diff(functions) != 0).sum(axis=1))).tolist(),
        "xor": shares[:, XOR].tolist(),
        "union": int((shares > 0).any(axis=0).sum()),
        "steps": steps,
        "curve": seen.sum(axis=0)[:, np.array(steps) - 1].mean(axis=0).tolist(),
    }
