"""The first state: its hyperparameters, its seed, and what is refused."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import controls, learner, models
from csbp_jax.config import Optimizer, Traced, flatten, marks_by_field
from csbp_jax.learner import complete_hyperparameters
from tests.support import small_net
from tests.support.small_net import TAPS, first_state, recipe


def test_one_strength_serves_all_taps():
    hparams = jax.jit(lambda: learner.init(recipe(), jax.random.key(0), {"z0": 7.0}).hparams)()
    z0 = hparams["z0"]
    assert {tap: float(strength) for tap, strength in z0.items()} == dict.fromkeys(TAPS, 7.0)


def test_whole_numbers_among_the_hyperparameters_become_floats():
    """An int32 would be cut to whole numbers where it is scaled: z in units of the flip, or the rates of a search."""
    whole = recipe(dataclasses.replace(small_net.CONFIG, optimizer=dataclasses.replace(small_net.SGD, lr=1)))
    hparams = jax.eval_shape(lambda: learner.init(whole, jax.random.key(0), {"z0": 3}).hparams)
    assert {leaf.dtype for leaf in jax.tree.leaves((hparams["lr"], hparams["z0"]))} == {jnp.dtype(jnp.float32)}
    assert hparams["every"].dtype == jnp.int32


@pytest.mark.parametrize("field", [field for field in marks_by_field(Traced) if field != "seed"])
def test_every_traced_field_is_a_float_among_the_hyperparameters(field):
    """Runs that differ in it share a program, which would have the value of one of them for all."""
    traced, name = marks_by_field(Traced)[field], learner.hyperparameter_name(field)
    defaults = learner.hyperparameters(small_net.CONFIG)
    if not traced.only_if_varied:
        value = flatten(small_net.CONFIG)[field]
        other = small_net.CONFIG.replace(field, [1 + v for v in value] if isinstance(value, tuple) else value / 2)
        assert learner.hyperparameters(other)[name] != defaults[name]
    given: Any = models.neuron(small_net.CONFIG.model.neuron) if name == "neuron" else 1
    leaves = jax.tree.leaves(complete_hyperparameters({name: given}, defaults)[name])
    assert leaves and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


def test_a_state_may_be_donated_whose_taps_share_an_array():
    z0 = jnp.float32(3)
    # By itself init is not compiled, so that it could hand out an array twice; its weights may be.
    compiled: Any = types.SimpleNamespace(init=jax.jit(recipe().model.init, static_argnums=2))
    quick = dataclasses.replace(recipe(), model=compiled)
    donate = jax.jit(lambda hparams: jax.tree.map(lambda leaf: leaf + 1, hparams), donate_argnums=0)
    for seed in range(2):
        donate(learner.init(quick, jax.random.key(seed), {"z0": z0}).hparams)
    assert float(z0) == 3


def test_seeds_give_different_first_weights():
    kernels = [first_state(recipe(), seed).params["readout"]["kernel"] for seed in (0, 1)]
    assert not np.allclose(*kernels)


@pytest.mark.parametrize("name", ["sgd", "adam", "lion", "muon"])
def test_moments_are_dynamical_and_an_optimisers_constants_are_not(name):
    """Each tensor has as many moments as the optimiser keeps of it."""
    kept = Optimizer(name=name, schedule="constant")
    of_name = recipe(dataclasses.replace(small_net.CONFIG, optimizer=kept))
    state = jax.eval_shape(lambda: learner.init(of_name, jax.random.key(0)))
    marked = jax.tree.leaves(learner.dynamical_leaves(state).opt_state)
    shapes = [leaf.shape for leaf, dynamical in zip(jax.tree.leaves(state.opt_state), marked, strict=True) if dynamical]
    params = [leaf.shape for leaf in jax.tree.leaves(state.params)]
    moments = {"sgd": 1, "lion": 1, "muon": 2, "adam": 2}[name]
    once = [state.params[layer]["dense"]["kernel"].shape for layer in ("fc1", "fc2")] if name == "muon" else []
    assert sorted(shapes + once) == sorted(moments * params)


def test_what_comes_from_outside_is_not_dynamical(x64):
    """Statistics that training never reads, counters, keys, hyperparameters, and the noise that a force carries."""
    tx = optax.chain(controls.ar1(0.9, jnp.ones(4)), optax.trace(0.9))
    forced = dataclasses.replace(recipe(), tx=tx)
    marked = learner.dynamical_leaves(jax.eval_shape(lambda: learner.init(forced, jax.random.key(0))))
    noise, momentum = marked.opt_state
    assert jax.tree.all(marked.params) and jax.tree.all(momentum) and jax.tree.leaves(noise)
    assert not any(jax.tree.leaves((noise, marked.batch_stats, marked.step, marked.key, marked.hparams)))
