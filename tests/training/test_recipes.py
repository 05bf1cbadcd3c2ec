"""Options of training recipes in a run: mixup switched off at the end, learning rates that fall towards the input."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from csbp_jax import configs, data
from csbp_jax.config import Optimizer
from csbp_jax.runtime import sharding
from csbp_jax.training import compiled

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=5,
    data=dataclasses.replace(DIGITS.data, augment=("mixup",)),
    model=dataclasses.replace(DIGITS.model, features=(2,), time_steps=1),
    chaos=dataclasses.replace(DIGITS.chaos, z0=(0.0,), taps=()),
)
STEPS_PER_EPOCH = 3


@pytest.fixture(scope="module")
def source():
    return data.load(SMALL)["train"]


def compile_run(config, source):
    return compiled.compile_run(config, source, STEPS_PER_EPOCH, mesh=sharding.data_parallel(1))


def test_mixing_is_off_in_the_last_epochs_only(source):
    """What a step sees is a function of (seed, step)."""
    always = compile_run(SMALL, source)
    at_first = compile_run(dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, mix_off_epochs=2)), source)
    batch = next(always.batches(0))
    state = jax.jit(always.pure_init)(jax.random.key(0))
    mixed, prepared = jax.jit(always._prepared), jax.jit(at_first._prepared)
    plain = always.prepare_eval(state.key, batch)["x"]
    for step in (0, 8, 9, 14):
        state = state.replace(step=np.int32(step))
        seen = prepared(state, batch)
        if step < 3 * STEPS_PER_EPOCH:
            chex.assert_trees_all_equal(seen, mixed(state, batch))
            assert not np.isin(seen["y"], (0, 1)).all()
        else:
            np.testing.assert_allclose(seen["x"], plain, rtol=1e-6)
            np.testing.assert_array_equal(seen["y"], np.eye(10)[batch["y"]])


def test_layers_learn_at_rates_that_fall_towards_the_input(source):
    sgd = Optimizer(name="sgd", momentum=0.0, schedule="constant", layer_decay=0.5)
    model = dataclasses.replace(SMALL.model, name="dense", features=(2,) * 10)
    tx = compile_run(dataclasses.replace(SMALL, model=model, optimizer=sgd), source).recipe.tx
    params = {f"fc{i}": np.ones(3) for i in range(1, 11)} | {"readout": np.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    expected = {f"fc{i}": np.full(3, -(0.5 ** (11 - i))) for i in range(1, 11)} | {"readout": -np.ones(3)}
    chex.assert_trees_all_close(updates, expected)


# Of timm's RandAugment in the settings of the originals, whose levels end at 10: rand-m9 or rand-m5.
TIMM_LEVELS = {
    "cifar10_max_resnet18": 9,
    "cifar100_max_resnet18": 9,
    "cifar10_spikformer_4_384": 9,
    "cifar100_spikformer_4_384": 9,
    "cifar10_qkformer_4_384": 9,
    "cifar100_qkformer_4_384": 9,
    "cifar10_sdt_2_512": 9,
    "cifar100_sdt_2_512": 9,
    "imagenet_spikformer_8_512": 9,
    "imagenet_qkformer_10_512": 9,
    "imagenet_sdt_8_512": 5,
}


def test_randaugment_of_the_presets_is_as_strong_as_that_of_the_originals():
    presets = {name: configs.load(name).data for name in configs.NAMES}
    found = {name: preset for name, preset in presets.items() if "randaugment" in preset.augment}
    assert {name: preset.randaugment_magnitude / 30 for name, preset in found.items()} == {
        name: level / 10 for name, level in TIMM_LEVELS.items()
    }
    assert {name: preset.randaugment_operations for name, preset in found.items()} == {
        name: 2 if name.startswith("imagenet") else 1 for name in TIMM_LEVELS
    }
