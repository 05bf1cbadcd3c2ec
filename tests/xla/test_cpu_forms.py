"""The forms of csbp_jax/xla that are fast on CPU, and of all platforms those of pooling and time: the same numbers."""

import functools
import itertools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax.models import norms
from csbp_jax.xla.convolution import convolution
from csbp_jax.xla.platform import traced_for
from csbp_jax.xla.pooling import max_pool
from csbp_jax.xla.static import repeat_over_time
from csbp_jax.xla.time_loop import over_time

NAMES = ("NHWC", "HWIO", "NHWC")
KERNELS, STRIDES = [(3, 3), (1, 1), (5, 3), (2, 4)], [(1, 1), (2, 2), (2, 1)]
SIZES = [(6, 7), (9, 8), (2, 2), (1, 1), (2, 9)]
# Kernels of odd and of even sides, all strides, and sizes that they divide or not; first XLA's form, then by taps.
FULL = {
    ((3, 3), (2, 2), (6, 7)), ((3, 3), (2, 2), (9, 8)), ((3, 3), (2, 1), (6, 7)), ((1, 1), (1, 1), (6, 7)),
    ((1, 1), (2, 2), (9, 8)), ((1, 1), (2, 1), (1, 1)), ((5, 3), (1, 1), (9, 8)), ((5, 3), (2, 1), (6, 7)),
    ((2, 4), (1, 1), (6, 7)), ((2, 4), (2, 2), (9, 8)), ((2, 4), (2, 1), (2, 9)),
    ((3, 3), (1, 1), (2, 2)), ((3, 3), (2, 2), (1, 1)), ((3, 3), (2, 1), (2, 9)), ((5, 3), (2, 2), (2, 9)),
    ((5, 3), (1, 1), (1, 1)), ((2, 4), (1, 1), (2, 2)), ((2, 4), (2, 2), (1, 1)),
}  # fmt: skip
FAST = {((3, 3), (2, 1), (6, 7)), ((1, 1), (2, 2), (9, 8)), ((2, 4), (2, 1), (2, 9)), ((3, 3), (1, 1), (2, 2))}
FAST_OF_FEW_CHANNELS, FULL_OF_FEW_CHANNELS = {(3, 32)}, {(1, 32), (3, 31), (4, 32)}
# The norm that is the same at all time steps in each of its programs, and each of the others once.
FAST_NORMS = {("batch", 1, True), ("batch", 1, False), ("tebn", 1, True)}
FULL_NORMS = {("batch", 2, True), ("tdbn", 1, True), ("bntt", 1, True), ("none", 1, True)}
FULL_POOLING = [((2, 2, 0), (5, 3)), ((3, 2, 1), (2, 7)), ((3, 1, 1), (4, 4))]
FAST_POOLING = [((3, 2, 1), (2, 7), "cpu"), ((3, 2, 1), (2, 7), "gpu"), ((3, 1, 1), (4, 4), "cpu")]


def cases(every, fast, full):
    return [
        pytest.param(*case, marks=() if case in fast else pytest.mark.full if case in full else pytest.mark.slow)
        for case in every
    ]


@pytest.mark.parametrize(("kernel", "strides", "size"), cases(itertools.product(KERNELS, STRIDES, SIZES), FAST, FULL))
def test_gradients_of_a_convolution_and_their_tangents_equal_laxs(x64, kernel, strides, size):
    check_convolution((2, *size, 3), (*kernel, 3, 4), strides)


@pytest.mark.parametrize(
    ("channels", "features"),
    cases(itertools.product([1, 2, 3, 4], [31, 32]), FAST_OF_FEW_CHANNELS, FULL_OF_FEW_CHANNELS),
)
def test_convolutions_of_few_channels_equal_laxs(x64, channels, features):
    check_convolution((2, 6, 7, channels), (3, 3, channels, features), (1, 1))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about programs for CPUs")
@pytest.mark.parametrize("features, left", [(31, 1), (32, 0)])
def test_few_channels_are_convolved_as_products_in_both_passes_if_there_are_many_features(features, left):
    """XLA's convolution is slower there, but not its gradient for fewer features."""

    def kernel_gradient(x, weights):
        return jax.grad(lambda weights: convolution(x, weights, (1, 1), [(1, 1)] * 2, dimension_numbers=NAMES).sum())(
            weights
        )

    x, weights = np.ones((2, 8, 8, 3), np.float32), np.ones((3, 3, 3, features), np.float32)
    program = jax.jit(kernel_gradient).lower(x, weights).as_text()
    assert program.count("stablehlo.convolution") == left


