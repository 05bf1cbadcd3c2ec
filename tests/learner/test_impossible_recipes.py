"""Recipes and first states that would train something else than was asked for are refused by the name of the field."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from csbp_jax import learner
from csbp_jax.config import Chaos, ConfigError, Optimizer, check, replaced
from csbp_jax.learner import cbp, optimizer
from tests.support.small_net import CONFIG, first_state, recipe

NO_TERM = dataclasses.replace(CONFIG, chaos=Chaos())
SUBSTEPS = replaced(replaced(CONFIG, "chaos.substeps", 10), "optimizer.accumulate", 2)


def init(hparams, config=CONFIG):
    return learner.init(recipe(config), jax.random.key(0), hparams)


def make(config):
    """Without the number of an epoch's steps."""
    return learner.make(recipe().model, recipe().tx, recipe().loss, config)


CASES = [
    (lambda: init({"betta": 0.9}), "hparams: .*unknown betta"),
    (lambda: init({"z0": {"fc1.norm": 1.0}}), ".*z0 names fc1.norm, but the taps are fc1.norm, fc2.membrane"),
    (lambda: init({"forcing": lambda step: 0.1}), "hparams: forcing is a function; give it to the force"),
    (lambda: init({"z0": 5.0}, NO_TERM), r".*z0 is given, but chaos\.taps of the config is empty"),
    (
        lambda: make(replaced(NO_TERM, "chaos.z0", (3.0,))),
        r"chaos.taps: \(\) is not possible with chaos.z0 \(3.0,\); allowed is one tensor or more",
    ),
    (  # z would fall by beta at each step
        lambda: make(replaced(CONFIG, "chaos.anneal", "epoch")),
        "chaos.anneal: epoch is not possible without steps_per_epoch",
    ),
    (
        lambda: make(replaced(replaced(CONFIG, "model.norm", "none"), "model.init_rate", 0.2)),
        ".*learner.make has no examples to measure rates on; take Recipe",
    ),
    (lambda: recipe(SUBSTEPS), "optimizer.accumulate: 2 is not possible with chaos.substeps 10"),
    (
        lambda: check(replaced(CONFIG, "optimizer.sam_radius", -1.0)),
        "optimizer.sam_radius: -1.0 is not possible; allowed is 0 or more",
    ),
    (
        lambda: learner.with_ema_weights(first_state(recipe())),
        "optimizer.ema: 0, so that the state has no moving averages",
    ),
    (
        lambda: optimizer.build(Optimizer(layer_decay=0.5), 1, 1),
        "optimizer.layer_decay: 0.5 is not possible, because this network names no",
    ),
    (lambda: cbp.shortfall(jnp.zeros((1, 2)), target=2), "shortfall: target is 2, but must be between 0 and 1"),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_it_is_refused(call, message):
    with pytest.raises((ConfigError, ValueError), match=f"^{message}"):
        call()
