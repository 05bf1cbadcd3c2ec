"""The GPU kernels of the neuron, in JAX's interpreter, against the plain form."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal, assert_type
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from csbp_jax import config, neurons, surrogate
from csbp_jax.neurons import lif_scan
from csbp_jax.training import plugin_file
from experiments.gpu_kernel import check, kernel, passes
from experiments.gpu_kernel.check import CASES, arguments, differences, draw, gradients, options

interpreter = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params", reason="private to JAX")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(passes, "INTERPRET", interpreter.InterpretGPUParams())


RUNS = kernel.lif, lif_scan.lif
HARD = options()


def assert_same(actual, expected, tolerance=1e-5):
    differ = differences(actual, expected)
    assert differ.pop("spikes") == 0
    assert all(value <= tolerance for value in differ.values()), differ


# The fast ones have a membrane, each width per thread, each kind of residual, and both resets.
FAST = (0, 2, 5)


@pytest.mark.parametrize(
    ("width", "with_membrane", "static"),
    [pytest.param(*case, marks=[] if i in FAST else pytest.mark.slow) for i, case in enumerate(CASES)],
)
def test_values_and_all_gradients_equal_the_plain_form(width, with_membrane, static):
    actual, expected = (gradients(run, arguments(2, 3, width, with_membrane), **static) for run in RUNS)
    assert 0.1 < expected[1][0].mean() < 0.9
    assert_same(actual, expected)


def test_bfloat16_current_has_a_float32_membrane():
    p = arguments(2, 4, 130, dtype=jnp.bfloat16)
    actual, expected = (gradients(run, p, **HARD) for run in RUNS)
    assert_type([actual[0]["x"], *actual[1]], [jnp.bfloat16, jnp.bfloat16, jnp.float32])
    # The sums of decay and threshold are of x's gradient as it is kept, in bfloat16.
    assert_same(actual, expected, 0.01)


def test_the_neuron_runs_the_kernel_on_images_too():
    def spikes_and_gradient(neuron):
        def run(x):
            spikes, pull = jax.vjp(lambda x: neuron(x)[0], x)
            return spikes, pull(spikes)

        return jax.jit(run)

    x, run = draw(2, 3, 4, 4, 9), spikes_and_gradient(kernel.KernelLIF())
    assert str(jax.make_jaxpr(run)(x)).count("mpmd_map") == 2
    actual, expected = run(x), spikes_and_gradient(neurons.LIF())(x)
    assert_trees_all_equal(actual[0], expected[0])
    assert_trees_all_close(actual[1], expected[1], atol=1e-6)


# --- transforms ---------------------------------------------------------------------------------------------------


def members():
    p = arguments(2, 3, 130)
    return jax.tree.map(lambda a: jnp.stack([a, a + 0.1]), p) | {"width": jnp.array([0.8, 1.2])}


def gradients_of(run):
    return lambda p: gradients(run, p, **HARD)


def test_jit_of_shard_map_of_vmap():
    """The transforms of a sweep."""
    mesh = jax.make_mesh((2,), ("member",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        jax.vmap(gradients_of(kernel.lif)), mesh=mesh, in_specs=P("member"), out_specs=P("member"), check_vma=False
    )
    assert_same(jax.jit(sharded)(members()), jax.vmap(gradients_of(lif_scan.lif))(members()))


def test_tangent_map_of_a_training_step_equals_the_plain_form():
    """A jvp through the gradient, and a gradient through the gradient."""
    p = arguments(2, 3, 130)
    direction = jax.tree.map(lambda a: draw(*a.shape, seed=7), p)

    def step(run, p):
        gradient, _ = gradients(run, p, **options(spike=surrogate.arctan()))
        return jax.tree.map(lambda a, g: a - 0.1 * g, p, gradient)

    def norm(run, p):
        return sum((a**2).sum() for a in jax.tree.leaves(step(run, p)))

    steps = [functools.partial(step, run) for run in RUNS]
    actual, expected = (jax.jit(functools.partial(jax.jvp, step))((p,), (direction,)) for step in steps)
    assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)
    actual, expected = (jax.jit(jax.grad(functools.partial(norm, run)))(p) for run in RUNS)
    assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)


# --- where it does not apply --------------------------------------------------------------------------------------


def test_on_another_platform_it_is_the_plain_form(monkeypatch):
    monkeypatch.setattr(passes, "INTERPRET", None)
    p = arguments(2, 3, 130)
    compiled = jax.jit(gradients_of(kernel.lif)).lower(p).compile()
    assert "custom-call" not in (compiled.as_text() or "")
    assert_same(compiled(p), jax.jit(gradients_of(lif_scan.lif))(p))
    assert_same(jax.jit(jax.vmap(gradients_of(kernel.lif)))(members()), jax.vmap(gradients_of(lif_scan.lif))(members()))


def test_arguments_that_do_not_fit(monkeypatch):
    x, number, spike = jnp.zeros((2, 3, 128)), jnp.ones((1, 1)), surrogate.triangle()
    own = surrogate.Surrogate(lambda x, width: jnp.exp(-(x**2)), (1.0,))
    assert kernel.fits(x, number, number, spike)
    with jax.enable_x64(True):
        wide = jnp.ones((1, 1), jnp.float64)
    for unfit in (
        (x[..., :127], number, number, spike),
        (x[:, :, 0], jnp.ones(1), jnp.ones(1), spike),
        (x, jnp.ones((1, 128)), number, spike),
        (x, number, jnp.ones((1, 128)), spike),
        (x, number, number, own),
        (x, number, number, surrogate.erf()),
        (x, number, number, surrogate.triangle(jnp.ones(128))),
        (x, wide, number, spike),
    ):
        assert not kernel.fits(*unfit)
    monkeypatch.setattr(passes, "INTERPRET", None)
    assert not kernel.fits(x, number, number, spike)  # eight devices


def test_a_gpu_before_hopper_has_the_plain_form(monkeypatch):
    inputs = draw(2, 3, 130), jnp.float32(0.5), jnp.float32(1), surrogate.triangle()
    for capability, device_kind, has_kernels in (("9.0", "H100", True), ("10.0", "B200", True), ("8.0", "A100", False)):
        device = types.SimpleNamespace(compute_capability=capability, device_kind=device_kind)
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert kernel.fits(*inputs) == has_kernels
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(SystemExit, match=r"^gpu_kernel\.check: A100 is older than Hopper"):
        check.main()


def test_a_neuron_that_does_not_fit_runs_the_plain_form():
    x = draw(2, 3, 127)
    assert_trees_all_equal(kernel.KernelLIF()(x), neurons.lif(x))
    at_threshold = jnp.ones((1, 1, 256))
    assert kernel.KernelLIF(at_threshold="fire")(at_threshold)[0].all()
    assert not kernel.KernelLIF()(at_threshold)[0].any()
    with pytest.raises(ValueError, match="lif: reset is 'half'"):
        kernel.KernelLIF(reset="half")(x)  # type: ignore[arg-type]  # the wrong value is tested


def test_an_experiment_file_has_the_neuron_of_its_config():
    settings, own = plugin_file.load_file("experiments/gpu_kernel/cifar10_dvs.py")
    assert own.plugins == ("neuron",) and own.neuron
    neuron = own.neuron(settings)
    assert isinstance(neuron, kernel.KernelLIF)
    assert (neuron.decay, neuron.reset) == (settings.model.neuron.decay, settings.model.neuron.reset)
    x = draw(2, 3, 130)
    assert_trees_all_close(jax.jit(neuron)(x), neurons.LIF(**vars(neuron))(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"model\.neuron\.learn: layer is not possible"):
        kernel.neuron(config.replaced(settings, "model.neuron.learn", "layer"))


def test_the_check_on_a_gpu_times_both_forms_and_exits_without_a_gpu():
    assert all(check.seconds(run, (2, 3, 128), calls=1) > 0 for run in RUNS)
    with pytest.raises(SystemExit, match="JAX has no GPU on this machine"):
        check.main()


def test_the_check_refuses_a_kernel_whose_gradients_are_not_numbers(monkeypatch):
    def gradients_of_one(run, p, **static):
        return {"x": np.array([np.nan if run is kernel.lif else 1.0])}, (np.ones(1), np.ones(1))

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(check, "gradients", gradients_of_one)
    monkeypatch.setattr(check, "seconds", lambda run, shape: 1.0)
    with pytest.raises(SystemExit, match="the kernel differs by up to nan"):
        check.main()