def test_a_program_for_several_platforms_has_the_form_of_each():
    """Also for an unknown number of images, as that of an exported network."""
    (images,) = jax.export.symbolic_shape("images")
    x, weights = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((images, 8, 8, 3), (3, 3, 3, 32)))
    convolve = jax.jit(lambda x, weights: convolution(x, weights, (1, 1), [(1, 1)] * 2, dimension_numbers=NAMES))
    counts = []
    for platforms in ("cpu",), ("cuda",), ("cpu", "cuda"):
        text = str(jax.export.export(convolve, platforms=platforms)(x, weights).mlir_module())
        counts.append(("stablehlo.convolution" in text, "stablehlo.dot_general" in text))
    assert counts == [(False, True), (True, False), (True, True)]


def check_convolution(of_x, of_kernel, strides):
    draw = np.random.default_rng(0)
    x, weights = draw.standard_normal(of_x), draw.standard_normal(of_kernel)
    padding = [(k // 2, k // 2) for k in of_kernel[:2]]

    def gradients(convolve):
        def loss(*operands):
            y = convolve(*operands, strides, padding, dimension_numbers=NAMES)
            return (jnp.sin(y) * np.arange(of_kernel[3]).reshape(1, 1, 1, -1)).sum()

        def with_tangents(*operands):
            return jax.jvp(jax.grad(loss, argnums=(0, 1)), operands, jax.tree.map(jnp.cos, operands))

        return with_tangents(x, weights)

    ours, expected = jax.jit(lambda: (gradients(convolution), gradients(lax.conv_general_dilated)))()
    chex.assert_trees_all_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_sums_over_the_taps_of_a_small_image_are_rounded_to_bfloat16_once(strides):
    draw = np.random.default_rng(0)
    x, weights = (draw.standard_normal(shape).astype(jnp.bfloat16) for shape in ((2, 2, 2, 32), (3, 3, 32, 16)))

    # Else XLA may leave out a rounding to bfloat16 that is widened again.
    @functools.partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
    def derivatives(x, weights):
        def convolve(x, weights):
            return convolution(x, weights, strides, [(1, 1)] * 2, dimension_numbers=NAMES)

        y, pullback = jax.vjp(convolve, x, weights)
        return y, *pullback(y.astype(jnp.bfloat16).astype(x.dtype))

    def results(x, weights):
        return [np.asarray(value, np.float32) for value in derivatives(x, weights)]

    rounded = results(x, weights)
    y, *gradients = results(x.astype(np.float32), weights.astype(np.float32))
    np.testing.assert_allclose(rounded[0], y, rtol=2**-8, atol=1e-6)
    for ours, value in zip(rounded[1:], gradients, strict=True):
        np.testing.assert_allclose(ours, value, rtol=2**-7, atol=2**-7 * np.abs(value).max())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about programs for CPUs")
def test_no_transpose_for_a_convolution_on_cpu_is_fused_with_arithmetic():
    """Such a loop has large strides: it was three to eight times slower than both alone."""

    def loss(weights, x):
        y = convolution(jnp.tanh(x), weights, (1, 1), [(1, 1)] * 2, dimension_numbers=NAMES)
        return (jnp.sin(y) ** 2).sum()

    weights, x = np.ones((3, 3, 16, 32), np.float32), np.ones((4, 8, 8, 16), np.float32)
    text = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(weights, x).compile().as_text() or ""
    bodies = re.findall(r"^%\S+ \([^)]*\) -> [^{]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    operations = [set(re.findall(r"= \S+ ([a-z\-]+)\(", body)) for body in bodies]
    transposing = [found for found in operations if "transpose" in found]
    assert transposing
    assert all(found <= {"transpose", "copy", "bitcast", "parameter"} for found in transposing)


@pytest.mark.parametrize(
    ("kind", "groups", "train"),
    cases(
        [
            *itertools.product(["batch", "tdbn", "tebn", "bntt"], [1, 2], [True]),
            *itertools.product(["batch", "tdbn", "tebn", "bntt"], [1], [False]),
            ("none", 1, True),
        ],
        FAST_NORMS,
        FULL_NORMS,
    ),
)
def test_a_static_current_is_normalised_as_if_repeated(x64, kind, groups, train):
    time_steps, x = 3, np.random.default_rng(0).normal(1, 2, (4, 1, 2, 3, 5))
    norm = norms.make(kind, time_steps, threshold=0.5, groups=groups)()

    def at_once(norm, x):
        return norms.over_time(norm, x, train, time_steps)

    def repeated(norm, x):
        return norm(repeat_over_time(x, time_steps), train)

    @jax.jit
    def both(x):
        variables = norm.init(jax.random.key(0), repeat_over_time(x, time_steps), False)

        def loss(normalise, params, x):
            y, after = nn.apply(normalise, norm, mutable=["batch_stats"])({**variables, "params": params}, x)
            return (jnp.sin(y) * np.arange(5).reshape(1, 1, 1, 1, 5)).sum(), (y, after)

        of_loss = jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)
        return [of_loss(normalise, variables.get("params", {}), x) for normalise in (at_once, repeated)]

    ours, expected = both(x)
    chex.assert_trees_all_close(ours, expected, rtol=1e-11, atol=1e-11)


def test_a_norm_that_is_the_same_at_all_time_steps_is_applied_before_the_repetition():
    norm, x = norms.make("batch", 3)(), np.ones((4, 1, 5), np.float32)
    variables = jax.eval_shape(lambda: norm.init(jax.random.key(0), x, False))
    apply = nn.apply(lambda norm, x: norms.over_time(norm, x, True, 3), norm, mutable=["batch_stats"])
    with traced_for("cpu"):
        program = str(jax.make_jaxpr(apply)(variables, x))
    assert "f32[4,1,5] = sub" in program and "f32[4,3,5] = sub" not in program


def pooling_marks(window, picture, device):
    if (window, picture, device) in FAST_POOLING:
        return ()
    return pytest.mark.full if (window, picture) in FULL_POOLING else pytest.mark.slow


@pytest.mark.parametrize(
    ("size", "stride", "pad", "picture", "device"),
    [
        pytest.param(*window, picture, device, marks=pooling_marks(window, picture, device))
        for window in [(2, 2, 0), (3, 2, 1), (3, 1, 1)]
        for picture in [(4, 4), (5, 3), (2, 7)]
        for device in ["cpu", "gpu", "tpu", None]
    ],
)
def test_max_pooling_and_its_gradients_equal_xlas(x64, size, stride, pad, picture, device):
    """Most windows of spikes have ties; the gradient's derivative along a direction is compared too."""
    draw = np.random.default_rng(0)
    spikes, numbers = draw.integers(0, 2, (2, 3, *picture, 4)).astype(float), draw.standard_normal((2, 3, *picture, 4))

    def plain(x):
        return nn.max_pool(x, (1, size, size), (1, stride, stride), ((0, 0), (pad, pad), (pad, pad)))

    def ours(x):
        return max_pool(x, size, stride, pad)

    def gradient(pool):
        return jax.grad(lambda x: (jnp.sin(pool(x) + 1) ** 2).sum())

    @jax.jit
    def pooled_and_gradients(x):
        return [(pool(x), jax.jvp(gradient(pool), (x,), (numbers,))) for pool in (ours, plain)]

    for x in (spikes, numbers):
        with traced_for(device):
            (actual, gradients), (expected, expected_gradients) = pooled_and_gradients(x)
        chex.assert_trees_all_equal(actual, expected)
        chex.assert_trees_all_close(gradients, expected_gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("device", "own_form"), [("cpu", True), ("gpu", True), ("tpu", False)])
def test_only_on_a_tpu_is_the_gradient_of_max_pooling_xlas(device, own_form):
    """Which is a scatter on a GPU. The index of each maximum, of which CPUs have a float, is a byte there."""
    gradient, x = jax.grad(lambda x: max_pool(x, 3, 2, 1).sum()), np.ones((1, 1, 4, 4, 1), np.float32)
    with traced_for(device):
        trace, computed = str(jax.make_jaxpr(gradient)(x)), np.asarray(jax.jit(gradient)(x))
    assert ("select_and_scatter_add" not in trace) == own_form
    assert ("i8[1,1,2,2,1]" in trace) == (device == "gpu")
    assert (computed.ravel() == np.array([1, 1, 0, 0, 1, 1, 0, 0] + [0] * 8)).all()


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("times", [range(4), range(19), range(36, -1, -1)])
def test_a_loop_over_time_is_the_loop_of_python(platform, times):
    """In whole numbers, so exactly: a chain, rows written over the sequence, and what fills no pass before passes."""
    x = np.random.default_rng(0).integers(-3, 4, (2, len(times), 3)).astype(np.float32)

    def step(row, t, carry):
        return row - carry[1], t * carry[0]

    first = carry = (x[:, times[0]], x[:, times[0]])
    rows = {times[0]: first}
    for t in times[1:]:
        rows[t] = carry = step(x[:, t], t, carry)
    stacked = tuple(np.stack([rows[t][part] for t in sorted(rows)], axis=1) for part in range(2))
    traced: list[None] = []

    def counted(row, t, carry):
        traced.append(None)
        return step(row, t, carry)

    with traced_for(platform):
        looped = jax.jit(lambda x, first: over_time(counted, first, lambda carry: carry, x, (x, x), times))(x, first)
    chex.assert_trees_all_equal(looped, (carry, stacked))
    after_first = len(times) - 1
    in_passes = {"cpu": 1, "gpu": after_first % 16 + 16}[platform]  # what fills no pass, and one pass
    assert len(traced) == (after_first if after_first < 4 else in_passes)
