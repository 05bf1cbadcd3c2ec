"""Winograd's convolution: the numbers of the plain one, and where the CPU's form of a convolution takes it."""

import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax import models
from csbp_jax.config import Model, Neuron
from csbp_jax.runtime import hardware
from csbp_jax.runtime.hardware import float64
from csbp_jax.xla import winograd
from csbp_jax.xla.convolution import convolution
from csbp_jax.xla.platform import traced_for

CPU_ONLY = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the plain convolution elsewhere")


def exactly(matrix):
    """Return twelve times a matrix as integers: of an entry ``(a + b sqrt(2)) / 12`` the block ``[[a, 2 b], [b, a]]``.

    Such blocks are added and multiplied as the numbers are. In each entry, a or b is zero.
    """
    rational, irrational = np.rint(12 * matrix), np.rint(12 * matrix / 2**0.5)
    is_rational = np.abs(matrix - rational / 12) < 1e-12
    a, b = np.where(is_rational, rational, 0), np.where(is_rational, 0, irrational)
    np.testing.assert_array_max_ulp(matrix, np.where(is_rational, a / 12, b * 2**0.5 / 12), maxulp=1)
    return np.array([[a, 2 * b], [b, a]], int)  # [2, 2, points, coefficients]


def test_the_matrices_give_the_convolution_exactly():
    """An output o is the sum over taps k of tap k times input o + k, without any other product, in exact numbers.

    What a library's inverse leaves in place of a zero, 1e-16 or so, depends on the processor, and fails here.
    """
    matrices = (winograd._FROM_INPUTS, winograd._FROM_TAP, winograd._FROM_OUTPUTS)
    inputs, taps, outputs = (exactly(matrix) for matrix in matrices)
    products = np.einsum("abpi,bcpk,cdpo->adiko", inputs, taps, outputs)
    i, k, o = np.indices(products.shape[2:])
    expected = np.where(i == k + o, 12**3, 0)
    np.testing.assert_array_equal(products, [[expected, 0 * expected], [0 * expected, expected]])
    np.testing.assert_array_equal(winograd._FROM_TAPS, np.kron(winograd._FROM_TAP, winograd._FROM_TAP))


def plain(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def operands(shape, features, rate=None):
    draw = np.random.default_rng(0)
    x = draw.standard_normal(shape) if rate is None else (draw.random(shape) < rate).astype(float)
    return x, draw.standard_normal((3, 3, shape[-1], features)) / (9 * shape[-1]) ** 0.5


# Sizes, and tiles at a time: those of all five images; of two, so that one of zeros fills the last chunk; of one.
TILES = [((8, 12), 2048), ((2, 9), 6)]
FULL_TILES = [((4, 4), 2048), ((5, 7), 2048), ((1, 1), 2048), ((4, 4), 2), ((5, 7), 1)]
SLOW_TILES = [((2, 9), 2048), ((4, 4), 1), ((8, 12), 1), ((1, 1), 1), ((2, 9), 1)]


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        *TILES,
        *(pytest.param(*case, marks=pytest.mark.full) for case in FULL_TILES),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_TILES),
    ],
)
def test_values_gradients_and_their_tangents_are_those_of_the_plain_convolution(x64, monkeypatch, size, tiles):
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", tiles)
    x, kernel = operands((5, *size, 3), 4)

    def derivatives(convolution):
        def loss(x, kernel):
            y = convolution(x, kernel)
            return (jnp.sin(y) * np.arange(4).reshape(1, 1, 1, 4)).sum(), y

        def with_tangents(*operands):
            both = jax.grad(loss, argnums=(0, 1), has_aux=True)
            return jax.jvp(both, operands, jax.tree.map(jnp.cos, operands))

        return with_tangents(x, kernel)

    ours, expected = jax.jit(lambda: (derivatives(winograd.convolution), derivatives(plain)))()
    chex.assert_trees_all_close(ours, expected, rtol=1e-11, atol=1e-11)


