"""The GPU kernels of the neuron, in JAX's interpreter, against the plain form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal, assert_type
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from csbp_jax import kernel, neurons, recurrence, surrogate

B, T = 2, 3

interpreter = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params", reason="private to JAX")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(kernel, "ON", True)
    monkeypatch.setattr(kernel, "INTERPRET", interpreter.InterpretGPUParams())


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0.3, 0.9, shape), jnp.float32)


def arguments(width, given=True):
    membrane = {"membrane": draw(B, width, seed=1)} if given else {}
    return {"x": draw(B, T, width), "decay": jnp.float32(0.5), "threshold": jnp.float32(0.8), **membrane}


def gradients(run, p, **static):
    """In all arguments, of weighted spikes and membranes; and these."""

    def loss(p):
        x, membrane, decay, threshold = neurons._arguments(
            p["x"], p.get("membrane"), p["decay"], p["threshold"], static["reset"]
        )
        spike = surrogate.Surrogate(static["spike"].formula, (p.get("width", 1.0),))
        rest = spike, static["reset"], static["detach"], static["residual"]
        spikes, end = run(x, membrane, decay, threshold, *rest)
        weights = draw(*spikes.shape, seed=2), draw(*end.shape, seed=3)
        return (weights[0] * spikes).sum() + (weights[1] * end).sum(), (spikes, end)

    return jax.jit(jax.grad(loss, has_aux=True))(p)


def static(reset="hard", detach=False, residual="full", spike=surrogate.triangle()):
    return {"reset": reset, "detach": detach, "residual": residual, "spike": spike}


def assert_alike(actual, expected, tolerance=1e-5):
    """Gradients to rounding of the largest of each, spikes and membranes to that of one step."""
    assert_trees_all_equal(actual[1][0], expected[1][0])
    assert_trees_all_close(actual[1][1], expected[1][1], rtol=0, atol=1e-6)
    for name, gradient in expected[0].items():
        largest = float(jnp.abs(gradient).max())
        np.testing.assert_allclose(*(np.float32(g[0][name]) for g in (actual, expected)), 0, tolerance * largest, name)


# Two blocks that overlap, of one, two and four neurons a thread.
@pytest.mark.parametrize(
    ("width", "given", "options"),
    [
        (131, True, static()),
        (258, False, static("soft", spike=surrogate.arctan())),
        (516, True, static("soft", detach=True, spike=surrogate.sigmoid())),
        (130, False, static("hard", detach=True, spike=surrogate.fast_sigmoid())),
        (132, True, static("none", spike=surrogate.rectangle())),
        (129, True, static("hard", residual="half", spike=surrogate.piecewise_exp())),
        (516, False, static("soft", residual="half")),
    ],
)
def test_values_and_all_gradients_are_the_plain_forms(width, given, options):
    p = arguments(width, given)
    expected = gradients(recurrence.lif, p, **options)
    assert 0.1 < expected[1][0].mean() < 0.9
    assert_alike(gradients(kernel.lif, p, **options), expected)


def test_bfloat16_current_has_a_float32_membrane():
    p = arguments(130) | {"x": draw(B, T, 130).astype(jnp.bfloat16)}
    found, expected = (gradients(f, p, **static()) for f in (kernel.lif, recurrence.lif))
    assert_type([found[0]["x"], *found[1]], [jnp.bfloat16, jnp.bfloat16, jnp.float32])
    # The sums of decay and threshold are of x's gradient as it is kept, in bfloat16.
    assert_alike(found, expected, 0.01)
    assert_trees_all_close(found[0]["x"], expected[0]["x"], rtol=0.01)


def test_lif_runs_the_kernel_on_pictures_too():
    x = draw(B, 3, 4, 4, 9)
    spikes, pull = jax.vjp(lambda x: neurons.lif(x)[0], x)
    text = str(jax.make_jaxpr(lambda x: jax.vjp(lambda x: neurons.lif(x)[0], x)[1](spikes))(x))
    assert text.count("mpmd_map") == 2
    expected = jax.vjp(lambda x: recurrence.lif(*neurons._arguments(x, None, 0.5, 1.0, "hard"), *NEURON)[0], x)
    assert_trees_all_equal(spikes, expected[0])
    assert_trees_all_close(pull(spikes), expected[1](spikes), atol=1e-6)


NEURON = (surrogate.triangle(), "hard", False, "full")


# --- transforms ---------------------------------------------------------------------------------------------------


def members():
    p = arguments(130)
    return jax.tree.map(lambda a: jnp.stack([a, a + 0.1]), p) | {"width": jnp.array([0.8, 1.2])}


def each(run):
    return lambda p: gradients(run, p, **static())


def test_vmap_over_members():
    assert_alike(jax.vmap(each(kernel.lif))(members()), jax.vmap(each(recurrence.lif))(members()))


def test_jit_of_shard_map_of_vmap():
    """As a sweep has it."""
    mesh = jax.make_mesh((2,), ("member",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        jax.vmap(each(kernel.lif)), mesh=mesh, in_specs=P("member"), out_specs=P("member"), check_vma=False
    )
    assert_alike(jax.jit(sharded)(members()), jax.vmap(each(recurrence.lif))(members()))


def test_tangent_map_of_a_training_step_is_the_plain_forms():
    """A jvp through the gradient, and a gradient through the gradient."""
    p = arguments(130)
    direction = jax.tree.map(lambda a: draw(*a.shape, seed=7), p)

    def step(run, p):
        return jax.tree.map(lambda a, g: a - 0.1 * g, p, gradients(run, p, **static(spike=surrogate.arctan()))[0])

    def norm(run, p):
        return sum((a**2).sum() for a in jax.tree.leaves(step(run, p)))

    found, expected = (
        jax.jit(functools.partial(jax.jvp, functools.partial(step, f)))((p,), (direction,)) for f in RUNS
    )
    assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)
    found, expected = (jax.grad(functools.partial(norm, f))(p) for f in RUNS)
    assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


RUNS = kernel.lif, recurrence.lif


# --- where it does not apply --------------------------------------------------------------------------------------


def test_on_another_platform_it_is_the_plain_form(monkeypatch):
    monkeypatch.setattr(kernel, "INTERPRET", None)
    p = arguments(130)
    compiled = jax.jit(each(kernel.lif)).lower(p).compile()
    assert "custom-call" not in compiled.as_text()
    assert_alike(compiled(p), jax.jit(each(recurrence.lif))(p))
    assert_alike(jax.jit(jax.vmap(each(kernel.lif)))(members()), jax.vmap(each(recurrence.lif))(members()))


def test_what_does_not_fit(monkeypatch):
    x, number, spike = jnp.zeros((2, 3, 128)), jnp.ones((1, 1)), surrogate.triangle()
    own = surrogate.Surrogate(lambda x, width: jnp.exp(-(x**2)), (1.0,))
    assert kernel.fits(x, number, number, spike)
    assert not kernel.fits(x[..., :127], number, number, spike)
    assert not kernel.fits(x[:, :, 0], jnp.ones(1), jnp.ones(1), spike)
    assert not kernel.fits(x, jnp.ones((1, 128)), number, spike)
    assert not kernel.fits(x, number, jnp.ones((1, 128)), spike)
    assert not kernel.fits(x, number, number, own)
    assert not kernel.fits(x, number, number, surrogate.erf())
    assert not kernel.fits(x, number, number, surrogate.triangle(jnp.ones(128)))
    with jax.enable_x64(True):
        assert not kernel.fits(x, jnp.ones((1, 1), jnp.float64), number, spike)
    monkeypatch.setattr(kernel, "INTERPRET", None)
    assert not kernel.fits(x, number, number, spike)  # eight devices


def test_what_does_not_fit_runs_as_ever(monkeypatch):
    x = draw(B, T, 127)
    found = neurons.lif(x)
    monkeypatch.setattr(kernel, "ON", False)
    assert_trees_all_equal(found, neurons.lif(x))
