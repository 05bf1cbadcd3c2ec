"""Training of one method on one data set: its step is compiled once, for all conditions, settings and seeds."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import controls, dynamics, learner, losses, models
from csbp_jax.config import Config, Loss
from csbp_jax.learner import Recipe, objective, optimizer
from csbp_jax.models.base import Network
from experiments.claims import runs

BATCH = 200
"""Examples that are evaluated at once, the same for all splits, so that it is compiled once."""


class Setting(NamedTuple):
    """What a run varies: rate, strength z0 of the term, and whether the term is the drift (1) or CSBP's (0)."""

    lr: float
    z0: float = 0.0
    drift: float = 0.0


def network(config: Config) -> Network:
    """The network of a config; a SEW-ResNet has two blocks, of two channel numbers."""
    net = models.build(config.model)
    return net.clone(blocks=(1, 1)) if config.model.name.startswith("sew_resnet") else net


def make_recipe(config: Config, steps_per_epoch: int, drift: Any) -> Recipe:
    """Build the recipe of a run, whose term is ``(1 - drift)`` CSBP's and ``drift`` the drift; it may be traced."""

    def term(h: jax.Array, target: Any, scale: Any, **options: Any) -> jax.Array:
        chaos, parabola = (controls.TERMS[name](h, target, scale, **options) for name in ("chaos", "drift"))
        return (1 - drift) * chaos + drift * parabola

    tx = optimizer.build(config.optimizer, config.epochs, steps_per_epoch)
    return learner.make_recipe(network(config), tx, losses.build(config.loss), config, steps_per_epoch, term)


class Trainer:
    """Compiled functions of a method on a task, whose config is that of the method."""

    def __init__(self, task: runs.Task):
        self.task = task
        steps = task.steps_per_epoch
        plain = make_recipe(dataclasses.replace(task.config, loss=Loss()), steps, 0.0)

        def init(key: jax.Array, setting: Setting) -> learner.State:
            return learner.init(plain, key, {"lr": setting.lr, "z0": setting.z0})

        def step(state: learner.State, drift: jax.Array, rows: jax.Array, x: jax.Array, y: jax.Array) -> learner.State:
            recipe = make_recipe(task.config, steps, drift)
            return learner.train_step(recipe, state, {"x": x[rows], "y": y[rows]})[0]

        # The steps are not one loop in XLA, in which convolutions on CPU are some ten times slower.
        self._init, self._step = jax.jit(init), jax.jit(step, donate_argnums=0)
        self._evaluate = jax.jit(functools.partial(learner.eval_step, plain))
        self._batches = {name: _batches(*getattr(task, name)) for name in ("validation", "test")}

    def train(self, setting: Setting, seed: int, test: bool) -> dict[str, float]:
        """Train a run.

        Returns:
          ``{validation, validation_loss}`` after the last epoch, with ``test`` also ``{test, test_loss}``; ``bad``, the
          number of steps in a row, at the end, that were not finite.
        """
        drawn = runs.draw(self.task, seed, 0.0)
        x, y = jnp.asarray(self.task.train[0][drawn.pictures]), jnp.asarray(drawn.labels)
        state = self._init(drawn.key, Setting(*map(jnp.float32, setting)))
        drift = jnp.float32(setting.drift)
        for rows in drawn.order.reshape(-1, self.task.config.batch_size):
            state = self._step(state, drift, rows, x, y)
        result = {"bad": float(state.bad_steps)}
        for split in ("validation", "test") if test else ("validation",):
            accuracy, loss = self._score(state, split)
            result |= {split: accuracy, f"{split}_loss": loss}
        return result

    def _score(self, state: learner.State, split: str) -> tuple[float, float]:
        """Accuracy and cross-entropy on a split."""
        sums = jax.device_get([self._evaluate(state, batch) for batch in self._batches[split]])
        correct, loss, count = (sum(float(part[name]) for part in sums) for name in ("correct", "loss", "count"))
        return correct / count, loss / count

    def flip_ratio(self, lr: float, seed: int) -> float:
        """Flip ratio of CSBP's term alone at z0 = 1, on the first batch of a run."""
        drawn = runs.draw(self.task, seed, 0.0)
        recipe = make_recipe(self.task.config, self.task.steps_per_epoch, 0.0)
        state = self._init(drawn.key, Setting(*map(jnp.float32, Setting(lr, 1.0))))
        rows = np.asarray(drawn.order[0, 0])
        batch = {"x": jnp.asarray(self.task.train[0][drawn.pictures[rows]]), "y": jnp.asarray(drawn.labels[rows])}

        def gradient(params: Any, state: learner.State, batch: learner.Batch) -> Any:
            def value(params: Any) -> jax.Array:
                term: jax.Array = objective.objective(recipe, params, state, batch)[1].metrics["chaos_loss"]
                return term

            return jax.grad(value)(params)

        return dynamics.flip_ratio(gradient, state.params, lr, self.task.config.optimizer.momentum, args=(state, batch))


def _batches(x: NDArray[Any], y: NDArray[Any]) -> list[dict[str, jax.Array]]:
    """Cut a split into batches of :data:`BATCH`, with the mask of the last one's padding."""
    batches = []
    for first in range(0, len(y), BATCH):
        rows = np.arange(first, first + BATCH)
        at = np.minimum(rows, len(y) - 1)
        batches.append({"x": jnp.asarray(x[at]), "y": jnp.asarray(y[at]), "mask": jnp.asarray(rows < len(y))})
    return batches
