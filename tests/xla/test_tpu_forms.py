"""Forms for TPUs, run on CPU: each gives the numbers and derivatives of the plain form."""

import functools
import re
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from csbp_jax import neurons
from csbp_jax.evaluation.synaptic_ops import count_synops
from csbp_jax.models import layers, norms
from csbp_jax.models.base import Network
from csbp_jax.models.taps import Probe
from csbp_jax.xla import batch_norm, convolution, memory
from csbp_jax.xla.platform import traced_for
from csbp_jax.xla.static import repeat_over_time

B, T = 4, 3
NO_PROBE = Probe(lambda h: h.sum())


def over_two_slices(function):
    """Compile a function of replicated variables and a batch for a mesh of two slices with two devices each."""
    mesh = jax.make_mesh((2, 2), ("slice", "data"), axis_types=(AxisType.Auto,) * 2)

    def over_mesh(variables, x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(variables, x)

    whole, rows = (NamedSharding(mesh, PartitionSpec(*names)) for names in ((), (("slice", "data"),)))
    return jax.jit(over_mesh, in_shardings=(whole, rows))


class Net(Network):
    """A stem of a static image, then a strided convolution of its spikes."""

    def body(self, x, train, run):
        conv = self.spiking(layers.ConvNormLIF)
        x = run(layers.ConvNorm(4, norm=self.make_norm(), time_steps=x.shape[1], dtype=self.dtype, name="stem"), x)
        x = run(layers.Spike(self.time_steps, self.dtype, name="spike"), x)
        x = run(conv(5, stride=2, use_bias=True, name="conv1"), x)
        return run(layers.Linear(self.classes, name="readout"), layers.flat(x))


def loss_and_all(net, variables, x):
    """Loss, statistics after it, and gradient of all parameters and the input, for a fixed linear loss."""

    def loss(params, x):
        (logits, aux), after = net.apply(
            {**variables, "params": params}, x, True, tap=lambda h: (h**2).sum(), taps=TAPS, mutable=["batch_stats"]
        )
        return (logits * np.arange(10).reshape(1, 1, 10)).sum() + sum(aux.terms.values()), (after, aux.rates)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)


TAPS = ("spike.membrane", "conv1.norm")


