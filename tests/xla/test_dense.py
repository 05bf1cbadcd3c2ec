"""The product of a fully connected synapse: its numbers, and the form of its gradient on a CPU."""

import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models
from csbp_jax.config import Model
from csbp_jax.xla import dense


def loss(x, kernel, product):
    return jnp.sin(product(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))).sum()


def operands(rows, inputs, features):
    draw = np.random.default_rng(0)
    shapes = (*rows, inputs), (inputs, features)
    return [draw.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(("rows", "features"), [((8, 4), 10), ((8, 4), 200), ((4,), 10)])
def test_it_is_the_plain_product_with_its_gradients(rows, features):
    @jax.jit
    def derivatives(*operands):
        results = []
        for product in (dense.product, jax.lax.dot_general):
            of_product = functools.partial(loss, product=product)
            _, tangent = jax.jvp(of_product, operands, jax.tree.map(jnp.ones_like, operands))
            results.append((jax.value_and_grad(of_product, argnums=(0, 1))(*operands), tangent))
        return results

    (ours, tangent), (plain, expected) = derivatives(*operands(rows, 24, features))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tangent, expected, rtol=1e-4)


def test_the_gradient_of_a_read_out_does_not_read_its_input_by_columns():
    """Left alone, XLA on CPU turns the product into ``[inputs, features]``, which takes eight times as long."""
    network = models.build(Model(name="dense", features=(512,), input_shape=(1, 6, 1), classes=10, time_steps=8))
    x = np.ones((16, 8, 1, 6, 1), np.float32)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), x, True))

    def read_out(params, batch_stats):
        both: Any = {"params": params, "batch_stats": batch_stats}
        return network.apply(both, x, True, mutable=["batch_stats"])[0][0].sum() ** 2

    lowered = jax.jit(jax.grad(read_out)).lower(variables["params"], variables["batch_stats"])
    text = lowered.compile().as_text() or ""
    products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(.*readout", text)
    assert "10,512" in products and "512,10" not in products
