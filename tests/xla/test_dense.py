"""The product of a fully connected synapse: its numbers, and the form of its gradient on a CPU."""

import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

from csbp_jax import models
from csbp_jax.config import Model
from csbp_jax.xla import dense


def loss(x, kernel, product):
    return jnp.sin(product(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))).sum()


def operands(rows, inputs, features):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (*rows, inputs)), jax.random.normal(keys[1], (inputs, features))


@pytest.mark.parametrize(("rows", "features"), [((8, 4), 10), ((8, 4), 200), ((4,), 10)])
def test_it_is_the_plain_product_with_its_gradients(rows, features):
    x, kernel = operands(rows, 24, features)
    ours, plain = (
        jax.jit(jax.value_and_grad(functools.partial(loss, product=product), argnums=(0, 1)))(x, kernel)
        for product in (dense.product, jax.lax.dot_general)
    )
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)
    tangents = (jnp.ones_like(x), jnp.ones_like(kernel))
    forward, expected = (
        jax.jvp(functools.partial(loss, product=product), (x, kernel), tangents)[1]
        for product in (dense.product, jax.lax.dot_general)
    )
    assert jnp.allclose(forward, expected, rtol=1e-4)


def test_the_gradient_of_a_read_out_does_not_read_its_input_by_columns():
    """Left alone, XLA on CPU turns the product into ``[inputs, features]``, which takes eight times as long."""
    network = models.build(Model(name="dense", features=(512,), input_shape=(1, 6, 1), classes=10, time_steps=8))
    x = jnp.ones((16, 8, 1, 6, 1))
    variables: dict[str, Any] = dict(network.init(jax.random.key(0), x, True))

    def read_out(params):
        return network.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])[0][0].sum() ** 2

    text = jax.jit(jax.grad(read_out)).lower(variables["params"]).compile().as_text() or ""
    products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(.*readout", text)
    assert "10,512" in products and "512,10" not in products