@pytest.mark.parametrize("groups", [1, pytest.param(4, marks=pytest.mark.full)])
def test_a_network_for_tpus_has_the_numbers_of_one_for_cpus(x64, groups):
    """Over a mesh of two slices, as a run has it."""
    net = Net(time_steps=T, neuron=neurons.LIF(decay=0.5), norm_groups=groups)
    x = np.random.default_rng(0).normal(size=(B, 1, 6, 6, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    plain = jax.jit(lambda v, x: loss_and_all(net, v, x))
    expected, program = plain(variables, x), plain.lower(variables, x).as_text()
    lean = over_two_slices(lambda variables, x: loss_and_all(net, variables, x))
    with traced_for("tpu"):
        actual, text = lean(variables, x), str(jax.make_jaxpr(lean)(variables, x))
    assert "layout_constraint" in text and "LayoutConstraint" not in program
    assert f"[{B},{T},6,6,4]" in text.replace(" ", "")
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert 0.01 < float(expected[0][1][1]["conv1"]) < 0.99


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_forms_of_a_platform_are_those_that_are_traced_for_it(platform):
    """The loss is one program of them all, of which JAX takes the platform's as it lowers; nothing is patched."""
    net, x = Net(time_steps=T), np.zeros((B, 1, 6, 6, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(1), x)

    def operations(context):
        with context:
            program = jax.jit(lambda v, x: net.apply(v, x, True, mutable=["batch_stats"])[0][0]).trace(variables, x)
            text = program.lower(lowering_platforms=(platform,)).as_text()
        return Counter(name for name in re.findall(r" = \"?(stablehlo\.\w+)", text) if name != "stablehlo.case")

    known = operations(traced_for({"cuda": "gpu"}.get(platform, platform)))
    unknown = operations(traced_for(None))
    assert known - unknown == Counter() and set(unknown - known) <= {"stablehlo.constant"}


@pytest.mark.full
def test_operations_are_counted_as_elsewhere():
    net, x = Net(time_steps=T), np.random.default_rng(0).random((B, 1, 6, 6, 3), np.float32)
    variables = jax.jit(net.init)(jax.random.key(1), x)

    def connections():
        counts = jax.jit(lambda variables, x: count_synops(net.apply, variables, x)[1])(variables, x)
        return {name: synops.dense.tolist() for name, synops in counts.items()}

    expected = connections()
    with traced_for("tpu"):
        assert connections() == expected
    assert set(expected) == {"stem.conv", "conv1.conv", "readout.dense"}


def test_a_layout_is_fixed_on_each_device_of_a_mesh_and_not_without_one():
    def text(batch):
        return str(
            jax.make_jaxpr(lambda x: memory.time_outermost(x))(jax.ShapeDtypeStruct((batch, T, 2, 2, 3), jnp.float32))
        )

    assert "layout_constraint" not in text(B)
    mesh = jax.sharding.AbstractMesh((2, 2), ("slice", "data"), axis_types=(AxisType.Auto,) * 2)
    with traced_for("tpu"), jax.sharding.use_abstract_mesh(mesh):
        within = text(B).split("shard_map")[1]
        assert "layout_constraint" in within and f"f32[{B // 4},{T},2,2,3]" in within
        assert "layout_constraint" not in text(B + 1)  # cannot be split


def test_in_a_sweep_no_layout_is_fixed():
    """Each device along ``member`` has the whole batch of its members; only ``data`` could split it."""
    mesh = jax.make_mesh((4, 1), ("member", "data"), axis_types=(AxisType.Auto,) * 2)
    of_members = jax.shard_map(
        memory.time_outermost,
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec("member"),
        axis_names={"member"},
        check_vma=False,
    )
    with traced_for("tpu"):
        assert "layout_constraint" not in str(jax.make_jaxpr(of_members)(jnp.zeros((B, T, 2, 2, 3))))


def test_a_layer_for_tpus_keeps_its_input_and_the_output_of_its_synapse():
    net = Net(time_steps=T, dtype=jnp.bfloat16)
    x = np.random.default_rng(0).normal(size=(B, 1, 6, 6, 3)).astype(np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    def residuals():
        """Elements and dtype of each array of activations between the passes."""

        def vjp(params):
            def logits(params):
                return net.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])[0][0]

            return jax.vjp(logits, params)[1]

        leaves = jax.tree.leaves(jax.eval_shape(vjp, variables["params"]))
        arrays = [leaf for leaf in leaves if leaf.shape[:1] in ((B,), (B * T,))]
        return sorted((leaf.size, leaf.dtype.name) for leaf in arrays if leaf.size > B * T)

    stem, spikes, conv1 = B * 6 * 6 * 4, B * T * 6 * 6 * 4, B * T * 3 * 3 * 5
    with traced_for("cpu"):
        everything = residuals()
    of_stem, of_spike = [(x.size, "float32"), (stem, "bfloat16")], [(stem, "float32")]
    of_conv1, of_readout = [(spikes, "bfloat16"), (conv1, "bfloat16")], [(conv1, "bfloat16")]
    with traced_for("tpu"):
        lean = residuals()
    assert lean == sorted([*of_stem, *of_spike, *of_conv1, *of_readout])
    assert len(lean) < len(everything)


def first_variables(norm, x):
    return jax.jit(functools.partial(norm.init, train=False))(jax.random.key(0), x)


NORMS = [("batch", 1), ("batch", 2), ("tdbn", 1), ("tebn", 1), ("tebn", 4)]
# With groups, nothing is written for a mesh; tdbn is batch norm times a number.
FAST_NORMS = [(jax.jit, "batch", 1), (jax.jit, "tebn", 4), (over_two_slices, "batch", 1), (over_two_slices, "tebn", 1)]


@pytest.mark.parametrize(
    ("compiled", "kind", "groups"),
    [
        pytest.param(*case, marks=() if case in FAST_NORMS else pytest.mark.slow)
        for case in ((compiled, *norm) for compiled in (jax.jit, over_two_slices) for norm in NORMS)
    ],
)
@pytest.mark.parametrize("platform", [pytest.param("gpu", marks=pytest.mark.full), "tpu"])
def test_a_norm_in_one_pass_equals_one_in_two_to_the_second_derivative(x64, kind, groups, compiled, platform):
    x = np.random.default_rng(0).normal(20, 2, (B, T, 5))
    norm = norms.make(kind, T, threshold=0.5, groups=groups)()
    variables = first_variables(norm, x)
    variables["batch_stats"]["mean"] = np.arange(5.0) + 18  # near the mean, as in training, and not equal to it

    def outputs_gradient_and_its_tangent(variables, x):
        def loss(params, x):
            y, after = norm.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return (jnp.sin(y) * np.arange(5).reshape(1, 1, 5)).sum(), (y, after)

        gradient = jax.grad(lambda *a: loss(*a)[0], argnums=(0, 1))
        point = (variables["params"], x)
        return loss(*point), jax.jvp(gradient, point, jax.tree.map(jnp.ones_like, point))

    expected = jax.jit(outputs_gradient_and_its_tangent)(variables, x)
    in_one_pass = compiled(lambda variables, x: outputs_gradient_and_its_tangent(variables, x))
    with traced_for(platform):
        actual = in_one_pass(variables, x)
    chex.assert_trees_all_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_static_input_is_normalised_in_one_pass_as_in_two(groups, x64):
    """As in the stem of a network on pictures, whose norm over time steps sees one time step in place of T."""
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (B, 1, 5, 5, 3)))
    scale, shift = (jnp.arange(3.0).reshape(1, 1, 1, 1, 3) + first for first in (1, 0))
    normalise = functools.partial(
        batch_norm.normalise, axes=(0, 1, 2, 3), epsilon=1e-5, groups=groups, time_steps=T, reference=jnp.full(3, 1.5)
    )
    with traced_for("cpu"):
        expected = normalise(x, scale, shift)
    with traced_for("gpu"):
        actual = normalise(x, scale, shift)
    assert actual[0].shape == (B, T, 5, 5, 3)
    chex.assert_trees_all_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_moments_pass_between_slices_together():
    compiled = over_two_slices(lambda offset, x: jnp.stack(batch_norm.moments(x - offset)))
    x = np.random.default_rng(0).normal(size=(B, T, 5)).astype(np.float32)
    offset = np.float32(0.5)
    means = compiled(offset, x)
    np.testing.assert_allclose(means[0, 0, 0], (x - offset).mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(means[1, 0, 0], np.square(x - offset).mean((0, 1)), rtol=1e-5)
    assert compiled.lower(offset, x).as_text().count("stablehlo.all_reduce") == 1


def test_over_slices_the_gradient_of_a_kernel_comes_first_and_has_the_same_derivatives(x64):
    """Derivatives to the second; the gradient of the input waits for each device's share, not for the sum."""
    draw = np.random.default_rng(0)
    kernel, x = draw.normal(size=(3, 3, 2, 5)), draw.normal(size=(B * T, 6, 6, 2))
    options = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1)}

    def gradient_and_its_tangent(kernel, x):
        def loss(kernel, x):
            return jnp.sin(convolution.over_time(x, kernel, (2, 2), [(1, 1), (1, 1)], T, **options)).sum()

        point = (kernel, x)
        return jax.jvp(jax.grad(loss, argnums=(0, 1)), point, jax.tree.map(jnp.ones_like, point))

    expected = jax.jit(gradient_and_its_tangent)(kernel, x)
    compiled = over_two_slices(gradient_and_its_tangent)
    chex.assert_trees_all_close(compiled(kernel, x), expected, rtol=1e-10, atol=1e-10)
    first_order = over_two_slices(lambda kernel, x: gradient_and_its_tangent(kernel, x)[0])
    text = first_order.lower(kernel, x).as_text()
    assert text.count("stablehlo.convolution") == 3
    between = text.split("optimization_barrier")
    assert [part.count("stablehlo.convolution") for part in between] == [2, 1]
    assert [part.count("stablehlo.all_reduce") for part in between] == [0, 1]


