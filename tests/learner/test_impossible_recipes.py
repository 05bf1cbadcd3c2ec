"""Recipes and first states that would train something else than was asked for are refused by the name of the field."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from csbp_jax import learner
from csbp_jax.config import Chaos, ConfigError, Loss, Optimizer, check, replaced
from csbp_jax.learner import cbp, objective, optimizer
from csbp_jax.models import layers
from csbp_jax.models.basic import Dense
from csbp_jax.models.taps import Aux
from tests.support.small_net import CONFIG, batch, recipe

NO_TERM = dataclasses.replace(CONFIG, chaos=Chaos())
SUBSTEPS = replaced(replaced(CONFIG, "chaos.substeps", 10), "optimizer.accumulate", 2)


def init(hparams, config=CONFIG):
    return jax.eval_shape(lambda: learner.init(recipe(config), jax.random.key(0), hparams))


def make(config):
    """Without the number of an epoch's steps."""
    return learner.make(recipe().model, recipe().tx, recipe().loss, config)


class Bare(nn.Module):
    """A network that tells nothing of its layers."""

    @nn.compact
    def __call__(self, x, train=False, **options):
        return nn.Dense(3, name="readout")(x), Aux()


class NoSynapse(Dense):
    """A spiking layer whose input is no layer's output."""

    def body(self, x, train, run):
        return nn.Dense(3, name="readout")(run(layers.Spike(2, name="fc1_spike"), x))


class Twice(Dense):
    """A spiking layer that is called twice."""

    def body(self, x, train, run):
        layer = self.spiking(layers.Dense)(x.shape[-1], name="fc1")
        return nn.Dense(3, name="readout")(run(layer, run(layer, x)))


def calibrated(model):
    config = replaced(replaced(NO_TERM, "model.norm", "none"), "model.init_rate", 0.2)
    of_model = dataclasses.replace(recipe(config), model=model)
    state = jax.eval_shape(lambda: learner.init(of_model, jax.random.key(0)))
    return jax.eval_shape(functools.partial(learner.calibrate, of_model), state, batch()["x"])


def firing_loss_of_bare():
    of_bare = dataclasses.replace(recipe(replaced(NO_TERM, "loss.firing", 0.5)), model=Bare())
    state = jax.eval_shape(lambda: learner.init(of_bare, jax.random.key(0)))
    return jax.eval_shape(functools.partial(objective.value_and_grad, of_bare), state, batch())


CASES = [
    (lambda: calibrated(Bare()), "model.init_rate: 0.2, but the network gave no rates; set it to None"),
    (
        lambda: calibrated(NoSynapse(classes=3, time_steps=2)),
        "model.init_rate: .* its spiking layer fc1_spike has no synapse of its own",
    ),
    (
        lambda: calibrated(Twice(classes=3, time_steps=2, norm="none")),
        "model.init_rate: .* its spiking layer fc1 is called more than once",
    ),
    (firing_loss_of_bare, "loss.firing: 0.5, but the network gave no rates; set it to 0"),
    (lambda: init({"betta": 0.9}), "hparams: .*unknown betta"),
    (lambda: init({"z0": {"fc1.norm": 1.0}}), ".*z0 names fc1.norm, but the taps are fc1.norm, fc2.membrane"),
    (lambda: init({"forcing": lambda step: 0.1}), "hparams: forcing is a function; give it to the force"),
    (
        lambda: init({"smoothing": 0.1}, replaced(NO_TERM, "loss", Loss(task="value", name="mse"))),
        "hparams: smoothing is not possible with loss.task value, which has no classes; leave it out",
    ),
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
    *(  # their rate would be that of another step
        (
            lambda changes=changes: make(replaced(replaced(CONFIG, "chaos.substeps", 5), *changes)),
            "chaos.substeps: 5 is not possible without steps_per_epoch, as their rate is that of optimizer.schedule",
        )
        for changes in (
            ("optimizer.schedule", "cosine"),
            ("optimizer", Optimizer(schedule="constant", warmup_epochs=1)),
        )
    ),
    (lambda: recipe(SUBSTEPS), "optimizer.accumulate: 2 is not possible with chaos.substeps 10"),
    (
        lambda: check(replaced(CONFIG, "optimizer.sam_radius", -1.0)),
        "optimizer.sam_radius: -1.0 is not possible; allowed is 0 or more",
    ),
    (
        lambda: learner.with_ema_weights(init({})),
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
