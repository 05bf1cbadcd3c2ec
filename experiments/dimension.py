"""Run the plan of docs/results/dimension/plan.md: does a larger attractor go with a larger generalisation gap?

    python -m experiments.dimension [--out docs/results/dimension]

Writes ``dimension.json`` after each draw, ``table.md`` and the figure ``dimension``.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax.flatten_util import ravel_pytree
from scipy import stats

from csbp_jax import chaos, configs, data, dynamics, neurons
from csbp_jax.reporting.plots import PALETTE, panels
from experiments import study
from experiments.statistics import mean_text
from experiments.study import Content

MODULE = "python -m experiments.dimension"
CLASSES, EXAMPLES, HIDDEN, PARAMETERS, STEPS_OF_TIME, DECAY = 4, 5, 8, 172, 4, 0.002
RATES = (0.5, 2.0, 4.0)
STRENGTHS = (0.0, *np.geomspace(0.1, 10, 7).round(4).tolist())
"""Rate times z."""
TRANSIENT, COUNTED, EVERY = 4000, 500, 25
"""Steps that are not counted, that are, and between two states whose singular values are taken."""
SEEDS = range(1, 9)
LEARNED = 0.5
NETS = ("spiking", "smooth")
MEASURES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")

State = tuple[Any, Any, Any, Any]
"""``(parameters, (x, y) of training, z, rate)``."""


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits 0 to 3 as ``[N, 16]`` in [0, 1], and their labels."""
    x, y = study.all_records(data.load(configs.load("digits").replace("data.augment", ()), "data")[split])
    x = x[y < CLASSES].reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return x.astype(float), y[y < CLASSES]


