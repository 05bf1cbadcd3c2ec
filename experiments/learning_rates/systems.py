"""Two small networks on the digits, their training step with and without sub-steps, and its measurement at one rate."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs, data, dynamics, learner, losses, models
from csbp_jax.config import Chaos, Optimizer
from csbp_jax.dynamics.state import Step, step_all
from csbp_jax.instruments import training_map
from csbp_jax.learner import Batch, Recipe, State, optimizer
from csbp_jax.models.taps import Aux
from csbp_jax.training import flip_meter
from experiments.study import Content, finite_or_none

HIDDEN, SUBSTEPS = 32, 16
ACCURACY, HELD = 0.9, 10
DELTA, LATER = 1e-2, slice(100, 200)
NETWORKS = ("sigmoid", "spiking")
MAPS = {"fixed": (512, 1), "stream": (32, 1000)}
"""Batch size, and number of the batches that repeat."""
CONDITIONS = {"direct": 1, "sub-steps": SUBSTEPS}


class Sigmoid(nn.Module):
    """Network with one hidden layer of sigmoid units, called as a spiking network is."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, **_: Any) -> tuple[jax.Array, Aux]:
        x = nn.sigmoid(nn.Dense(HIDDEN)(x.reshape(*x.shape[:2], -1)))
        return nn.Dense(10)(x), Aux()


class System(NamedTuple):
    """The training of a network on a map.

    steps: the training step of each condition.
    accuracy: ``accuracy(states) -> [starts]`` on the validation split, whose own statistics normalise it.
    flip: flip ratio of the task, ``flip(state, batch)``, at the rate of the state.
    """

    recipe: Recipe
    batches: Sequence[Batch]
    steps: dict[str, Step]
    accuracy: Callable[[State], jax.Array]
    flip: Callable[[State, Batch], float]


def make(network: str, map_name: str) -> System:
    """Make a system of the plan."""
    size, count = MAPS[map_name]
    config = configs.load("digits")
    config = dataclasses.replace(
        config,
        batch_size=size,
        model=dataclasses.replace(config.model, name="dense", features=(HIDDEN,)),
        chaos=Chaos(),
        optimizer=Optimizer(name="sgd", lr=1.0, momentum=0.0, schedule="constant"),
    )
    splits = data.load(config)
    model = models.build(config.model) if network == "spiking" else Sigmoid()
    recipe = learner.make_recipe(model, optimizer.build(config.optimizer, 1, 1), losses.build(config.loss), config)
    steps = {name: descend(recipe, substeps) for name, substeps in CONDITIONS.items()}
    everything = np.arange(len(splits["validation"]))
    validation = splits["validation"].take(everything, np.zeros((len(everything), 0)))
    ratio = flip_meter.make(functools.partial(learner.gradients, recipe), config, 1)
    return System(
        recipe,
        training_map.batches(config, splits["train"], count),
        steps,
        accuracy_of(recipe, jax.tree.map(jnp.asarray, validation)),
        functools.partial(ratio, "task"),
    )


def descend(recipe: Recipe, substeps: int) -> Step:
    """Return the step that descends the task's gradient by ``substeps`` steps of ``lr / substeps`` on one batch."""

    def step(state: State, batch: Batch) -> State:
        lr = state.hparams["lr"]

        def small(state: State, _: None) -> tuple[State, None]:
            return learner.train_step(recipe, state, batch)[0], None

        stepped, _ = jax.lax.scan(small, with_rate(state, lr / substeps), length=substeps)
        return with_rate(stepped, lr)

    return step


def with_rate(state: State, lr: jax.Array) -> State:
    """Return the state with another learning rate."""
    return dataclasses.replace(state, hparams=state.hparams | {"lr": lr})


def accuracy_of(recipe: Recipe, batch: Batch) -> Callable[[State], jax.Array]:
    """Return the accuracy of many states on a batch, whose own statistics normalise it."""

    def accuracy(state: State) -> jax.Array:
        (logits, _), _ = recipe.model.apply(learner.weights_of(state), batch["x"], True, mutable=["batch_stats"])
        return jnp.mean(logits.mean(axis=1).argmax(axis=-1) == batch["y"])

    return jax.jit(jax.vmap(accuracy))


def begin(system: System, starts: int) -> State:
    """The first states of the seeds 0 to ``starts - 1``, at a rate of 1, with a leading axis of starts."""
    init = jax.vmap(functools.partial(learner.init, system.recipe))
    states: State = init(jax.vmap(jax.random.key)(jnp.arange(starts)))
    return states


