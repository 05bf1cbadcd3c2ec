"""The measurements of benchmarks.device, each in a process of its own.

    python -m benchmarks.device_parts PART ARGUMENTS

A function prints a line of JSON for each row as it is measured, so that what ends early leaves its first rows.
"""

import contextlib
import functools
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import device_forms, hlo, ours_step
from benchmarks.device_forms import STEP, emit, is_out_of_memory, median_ms, step_of
from benchmarks.process import ROOT
from benchmarks.steps import NETS as SMALL_BATCHES
from benchmarks.steps import narrow, plain
from csbp_jax import configs, learner, losses, models
from csbp_jax.config import Config, to_json
from csbp_jax.learner import optimizer
from csbp_jax.runtime.hardware import peak_flops
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.xla import pooling
from csbp_jax.xla.platform import traced_for

SEW = SMALL_BATCHES["SEW-ResNet-18"]
NETS = {
    "digits": configs.load("digits"),
    "CNN7": SMALL_BATCHES["CNN7"],
    "VGGSNN": SMALL_BATCHES["VGGSNN"],
    "SEW-ResNet-34": SEW.replace(**{"model.name": "sew_resnet34", "model.input_shape": (224, 224, 3)}),
}
FIRST_BATCH = {"digits": 32, "CNN7": 8, "VGGSNN": 8, "SEW-ResNet-34": 4}
POOLED: dict[str, tuple[tuple[int, ...], Any]] = {
    "3x3, stride 2": ((32, 4, 112, 112, 64), {"size": 3, "stride": 2, "pad": 1}),
    "2x2": ((32, 8, 32, 32, 256), {"size": 2, "stride": 2, "pad": 0}),
}
"""Max pooling as in the stem of SEW-ResNet and in PLIF-Net: the input ``[B, T, H, W, C]`` and the window."""
ROUNDING = 1e-4
"""Largest difference of membranes that counts as rounding in float32, in units of their layer's root mean square."""
GRADIENT = 1e-3
"""Largest relative difference of a layer's gradient, in the norm, where all spikes are equal."""
AFTER_FLIPS = 0.2
"""The same of membranes and gradients where rounding has moved a spike over its threshold."""


def net(name: str, small: bool) -> Config:
    """A network, narrow and of small images where it is measured in small."""
    config = NETS[name]
    if not small or name == "digits":
        return config
    shape = (32, 32, config.model.input_shape[-1])
    return narrow(config.replace(**{"model.input_shape": shape, "model.time_steps": 2}), 0.125)