def test_a_variance_in_one_pass_is_not_negative_by_rounding():
    x = np.broadcast_to(np.array([1001.7, 333.3, 77.7, 5011.3, 901.9], np.float32), (B, T, 5))
    norm = norms.make("batch", T, threshold=0.5)()
    variables = first_variables(norm, x)
    with traced_for("tpu"):
        y, after = jax.jit(lambda v, x: norm.apply(v, x, True, mutable=["batch_stats"]))(variables, x)
    assert np.isfinite(y).all() and (after["batch_stats"]["var"] >= 0.89).all()  # 0.9 of the initial 1


def test_statistics_in_one_pass_lose_few_digits_far_from_the_reference():
    """The mean is 100 deviations from 0, the first reference; float32 keeps some 3 digits of the variance."""
    x = np.random.default_rng(0).normal(100, 1, (64, T, 5)).astype(np.float32)
    norm = norms.make("batch", T)()
    variables = first_variables(norm, x)

    @jax.jit
    def apply(variables):
        with traced_for("tpu"):
            return norm.apply(variables, x, True, mutable=["batch_stats"])[0]

    y = apply(variables)
    expected = (x - x.mean((0, 1), dtype=float)) / x.std((0, 1), dtype=float)
    np.testing.assert_allclose(y, expected, atol=2e-2)
    variables["batch_stats"]["mean"] = np.full(5, 99, np.float32)
    np.testing.assert_allclose(apply(variables), expected, atol=1e-4)


def test_a_static_current_in_bfloat16_has_the_gradient_summed_in_float32():
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(1, T, 5)).astype(jnp.bfloat16)

    def current(repeat):
        return lambda h: (repeat(h).astype(jnp.float32) ** 2 * weights).sum()

    h = draw.normal(size=(B, 1, 5)).astype(np.float32)
    lean = current(lambda h: repeat_over_time(h, T, jnp.bfloat16))
    plain = current(lambda h: jnp.broadcast_to(h, (B, T, 5)).astype(jnp.bfloat16))
    as_it_is = jax.eval_shape(lambda h: repeat_over_time(h, T), h.astype(jnp.bfloat16))
    assert as_it_is.dtype == jnp.bfloat16  # if no dtype is named

    @jax.jit
    def values_gradients_and_tangents(h):
        return [(f(h), *jax.jvp(jax.grad(f), (h,), (jnp.ones_like(h),))) for f in (lean, plain)]

    (value, gradient, tangent), (expected_value, expected, expected_tangent) = values_gradients_and_tangents(h)
    assert value == expected_value
    chex.assert_trees_all_close(gradient, expected, rtol=1e-6)
    chex.assert_trees_all_close(tangent, expected_tangent, rtol=1e-2)
