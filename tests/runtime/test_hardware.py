"""Devices: FLOPs of a step, utilisation of the peak, memory, profiler traces."""

import dataclasses
import io

import chex
import jax
import jax.numpy as jnp
import pytest

from csbp_jax import configs, data
from csbp_jax.config import ConfigError
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import hardware, profiling, sharding
from csbp_jax.training import loop
from csbp_jax.training.compiled import compile_run
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from tests.support import shared_programs

pytestmark = pytest.mark.usefixtures("no_figures")
DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=1,
    batch_size=64,
    log_every=1,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8,), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, z0=(0.0,), taps=("fc1.membrane",)),
)

SMALL_CONV = dataclasses.replace(
    DIGITS, batch_size=16, model=dataclasses.replace(DIGITS.model, features=(4, 4), time_steps=2)
)


def run(root, **options):
    train(SMALL, root=root, name="r", console=Console(file=io.StringIO()), **options)
    return read_rows(root / "r" / "metrics.jsonl")


def test_a_matrix_product_has_two_operations_for_each_of_its_products():
    product = jax.jit(lambda a, b: a @ b)
    assert hardware.flops(product, jnp.ones((6, 5)), jnp.ones((5, 7))) == 2 * 6 * 5 * 7


@pytest.fixture
def uncounted(monkeypatch):
    """``Lowered.cost_analysis`` as of JAX's plugins, for TPUs and GPUs."""
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)


def test_a_program_that_its_device_does_not_count_is_counted_by_the_cpu(uncounted):
    devices = jax.sharding.Mesh(jax.devices(), "data")
    rows = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("data"))
    product = jax.jit(lambda a, b: a @ b, in_shardings=(rows, None))
    assert hardware.flops(product, jnp.ones((16, 5)), jnp.ones((5, 7))) == 2 * 16 * 5 * 7