def member(states: State, i: int) -> State:
    """One of many states."""
    state: State = jax.tree.map(lambda leaf: leaf[i], states)
    return state


def flip_rate(system: System, states: State) -> float:
    """The rate at which the mean flip ratio of the starts, at their first step, is 1."""
    ratios = [system.flip(member(states, i), system.batches[0]) for i in range(len(states.step))]
    return float(1 / np.mean(ratios))


# --- measurement of one rate --------------------------------------------------------------------------------------


def measure(system: System, condition: str, states: State, lr: float, limit: int) -> Content:
    """Measure all starts at a rate: times, exponents and flip ratios of the plan; None where there is none.

    Args:
      states: of :func:`begin`.
      limit: of the number of steps.
    """
    step, starts = system.steps[condition], len(states.step)
    states = with_rate(states, jnp.full(starts, lr, jnp.float32))
    course, accuracies = train(system, step, states, limit)
    times, passages = held(accuracies), first_passage(accuracies)
    ends = np.where(np.isfinite(times), times, min(limit, LATER.stop)).astype(int)
    direct = condition == "direct"
    length = max(LATER.stop if direct else 2, *ends)
    batches = list(training_map.repeated(system.batches, length))
    leaves = dataclasses.replace(
        jax.tree.map(lambda _: False, states), params=jax.tree.map(lambda _: True, states.params)
    )
    local = np.asarray(dynamics.lyapunov_many(step, states, batches, 1, dynamical_leaves=leaves)[2])[..., 0]
    row = {"time": _plain(times), "passage": _plain(passages), "exponent": _plain(means(local, ends))}
    if direct:
        row["later"] = _plain(local[LATER].mean(axis=0))
        growth = dynamics.finite_size_many(
            step, states, batches[: max(2, *ends)], jnp.array([DELTA]), dynamical_leaves=leaves
        )[2]
        row["growth"] = _plain(means(np.asarray(growth)[..., 0], ends))
    moments = {"start": 0 * ends, "half": ends // 2, "end": ends}
    flips = {
        name: [
            system.flip(member(course[at], i), batches[max(at - 1, 0)]) / CONDITIONS[condition]
            for i, at in enumerate(when)
        ]
        for name, when in moments.items()
    }
    bad = np.asarray(course[-1].bad_steps) > 0
    return row | {
        "flip": {name: _plain(np.array(values)) for name, values in flips.items()},
        "accuracy": _plain(accuracies[-1]),
        "not finite": int(bad.sum()),
    }


def train(system: System, step: Step, states: State, limit: int) -> tuple[list[State], NDArray[Any]]:
    """Train until all starts have held the accuracy, at most ``limit`` steps: states, also the first, and accuracies.

    Goes on for as many steps as the exponents may need.
    """
    course, accuracies = [states], []
    for done, batch in enumerate(training_map.repeated(system.batches, limit), start=1):
        course.append(step_all(step, course[-1], batch))
        accuracies.append(np.asarray(system.accuracy(course[-1])))
        if done >= HELD and np.isfinite(held(np.array(accuracies))).all():
            break
    return course, np.array(accuracies)


def held(accuracies: NDArray[Any]) -> NDArray[Any]:
    """First step from which the mean accuracy of ``HELD`` steps is at least ``ACCURACY``, ``[starts]``; else inf."""
    sums = np.cumsum(np.concatenate([np.zeros_like(accuracies[:1]), accuracies]), axis=0, dtype=float)
    return first_passage((sums[HELD:] - sums[:-HELD]) / HELD)


def first_passage(accuracies: NDArray[Any]) -> NDArray[Any]:
    """First step, counted from 1, with at least ``ACCURACY``, ``[starts]``; inf where there is none."""
    reached = accuracies >= ACCURACY - 1e-9
    return np.where(reached.any(axis=0), 1 + reached.argmax(axis=0) if len(reached) else 0, np.inf)


def means(local: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    """Mean of the local exponents ``[steps, starts]`` of each start up to its end."""
    return np.array([local[:end, i].mean() for i, end in enumerate(ends)])


def _plain(values: NDArray[Any]) -> list[float | None]:
    return [finite_or_none(float(f"{value:.5g}")) for value in np.asarray(values, float)]


def systems() -> list[tuple[str, str]]:
    """Network and map of every system."""
    return list(itertools.product(NETWORKS, MAPS))
