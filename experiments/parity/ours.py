"""The training steps of a case by this package, through ``learner.make``, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path

from csbp_jax import learner, losses, models
from csbp_jax.config import Config
from csbp_jax.learner import optimizer
from experiments import study
from experiments.parity import cases


def run(config: Config) -> dict[str, np.ndarray]:
    """Arrays of a case under the names of its reference file."""
    return train(config)[0]


def train(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays of a case under the names of its reference file, and its weights after the last step by their paths."""
    with study.float64():
        model = models.build(config.model)
        tx = optimizer.build(config.optimizer, epochs=1, steps_per_epoch=1)
        init, train_step, _ = learner.make(model, tx, losses.build(config.loss), config)

        def logits_of(state, x, train):
            return model.apply(learner.weights_of(state), x, train, mutable=["batch_stats"])[0][0]

        @jax.jit
        def step(state, batch):
            logits = logits_of(state, batch["x"], True)
            state, metrics = train_step(state, batch)
            return state, {k: metrics[k] for k in ("task_loss", "chaos_loss", "grad_norm")} | {"logits": logits}

        evaluate = jax.jit(lambda state, x: logits_of(state, x, False))
        held_out, state = cases.batch(config, cases.STEPS)["x"], _begin(config, init, tx)
        before, rows = evaluate(state, held_out), []
        for n in range(cases.STEPS):
            state, row = step(state, cases.batch(config, n))
            rows.append(row)
        values = jax.tree.map(lambda *row: np.stack(row), *rows)
        values |= {"before": before, "after": evaluate(state, held_out)}
        values |= {f"statistics/{_path(path)}": leaf for path, leaf in tree_flatten_with_path(state.batch_stats)[0]}
        weights = {_path(path): leaf for path, leaf in tree_flatten_with_path(state.params)[0]}
        return jax.tree.map(np.asarray, values), jax.tree.map(np.asarray, weights)


def largest_differences(values: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """``{quantity: largest difference}``, relative to the quantity's largest value; statistics are one quantity.

    Raises:
      ValueError: names or shapes differ.
    """
    if set(values) != set(reference):
        raise ValueError(f"names differ: {sorted(set(values) ^ set(reference))}")
    differences: dict[str, float] = {}
    for name, expected in reference.items():
        if values[name].shape != expected.shape:
            raise ValueError(f"{name}: shape {values[name].shape}, but the reference has {expected.shape}")
        difference = float(np.abs(values[name] - expected).max() / np.abs(expected).max())
        quantity = name.partition("/")[0]
        differences[quantity] = max(difference, differences.get(quantity, 0.0))
    return differences


def _begin(config, init, tx):
    """The learner's state, with weights and statistics drawn by cases.py."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    params, statistics = (
        tree_map_with_path(lambda path, leaf: jnp.asarray(cases.draw(_path(path), leaf.shape)), tree)
        for tree in (shapes.params, shapes.batch_stats)
    )
    return learner.State(
        step=jnp.int32(0),
        params=params,
        batch_stats=statistics,
        opt_state=tx.init(params),
        key=jax.random.key(0),
        hparams=jax.tree.map(jnp.asarray, learner.hyperparameters(config)),
        bad_steps=jnp.int32(0),
    )


def _path(path):
    return keystr(path, simple=True, separator="/")
