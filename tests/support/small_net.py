"""A dense net of two tapped layers, its batches and its compiled functions, shared by tests so that programs are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import learner, losses, models
from csbp_jax.config import Chaos, Config, Model, Optimizer
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.learner import optimizer

TAPS = ("fc1.norm", "fc2.membrane")
SGD = Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3, schedule="cosine")
ADAM = Optimizer(name="adam", lr=0.01, eps_root=1e-8, schedule="constant")
CONFIG = Config(
    model=Model(name="dense", input_shape=(6,), classes=3, time_steps=2, features=(5, 4)),
    chaos=Chaos(z0=(3.0, 2.0), beta=0.9, anneal="step", taps=TAPS, scale=1.0),
    optimizer=SGD,
)

# Compiled once per recipe.
init = jax.jit(learner.init, static_argnums=0)
train_step = jax.jit(learner.train_step, static_argnums=0)
eval_step = jax.jit(learner.eval_step, static_argnums=0)
gradients = jax.jit(learner.gradients, static_argnums=0)


@functools.cache
def recipe(config=CONFIG):
    """The recipe of a config, the same object at each call."""
    tx = optimizer.build(config.optimizer, epochs=5, steps_per_epoch=10)
    return learner.Recipe(models.build(config.model), tx, losses.build(config.loss), config, 10)


def batch(seed=0, size=8):
    """Random inputs and labels."""
    rng = np.random.default_rng(seed)
    x = (2 * rng.normal(size=(size, 1, 6))).astype(jnp.result_type(float))
    return {"x": x, "y": rng.integers(0, 3, size).astype(jnp.result_type(int))}


def first_state(recipe, seed=0, hparams=None):
    """The first state of a seed, in the default precision."""
    return to_default_precision(init(recipe, jax.random.key(seed), hparams or {}))
