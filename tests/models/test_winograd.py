"""Winograd's convolution: the numbers of the plain one, and where the CPU's form of a convolution takes it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax.models import cpu_ops, winograd

CPU_ONLY = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the plain convolution elsewhere")


def plain(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def operands(shape, features, rate=None):
    draw = np.random.default_rng(0)
    x = draw.standard_normal(shape) if rate is None else (draw.random(shape) < rate).astype(float)
    return x, draw.standard_normal((3, 3, shape[-1], features)) / (9 * shape[-1]) ** 0.5


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (5, 7), (1, 1), (2, 9)])
@pytest.mark.parametrize("tiles", [2048, 6, 1], ids=["at once", "in chunks", "one by one"])
def test_values_gradients_and_their_tangents_are_those_of_the_plain_convolution(x64, monkeypatch, size, tiles):
    """With six tiles at a time, most of these five images are in chunks, the last of which is filled with zeros."""
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", tiles)
    x, kernel = operands((5, *size, 3), 4)

    def derivatives(convolution):
        def loss(x, kernel):
            y = convolution(x, kernel)
            return (jnp.sin(y) * np.arange(4).reshape(1, 1, 1, 4)).sum(), y

        both = jax.grad(loss, argnums=(0, 1), has_aux=True)
        return jax.jvp(both, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

    ours = jax.jit(lambda: derivatives(winograd.convolution))()
    chex.assert_trees_all_close(ours, jax.jit(lambda: derivatives(plain))(), rtol=1e-11, atol=1e-11)


def test_the_gradient_of_a_gradient_is_that_of_the_plain_convolution(x64, monkeypatch):
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", 4)
    x, kernel = operands((3, 6, 6, 2), 3)

    def second(convolution):
        def norm(kernel):
            return (jax.grad(lambda x: jnp.sin(convolution(x, kernel)).sum())(x) ** 2).sum()

        return jax.jit(jax.grad(norm))(kernel)

    chex.assert_trees_all_close(second(winograd.convolution), second(plain), rtol=1e-11, atol=1e-11)


def test_members_of_a_vmap_are_convolved_with_kernels_of_their_own(x64):
    x, kernel = operands((3, 6, 6, 2), 3)
    kernels = np.stack([kernel, 2 * kernel, kernel + 1])
    ours = jax.vmap(winograd.convolution, (None, 0))(x, kernels)
    chex.assert_trees_all_close(ours, jax.vmap(plain, (None, 0))(x, kernels), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rate", [0.1, 0.5, None], ids=["few spikes", "many spikes", "numbers"])
@pytest.mark.parametrize("channels", [32, 256])
def test_float32_rounds_by_a_few_millionths_of_the_largest_output(channels, rate):
    x, kernel = (operand.astype(np.float32) for operand in operands((4, 16, 16, channels), 32, rate))
    with jax.enable_x64():
        exact = np.asarray(plain(x.astype(np.float64), kernel.astype(np.float64)))
    error = np.abs(np.asarray(jax.jit(winograd.convolution)(x, kernel), np.float64) - exact).max()
    assert 0 < error < 4e-6 * np.abs(exact).max()


def test_without_a_spike_nothing_arrives():
    _, kernel = operands((2, 8, 8, 16), 16)
    x = jnp.zeros((2, 8, 8, 16)).at[0, 0, 0].set(1)
    y = winograd.convolution(x, kernel.astype(np.float32))
    assert not y[1].any() and not y[0, 4:].any() and y[0, :2, :2].all()


@CPU_ONLY
class TestWhereItIsTaken:
    @pytest.fixture(autouse=True)
    def one_device(self, monkeypatch):
        monkeypatch.setattr(jax, "device_count", lambda: 1)

    def taken(self, shape=(16, 16, 16, 64), features=64, dtype=jnp.float32, kernel=3, strides=(1, 1), **options):
        x = jax.ShapeDtypeStruct(shape, dtype)
        weights = jax.ShapeDtypeStruct((kernel, kernel, shape[-1], features), dtype)
        pads = [(kernel // 2, kernel // 2)] * 2
        names = ("NHWC", "HWIO", "NHWC")
        trace = jax.make_jaxpr(
            lambda x, w: cpu_ops.convolution(x, w, strides, pads, dimension_numbers=names, **options)
        )
        return "conv_general_dilated" not in str(trace(x, weights))

    def test_a_wide_layer_of_float32(self):
        assert self.taken()

    @pytest.mark.parametrize("options", [{"dtype": jnp.bfloat16}, {"kernel": 5}, {"strides": (2, 2)}])
    def test_not_another_form(self, options):
        assert not self.taken(**options)

    def test_not_float64(self, x64):
        assert not self.taken(dtype=jnp.float64)

    @pytest.mark.parametrize("shape", [(16, 16, 16, 2), (2, 4, 4, 64)], ids=["few channels", "few pixels"])
    def test_not_where_it_would_be_slower(self, shape):
        assert not self.taken(shape)

    @pytest.mark.parametrize("precision", ["highest", lax.Precision.HIGHEST])
    def test_not_at_a_precision_that_the_layer_asks_for(self, precision):
        assert not self.taken(precision=precision) and self.taken(precision="default")

    def test_not_at_a_precision_that_the_user_asks_for(self):
        with jax.default_matmul_precision("highest"):
            assert not self.taken()

    def test_not_for_an_unknown_number_of_images(self):
        """Their program is exported, and may run on any device."""
        (images,) = jax.export.symbolic_shape("images")
        assert not self.taken((images, 16, 16, 64))

    def test_not_between_devices(self, monkeypatch):
        monkeypatch.setattr(jax, "device_count", lambda: 2)
        assert not self.taken()