def forward(net: str, params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``(logits [N, classes], input of the hidden neurons [N, hidden])``."""
    h = x @ params["w1"] + params["b1"][None]
    if net == "smooth":
        rate = jax.nn.sigmoid(h)
    else:
        rate = neurons.LIF(0.5)(jnp.repeat(h[:, None], STEPS_OF_TIME, axis=1))[0].mean(axis=1)
    return rate @ params["w2"] + params["b2"][None], h


def step(net: str, state: State, _: Any = None) -> State:
    """A step of gradient descent on all examples."""
    params, (x, y), z, rate = state

    def objective(params: Any) -> jax.Array:
        logits, h = forward(net, params, x)
        task = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        decay = 0.5 * DECAY * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))
        return task + z * chaos.term(h, 0.65, 1.0, reduce="neuron") + decay

    moved = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(objective)(params))
    return moved, (x, y), z, rate


STEP = {net: functools.partial(step, net) for net in NETS}
"""One function object a net, for which programs are compiled once."""


def start(seed: int, rate: float, strength: float, x: np.ndarray, y: np.ndarray) -> State:
    """A start with its own examples."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(y == c), EXAMPLES, replace=False) for c in range(CLASSES)])
    params = {
        "w1": rng.normal(size=(x.shape[1], HIDDEN)),
        "b1": np.zeros(HIDDEN),
        "w2": 0.5 * rng.normal(size=(HIDDEN, CLASSES)),
        "b2": np.zeros(CLASSES),
    }
    return jax.tree.map(jnp.asarray, (params, (x[rows], y[rows]), strength / rate, rate))


@functools.partial(jax.jit, static_argnames=("net", "steps"))
def run(net: str, states: State, steps: int, test: Any = None) -> tuple[State, Any]:
    """Train each of several states; ``(states, measures of each step [K, steps] or None without test data)``."""

    def measured(state: State, _: Any) -> tuple[State, Any]:
        state = STEP[net](state)
        if test is None:
            return state, None
        both = [(forward(net, state[0], x)[0], y) for x, y in (state[1], test)]
        losses = [optax.softmax_cross_entropy_with_integer_labels(*of).mean() for of in both]
        accuracies = [jnp.mean(logits.argmax(-1) == y) for logits, y in both]
        return state, dict(zip(MEASURES, (*losses, *accuracies), strict=True))

    return jax.vmap(lambda state: jax.lax.scan(measured, state, length=steps))(states)


@functools.partial(jax.jit, static_argnames="net")
def singular_values(net: str, states: State) -> jax.Array:
    """Log singular values of a step of each state ``[K, parameters]``, in falling order."""

    def of(state: State) -> jax.Array:
        vector, unravel = ravel_pytree(state[0])
        jacobian = jax.jacfwd(lambda v: ravel_pytree(STEP[net]((unravel(v), *state[1:]))[0])[0])(vector)
        return jnp.log(jnp.linalg.svd(jacobian, compute_uv=False))

    return jax.lax.map(of, states)


def measure(net: str, seed: int, arrays: dict[str, Any]) -> list[Content]:
    """The measures of a draw in all conditions."""
    conditions = [(rate, strength) for rate in RATES for strength in STRENGTHS]
    starts = [start(seed, *condition, *arrays["train"]) for condition in conditions]
    states, _ = run(net, jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), TRANSIENT)
    leaves = (jax.tree.map(lambda _: True, states[0]), (False, False), False, False)
    measured = dynamics.lyapunov_many(STEP[net], states, [None] * COUNTED, n=PARAMETERS, dynamical_leaves=leaves)
    values = {name: np.asarray(v).mean(axis=1) for name, v in run(net, states, COUNTED, arrays["test"])[1].items()}
    largest = np.full((len(conditions), PARAMETERS), -np.inf)
    for _ in range(COUNTED // EVERY):
        states, _ = run(net, states, EVERY)
        largest = np.maximum(largest, singular_values(net, states))
    return [
        {
            "net": net,
            "seed": seed,
            "rate": rate,
            "strength": strength,
            "exponent": study.finite_or_none(measured.exponents[i, 0]),
            "dimension": study.finite_or_none(dynamics.kaplan_yorke(measured.exponents[i])),
            "sharpness_dimension": study.finite_or_none(dynamics.kaplan_yorke(largest[i])),
            **{name: study.finite_or_none(value[i]) for name, value in values.items()},
        }
        for i, (rate, strength) in enumerate(conditions)
    ]


# --- page ---------------------------------------------------------------------------------------------------------


def correlations(rows: pd.DataFrame, dimension: str = "dimension", other: str = "gap") -> list[float]:
    """Spearman's correlation of each draw, of those in which neither column is constant."""
    draws = [draw for _, draw in rows.groupby("seed") if draw[[dimension, other]].nunique().min() > 1]
    return [float(stats.spearmanr(draw[dimension], draw[other]).statistic) for draw in draws]


def frame_of(runs: Sequence[Content]) -> pd.DataFrame:
    return pd.DataFrame(runs).dropna().assign(gap=lambda frame: frame["test_loss"] - frame["train_loss"])


def page(content: Content) -> str:
    """The tables: correlations, and medians over draws of each condition."""
    return (
        f"{correlation_table(content)}\n\nMedians over the draws, each column by itself:\n\n{condition_table(content)}"
    )


def correlation_table(content: Content) -> str:
    """A correlation a row, a net a column."""
    runs = frame_of(content["runs"])
    kinds: dict[str, tuple[Any, dict[str, str]]] = {
        "dimension and gap, all conditions": (slice(None), {}),
        "where the net has learned": (runs["train_accuracy"] >= LEARNED, {}),
        "without the term": (runs["strength"] == 0, {}),
        "with the term": (runs["strength"] > 0, {}),
        "sharpness dimension and gap": (slice(None), {"dimension": "sharpness_dimension"}),
        "dimension and test accuracy": (slice(None), {"other": "test_accuracy"}),
    }
    rows = []
    for name, (mask, columns) in kinds.items():
        cells = []
        for net in NETS:
            chosen = runs.loc[mask]
            values = correlations(chosen[chosen["net"] == net], **columns)
            cells.append(f"{mean_text(values, '+.2f')}, {len(values)} draws" if values else "no draw")
        rows.append([name, *cells])
    return study.table(["correlation of", *NETS], rows)


def condition_table(content: Content) -> str:
    runs = frame_of(content["runs"])
    columns = ["exponent", "dimension", "sharpness_dimension", "gap", "train_accuracy", "test_accuracy"]
    medians = runs.groupby(["net", "rate", "strength"])[columns].median().reset_index()
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in medians.itertuples(index=False)]
    return study.table(["net", "rate", "rate times z", *(name.replace("_", " ") for name in columns)], cells)


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw the gap over the dimension, a point a run."""
    runs = frame_of(content["runs"])
    figure, axes = panels(2, 4.2, 3.4, sharey=True)
    for ax, net in zip(axes, NETS, strict=True):
        for strong, learned in itertools.product((False, True), repeat=2):
            rows = (
                (runs["net"] == net)
                & ((runs["strength"] > 0) == strong)
                & ((runs["train_accuracy"] >= LEARNED) == learned)
            )
            label = ("with the term" if strong else "without the term") * learned
            colour, face = PALETTE[strong], PALETTE[strong] if learned else "none"
            ax.scatter(runs["dimension"][rows], runs["gap"][rows], s=16, color=colour, facecolor=face, label=label)
        ax.set(xlabel="Kaplan-Yorke dimension", title=net)
    axes[0].set_ylabel("test minus training loss")
    axes[0].legend(fontsize="small")
    study.save_figure(figure, out, "dimension")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "dimension")
    options = parser.parse_args(arguments)
    file = options.out / "dimension.json"
    content = study.resume(parser, file, {"conditions": [list(RATES), list(STRENGTHS)]}, {"runs": []})
    done = {(run["net"], run["seed"]) for run in content["runs"]}
    with study.float64():
        arrays = {split: pictures(split) for split in ("train", "test")}
        for net, seed in ((net, seed) for seed in SEEDS for net in NETS if (net, seed) not in done):
            content["runs"] += measure(net, seed, arrays)
            study.store(file, content, MODULE)
            print(net, seed, flush=True)
    draw(content, options.out)
    study.write(options.out, "dimension", content, page(content))


if __name__ == "__main__":
    study.run(main)