def gradient_of_a_gradient(convolution, x, kernel):
    def norm(kernel):
        return (jax.grad(lambda x: jnp.sin(convolution(x, kernel)).sum())(x) ** 2).sum()

    return jax.grad(norm)(kernel)


def of_members_with_kernels_of_their_own(convolution, x, kernel):
    both = jax.value_and_grad(lambda x, kernel: jnp.sin(convolution(x, kernel)).sum(), argnums=(0, 1))
    return jax.vmap(both, (None, 0))(x, jnp.stack([kernel, 2 * kernel, kernel + 1]))


@pytest.mark.parametrize(
    "derivatives",
    [pytest.param(gradient_of_a_gradient, marks=pytest.mark.full), of_members_with_kernels_of_their_own],
)
def test_derivatives_are_those_of_the_plain_convolution(x64, monkeypatch, derivatives):
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", 4)
    x, kernel = operands((3, 6, 6, 2), 3)
    ours, expected = (jax.jit(functools.partial(derivatives, f))(x, kernel) for f in (winograd.convolution, plain))
    chex.assert_trees_all_close(ours, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("channels", "rate"),
    [
        pytest.param(*case, id=f"{case[0]}-{name}", marks=() if case == (32, 0.5) else pytest.mark.full)
        for name, case in (
            (name, (channels, rate))
            for channels in (32, 256)
            for name, rate in (("few spikes", 0.1), ("many spikes", 0.5), ("numbers", None))
        )
    ],
)
def test_float32_rounds_by_a_few_millionths_of_the_largest_output(channels, rate):
    """So do the gradients, whose cotangent is the output."""
    x, kernel = (operand.astype(np.float32) for operand in operands((4, 16, 16, channels), 32, rate))

    def results(convolution, *operands):
        def output_and_gradients(*operands):
            y, pullback = jax.vjp(convolution, *operands)
            return y, *pullback(y)

        return [np.asarray(value, np.float64) for value in jax.jit(output_and_gradients)(*operands)]

    with float64():
        exact = results(plain, x.astype(np.float64), kernel.astype(np.float64))
    for ours, value in zip(results(winograd.convolution, x, kernel), exact, strict=True):
        assert 0 < np.abs(ours - value).max() < 6e-6 * np.abs(value).max()


def test_nothing_arrives_in_a_tile_without_a_spike():
    """Exactly; beside a spike in its tile, an output out of reach is zero up to rounding."""
    _, kernel = operands((2, 8, 8, 16), 16)
    x = np.zeros((2, 8, 8, 16), np.float32)
    x[0, 0, 0] = 1
    y = np.asarray(jax.jit(winograd.convolution)(x, kernel.astype(np.float32)))
    assert not y[1].any() and not y[0, 4:].any() and y[0, :2, :2].all()


def takes(shape=(16, 16, 16, 64), features=64, dtype=jnp.float32, kernel=3, strides=(1, 1), pad=None, **options):
    with float64() if dtype == jnp.float64 else contextlib.nullcontext(), traced_for("cpu"):
        x = jax.ShapeDtypeStruct(shape, dtype)
        weights = jax.ShapeDtypeStruct((kernel, kernel, shape[-1], features), dtype)
        pads = [(kernel // 2 if pad is None else pad,) * 2] * 2
        names = ("NHWC", "HWIO", "NHWC")
        trace = jax.make_jaxpr(lambda x, w: convolution(x, w, strides, pads, dimension_numbers=names, **options))
        return "conv_general_dilated" not in str(trace(x, weights))


(IMAGES,) = jax.export.symbolic_shape("images")
DEFAULT, HIGHEST = lax.Precision.DEFAULT, lax.Precision.HIGHEST


@CPU_ONLY
@pytest.mark.parametrize(
    ("taken", "cases"),
    [
        (True, [{}]),
        # Another form, or one in which it would be slower; an unknown number of images cannot be counted.
        (False, [{"dtype": jnp.bfloat16}, {"dtype": jnp.float64}, {"kernel": 5}, {"strides": (2, 2)}, {"pad": 0}]),
        (False, [{"shape": shape} for shape in ((16, 16, 16, 4), (2, 4, 4, 64), (IMAGES, 16, 16, 64))]),
        # The precision that a layer asks for; some are float32 on CPUs.
        (False, [{"precision": precision} for precision in ("highest", HIGHEST, (DEFAULT, "highest"))]),
        (True, [{"precision": precision} for precision in ("default", "bfloat16", (DEFAULT, DEFAULT))]),
    ],
)
def test_it_is_taken_where_it_is_exact_enough_and_pays(monkeypatch, taken, cases):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert [takes(**case) for case in cases] == [taken] * len(cases)
    with jax.default_matmul_precision("highest"):
        assert takes() is False


@CPU_ONLY
def test_it_is_not_taken_between_devices():
    assert jax.device_count() > 1 and not takes()
    for devices in (1, 2):  # of a step over a mesh
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("data",))):
            assert takes() == (devices == 1)