def test_nothing_is_counted_where_jax_has_no_cpu(uncounted, monkeypatch):
    def fail(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", fail)
    assert hardware.flops(jax.jit(lambda a, b: a @ b), jnp.ones((6, 5)), jnp.ones((5, 7))) == 0


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is asked of the compiler")
def test_a_training_step_on_cpu_leaves_no_convolution_to_ynnpack():
    """One that is large enough for it. If the first is false, the default has changed, and the option is idle."""
    x, kernel = jax.random.normal(jax.random.key(0), (8, 12, 12, 32)), jnp.ones((3, 3, 32, 32))

    def loss(kernel, x):
        names = ("NHWC", "HWIO", "NHWC")
        return (jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names) ** 2).mean()

    options = hardware.compiler_options()
    default, ours = (
        jax.jit(jax.grad(loss), compiler_options=given).lower(kernel, x).compile() for given in (None, options)
    )
    assert len(given_away(default)) == 2 and given_away(ours) == []
    chex.assert_trees_all_close(default(kernel, x), ours(kernel, x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is asked of the compiler")
def test_the_users_level_of_the_compiler_stands(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    options = hardware.quick_options()
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2 and options
    assert hardware.compiler_options.__wrapped__() == hardware._CPU_OPTIONS | options
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    assert hardware.quick_options() is None and hardware.compiler_options.__wrapped__() == hardware._CPU_OPTIONS


def given_away(compiled):
    """The convolutions within YNNPACK's fusions."""
    *computations, entry = compiled.as_text().split("ENTRY ")
    assert "ynn" in entry or " convolution(" in entry
    return [line for text in computations for line in text.splitlines() if " convolution(" in line]


def test_an_option_that_the_compiler_lacks_is_not_used(monkeypatch):
    monkeypatch.setattr(hardware, "_CPU_OPTIONS", {"xla_cpu_of_another_version": "1"})
    assert hardware.compiler_options.__wrapped__() is None


def test_no_utilisation_where_the_peak_is_unknown(trained):
    assert hardware.peak_flops() is None
    rows = read_rows(trained / "metrics.jsonl")
    assert rows[0]["peak_operations"] is None and not any("utilisation" in row for row in rows)
    assert rows[0]["device"] == jax.devices()[0].device_kind and rows[0]["devices"] == 8
    assert all(0 < row["waiting"] < 1 for row in rows if row["kind"] == "train")


@pytest.mark.parametrize("name, teraflops", [
    ("TPU v5 lite", 197),
    ("TPU v5", 459),
    ("TPU v5p", 459),
    ("TPU v6 lite", 918),
    ("Tesla T4", 65),
    ("NVIDIA L4", 121),
    ("NVIDIA L40S", 362),
    ("NVIDIA A100-SXM4-80GB", 312),
    ("NVIDIA A100-PCIE-40GB", 312),
    ("NVIDIA H100 80GB HBM3", 989),
    ("NVIDIA H100 PCIe", 756),
    ("NVIDIA GH200 480GB", 989),
    ("NVIDIA L400", None),
    ("AMD Instinct MI300X", None),
])  # fmt: skip
def test_the_peak_of_a_chip_whatever_its_memory_and_socket(name, teraflops):
    assert hardware.peak_of(name) == (teraflops and teraflops * 1e12)


CUDA = 'make setup ACCELERATOR=cuda12, or pip install "jax[cuda12]"'
TPU = 'make setup ACCELERATOR=tpu, or pip install "jax[tpu]"'


@pytest.mark.parametrize("file, line", [
    ("dev/nvidia0", f"this machine has a GPU, but JAX computes on its CPU; to use it: {CUDA}"),
    ("dev/accel3", f"this machine has a TPU, but JAX computes on its CPU; to use it: {TPU}"),
    ("dev/vfio/0", f"this machine has a TPU, but JAX computes on its CPU; to use it: {TPU}"),
    ("dev/nvidiactl", ""),
])  # fmt: skip
def test_an_accelerator_that_jax_does_not_use_is_named(monkeypatch, tmp_path, file, line):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert hardware.unused_accelerator(tmp_path) == line
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert hardware.unused_accelerator(tmp_path) == ""


@pytest.mark.full
def test_operations_of_several_devices_in_any_layout_are_those_of_one():
    """TPUs' kernel gradient is a shard_map of each device over several slices, which XLA counts once."""
    source, counts = data.load(SMALL_CONV)["train"], []
    for layout, devices, slices in (("data", 1, [0]), ("data", 4, [0, 0, 1, 1]), ("zero1", 2, None), ("fsdp", 2, None)):
        mesh = sharding.data_mesh(jax.devices()[:devices], slices)
        run = compile_run(SMALL_CONV.replace(layout=layout), source, 10, mesh=mesh)
        state = jax.eval_shape(run.pure_init, jax.random.key(0))
        on_tpus = dataclasses.replace(run, platform="tpu")
        counts.append(on_tpus.flops(state, jax.tree.map(jnp.asarray, next(run.batches(0)))))
    assert counts[0] == counts[1] > 0
    # Programs of other layouts differ in a few of their operations.
    assert counts == pytest.approx([counts[0]] * 4, rel=1e-3)


@pytest.fixture(scope="module")
def profiled_run(tmp_path_factory):
    """Directory and rows of a run on devices with a known peak, with a trace."""
    folder = tmp_path_factory.mktemp("profiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_run", shared_programs.compile_run)
        patch.setitem(hardware.PEAK_FLOPS, jax.devices()[0].device_kind, 1e9)
        patch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)  # as there: they are TPUs and GPUs
        return folder, run(folder, profile="3:2")


def test_utilisation_where_the_peak_is_known(profiled_run):
    _, known = profiled_run
    assert known[0]["peak_operations"] == 8e9
    steps = [row for row in known if row["kind"] == "train"]
    ratios = [row["utilisation"] / row["examples_per_second"] * SMALL.batch_size * 8e9 for row in steps]
    assert ratios == pytest.approx([ratios[0]] * len(steps))
    # Three products of the first layer (64 inputs to 8 units, shown once) forward, backward in weights; and more.
    assert 2 * 2 * 64 * 64 * 8 < ratios[0] < 20 * 2 * 64 * 64 * 8


def test_memory_is_reported_if_the_device_reports_it(monkeypatch):
    assert hardware.memory_stats() == {}  # a CPU does not

    class Device:
        def memory_stats(self):
            return {"peak_bytes_in_use": 17}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert hardware.memory_stats() == {"device_bytes": 17}


def test_no_float64_on_a_tpu(monkeypatch):
    with hardware.float64():
        assert jnp.ones(()).dtype == "float64"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(ConfigError, match=r"^JAX_PLATFORMS: TPUs have no float64, .* set it to cpu$"):
        hardware.float64()


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    def fail():
        raise AssertionError

    assert hardware.start_problem(AssertionError()) is None
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    line = "JAX_PLATFORMS: 'cuda': this machine has no such device; leave it out, or set it to cpu"
    assert hardware.start_problem(AssertionError()) == line


def test_a_tpu_in_use_is_reported_without_a_setting_that_nobody_made(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    cause = "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process with pid 7."
    error = RuntimeError(f"{cause} (set JAX_PLATFORMS='' to automatically choose an available backend)")
    assert hardware.start_problem(error) == f"{cause} (set JAX_PLATFORMS=cpu to use the CPU)"


def test_a_trace_of_the_requested_steps_is_written(profiled_run):
    folder, _ = profiled_run
    (trace,) = (folder / "r" / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert trace.read_bytes().count(b"jit_") > 0


@pytest.mark.parametrize("left, have", [
    (range(31, 101), "steps 31 to 100"),
    (range(1, 20), "steps 1 to 19"),
    (range(101, 101), "no steps"),
])  # fmt: skip
def test_one_line_says_that_no_trace_is_written(left, have, tmp_path):
    lines: list[str] = []
    with profiling.profiled(lambda state, batch: (state, {}), left, range(20, 25), tmp_path, lines.append) as step:
        assert [step(state, None)[0] for state in left] == list(left)
    assert lines == [
        f"--profile: no trace is written: it would start at step 20, but the run has {have} left"
    ] and not any(tmp_path.iterdir())