def device(small: bool) -> None:
    """What computes: kind, number, memory, clocks, versions; and the bandwidth of a copy of an array of a gigabyte."""
    first = jax.devices()[0]
    x = jnp.zeros(2**20 if small else 2**28, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()
    emit(
        kind=first.device_kind,
        platform=first.platform,
        count=jax.device_count(),
        memory_GB=round((first.memory_stats() or {}).get("bytes_limit", 0) / 1e9, 1),
        copy_GBps=round(2 * x.nbytes / median_ms(lambda: copy(x).block_until_ready(), small) / 1e6, 1),
        clocks=_clocks(),
        versions={name: metadata.version(name) for name in ("csbp_jax", "jax", "jaxlib", "flax", "optax")},
    )


def _clocks() -> str:
    """The driver, clocks and limit of power of each GPU, as nvidia-smi says; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True
    )
    return "; ".join(dict.fromkeys(done.stdout.strip().splitlines()))


def equal(name: str, small: bool) -> None:
    """Compare each layer's membranes, spikes and gradients with those of the CPU, on the same weights and batch.

    Products are float32 in full. Until spikes differ, membranes must agree to rounding; a spike may differ where its
    membrane is as near to the threshold as that. What follows such a spike agrees only in the norm.
    On a CPU, the programs of a GPU and of a CPU are compared, both on the CPU.
    """
    config = net(name, small).replace("batch_size", 2)
    tx = optimizer.build(config.optimizer, config.epochs, 100)
    recipe = learner.Recipe(models.build(config.model), tx, losses.build(config.loss), config, 100)
    cpu, target = jax.local_devices(backend="cpu")[0], jax.devices()[0]
    with jax.default_device(cpu):
        state = jax.jit(functools.partial(learner.init, recipe))(jax.random.key(0))
        batch = jax.tree.map(jnp.asarray, ours_step.batch_of(config))
    keys: dict[str, Any] = {"rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}

    def forward(state: learner.State, x: jax.Array, spiking: tuple[str, ...] = ()) -> Any:
        return recipe.model.apply(learner.weights_of(state), x, True, inspect=spiking, **keys)[0][1]

    spiking = tuple(jax.eval_shape(forward, state, batch["x"]).rates)

    def outputs(state: learner.State, batch: learner.Batch) -> Any:
        both, aux = learner.gradients(recipe, state, batch), forward(state, batch["x"], spiking)
        return aux.membranes, aux.spikes, jax.tree.map(jnp.add, both["task"], both["chaos"])

    results = []
    for where, platform in ((cpu, "cpu"), (target, "gpu" if target.platform == "cpu" else target.platform)):
        with jax.default_matmul_precision("highest"), traced_for(platform):
            program = jax.jit(lambda *arguments: outputs(*arguments))  # a function of its own for each platform
            results.append(jax.device_get(program(*jax.device_put((state, batch), where))))
    names = models.layer_names(recipe.model, config.model.input_shape)
    rows = compare(dict.fromkeys((*names, *state.params)), *results)
    for row in rows:
        emit(**row)
    emit(passed=all(row["ok"] for row in rows))


def compare(layers: Iterable[str], ours: Any, other: Any) -> list[dict[str, Any]]:
    """Return a row for each layer of two ``(membranes, spikes, gradients)``, each ``{layer: array or tree}``."""
    flipped = any((ours[1][layer] != other[1][layer]).any() for layer in ours[1])
    before, rows = False, []
    for layer in layers:
        row: dict[str, Any] = {"layer": layer, "ok": True}
        if layer in ours[0]:
            u, v = (result[0][layer].astype(float) for result in (ours, other))
            differ = ours[1][layer] != other[1][layer]
            rms = np.sqrt(np.mean(u**2)) or 1.0
            # Of a neuron whose spikes have been equal until then.
            same = np.cumsum(differ, axis=1) - differ == 0
            row |= {
                "membrane": float(np.abs(u - v)[same].max() / rms),
                "in_norm": float(np.sqrt(np.mean((u - v) ** 2)) / rms),
                "spikes": int(differ.sum()),
                "of": differ.size,
            }
            row["ok"] = row["in_norm"] <= AFTER_FLIPS if before else row["membrane"] <= ROUNDING
            before |= bool(differ.any())
        if layer in ours[2]:
            g, h = (ravel_pytree(result[2][layer])[0].astype(float) for result in (ours, other))
            row["gradient"] = float(np.linalg.norm(g - h) / (np.linalg.norm(g) or 1.0))
            row["ok"] &= row["gradient"] <= (AFTER_FLIPS if flipped else GRADIENT)
        rows.append(row)
    return rows


def steps(name: str, precision: str, small: bool, seconds: float) -> None:
    """Time training steps of a network over all devices, the batch doubled until memory or time is used up."""
    began, size, peak = time.monotonic(), FIRST_BATCH[name] * jax.device_count(), peak_flops()
    largest_on_cpu = 2 * size
    end = "the time allowed"
    while time.monotonic() - began < seconds:
        try:
            emit(**step(net(name, small).replace(**{"batch_size": size, "model.precision": precision}), small, peak))
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            end = "out of memory"
            break
        size *= 2
        if jax.default_backend() == "cpu" and size > largest_on_cpu:
            end = "two sizes, as a CPU's memory is not swept"
            break
    emit(end=f"batch {size}: {end}")


def step(config: Config, small: bool, peak: float | None) -> dict[str, Any]:
    """A step's time, its bytes as counted in the compiled program, and the memory in use at most."""
    run, compiled, seconds = step_of(config)
    ms = median_ms(run, small)
    row: dict[str, Any] = {"program": STEP, "batch": config.batch_size, "ms": ms, "steps_per_second": 1e3 / ms}
    row["compile_seconds"] = round(seconds, 1)
    with contextlib.suppress(ValueError):  # a loop whose number of passes the compiler does not know
        row["GB"] = hlo.work(compiled.as_text()).bytes / 1e9  # of one device
        row["GBps"] = row["GB"] / ms * 1e3
    stats = jax.devices()[0].memory_stats() or {}
    row["peak_GB"] = stats.get("peak_bytes_in_use", compiled.memory_analysis().peak_memory_in_bytes) / 1e9
    flops = (compiled.cost_analysis() or {}).get("flops", 0) * jax.device_count()
    return row | ({"of_peak_flops": flops / ms * 1e3 / peak} if peak and flops else {})


def pooled(small: bool) -> None:
    """Time max pooling, forward and backward, as XLA's windows with its select-and-scatter, and as this package's."""

    def xla(x: jax.Array, size: int, stride: int, pad: int) -> jax.Array:
        return nn.max_pool(x, (1, size, size), (1, stride, stride), ((0, 0), (pad, pad), (pad, pad)))

    for name, (shape, window) in POOLED.items():
        shape = (2, 2, 16, 16, 8) if small else shape
        for dtype in (jnp.float32, jnp.bfloat16):
            x = (jax.random.uniform(jax.random.key(0), shape) < 0.2).astype(dtype)  # spikes, so that maxima are shared
            row: dict[str, Any] = {
                "program": "max pooling and its gradient",
                "window": name,
                "dtype": jnp.dtype(dtype).name,
            }
            for form, function in {"XLA's": xla, "ours": pooling.max_pool}.items():
                row[form] = _gradient_ms(functools.partial(function, **window), x, small)
            emit(**row, ratio=row["XLA's"] / row["ours"])


def _gradient_ms(pool: Callable[[jax.Array], jax.Array], x: jax.Array, small: bool) -> float:
    gradient = jax.jit(jax.grad(lambda x: pool(x).astype(jnp.float32).sum()))
    gradient(x).block_until_ready()
    return median_ms(lambda: gradient(x).block_until_ready(), small)


def resume(small: bool) -> None:
    """Train digits with ``--deterministic``, and once more with a stop within an epoch: the same bits?"""
    line = [sys.executable, "-m", "csbp_jax", "train", "digits", "--deterministic", "--log-every", "1"]
    line += ["--epochs", "2" if small else "5"] + (["--batch-size", "256"] if small else [])
    with tempfile.TemporaryDirectory() as folder:

        def train(name: str, stop: int | None = None) -> None:
            with subprocess.Popen([*line, "--runs", folder, "--name", name], cwd=ROOT, stdout=sys.stderr) as process:
                log = pathlib.Path(folder, name, "metrics.jsonl")
                while stop and not any(row.get("step", 0) >= stop for row in read_rows(log)) and process.poll() is None:
                    time.sleep(0.05)
                if stop and process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            if process.returncode not in (0, 42):
                sys.exit(f"csbp_jax train: exit code {process.returncode}")

        for name, stop in (("whole", None), ("stopped", 3), ("stopped", None)):
            train(name, stop)
        results = [json.loads(pathlib.Path(folder, name, "result.json").read_text()) for name in ("whole", "stopped")]
    same = [results[0][key] == results[1][key] for key in ("params_sha256", "last", "chosen")]
    emit(passed=all(same), sha256=[result["params_sha256"][:12] for result in results])


def beside(name: str, file: str, small: bool) -> None:
    """Time a step without the chaos term, and write its batch and weights, for the same step of another library.

    On one device, in float32 and bfloat16. Beside a GPU a batch has 64 examples, as less would time the starts of
    kernels.
    """
    size = 64 if jax.default_backend() == "gpu" and not small else FIRST_BATCH[name]
    config = plain(net(name, small).replace("batch_size", size))
    loss = float(ours_step.step(to_json(config), batch_file=file).check()["losses"][0])
    pathlib.Path(file).with_suffix(".json").write_text(json.dumps(to_json(config)))
    for precision in ("float32", "bfloat16"):
        run, _, _ = step_of(config.replace(**{"model.precision": precision}), devices=1)
        ms = median_ms(run, small)
        emit(library="csbp_jax", program=STEP, precision=precision, batch=size, ms=ms, loss=loss)


def step_forms(name: str, small: bool) -> None:
    """Time the forms of a network's step (``device_forms.VARIANTS``)."""
    device_forms.step_forms(_at_first_batch(name, small), name, small)


def devices(name: str, small: bool) -> None:
    """Time a network's step over one to all devices."""
    device_forms.devices(_at_first_batch(name, small), name, small)


def compilation(name: str, small: bool) -> None:
    """Time the compilation of a network's step, with an empty cache and a filled one."""
    device_forms.compilation(_at_first_batch(name, small), name)


def _at_first_batch(name: str, small: bool) -> Config:
    precision = "float32" if small else "bfloat16"
    size = 4 * jax.device_count() if small else 32 * jax.device_count()
    return net(name, small).replace(**{"batch_size": size, "model.precision": precision})


PARTS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(device_forms.train, device_forms.sweep_forms, device_forms.decoding),
        *(device, equal, steps, pooled, resume, beside, step_forms, devices, compilation),
    )
}

if __name__ == "__main__":
    part, arguments = sys.argv[1], json.loads(sys.argv[2])
    PARTS[part](**arguments)