@CPU_ONLY
@pytest.mark.full
def test_a_network_trains_in_it_as_with_plain_sums(monkeypatch):
    """Loss and gradients, with blocks that are recomputed in the reverse pass; no spike is near its threshold."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(winograd, "pays", lambda shape, features: True)
    neuron = Neuron(threshold=0.2)
    network = models.build(
        Model("small_conv", (8, 8, 2), 3, time_steps=2, features=(6, 5), norm="none", neuron=neuron, remat=True)
    )
    x = np.random.default_rng(1).poisson(1.0, (4, 2, 8, 8, 2)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def derivatives():
        def loss(params):
            return (network.apply({"params": params}, x, True)[0] ** 2).sum()

        program = jax.jit(jax.value_and_grad(loss)).lower(variables["params"])
        return program.as_text().count("stablehlo.convolution"), program.compile()(variables["params"])

    ours, (loss, gradients) = derivatives()
    with jax.default_matmul_precision("highest"):
        plainly, expected = derivatives()
    assert ours == 0 < plainly and loss > 0
    chex.assert_trees_all_close((loss, gradients), expected, rtol=1e-4, atol=1e-5)


@CPU_ONLY
def test_operations_are_those_of_plain_sums(monkeypatch):
    x, kernel = operands((16, 16, 16, 64), 64)
    names = ("NHWC", "HWIO", "NHWC")
    pads = [(1, 1), (1, 1)]

    def count():
        convolve = jax.jit(lambda x, kernel: convolution(x, kernel, (1, 1), pads, dimension_numbers=names))
        return hardware.flops(convolve, x.astype(np.float32), kernel.astype(np.float32))

    expected = count()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert count() == expected > 0


@CPU_ONLY
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "channels", "by_taps"),
    [
        *[(2, 3, 1, 4, True), (2, 3, 2, 4, True), (4, 3, 2, 4, True), (8, 7, 2, 16, True)],
        *[(8, 7, 2, 3, False), (6, 7, 2, 3, True), (8, 3, 2, 4, False)],
    ],
)
def test_small_images_are_convolved_by_taps_but_for_a_stem(size, kernel, stride, channels, by_taps):
    """In both passes; a stem of 7x7 took half as long in XLA's form on images of 7 to 12 pixels."""
    x = np.ones((1, size, size, channels), np.float32)
    weights = np.ones((kernel, kernel, channels, 2), np.float32)
    pads, names = [(kernel // 2, kernel // 2)] * 2, ("NHWC", "HWIO", "NHWC")

    def total(x, weights):
        return convolution(x, weights, (stride, stride), pads, dimension_numbers=names).sum()

    with traced_for("cpu"):
        trace = jax.make_jaxpr(jax.value_and_grad(total, argnums=(0, 1)))(x, weights)
    assert ("conv_general_dilated" not in str(trace)) == by_taps
