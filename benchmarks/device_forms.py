"""Measurements of benchmarks.device that decide how to train: whole trainings, sweeps, and forms of the step.

Each is a process of its own (benchmarks.device_parts), and prints a line of JSON for each row as it is measured. A row
names the program that it timed.
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data_speed, ours_step
from benchmarks.process import ROOT
from csbp_jax import configs, data
from csbp_jax.config import Config
from csbp_jax.data.images import augment, decode, sources
from csbp_jax.training import build
from csbp_jax.training.compiled_group import CompiledGroup, member_mesh
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.xla import batch_norm, gpu_convolution

STEP = "compile_run(...).train_step"
"""The program of a step that training calls."""
SIZE = 224
"""Height and width of pictures after they are cropped, as in ImageNet's presets."""
VARIANTS: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "as it is": ({}, batch_norm.ONE_PASS),
    "batch norm in two passes": ({}, ()),
    "batch norm in one pass": ({}, ("cpu", "gpu", "tpu")),
    "model.remat_neurons": ({"model.remat_neurons": True}, batch_norm.ONE_PASS),
    "model.remat": ({"model.remat": True}, batch_norm.ONE_PASS),
    "optimizer.accumulate 2": ({"optimizer.accumulate": 2}, batch_norm.ONE_PASS),
    "optimizer.accumulate 4": ({"optimizer.accumulate": 4}, batch_norm.ONE_PASS),
}
"""Forms of a step: fields of its config, and the platforms whose batch norm takes one pass."""
SWEEP_FORMS = {"as it is": gpu_convolution.LEAST, "grouped": 2**62, "one call a member": 0}
"""Forms of a sweep's convolutions on GPUs: from which size on a member has a call of its own."""


def emit(**row: Any) -> None:
    """Print a row."""
    print(json.dumps(row), flush=True)


def median_ms(run: Callable[[], Any], small: bool) -> float:
    """Milliseconds of a call that waits for its end: the median of as many as fit into two seconds, at least three."""
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < (0.2 if small else 2) and len(seconds) < 200):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def step_of(config: Config, devices: int | None = None) -> tuple[Callable[[], None], Any, float]:
    """Return a call of the step that training runs, its compiled program, and the seconds of its compilation."""
    program, state, batch, seconds = ours_step.train_program(config, devices)
    box = [state]

    def run() -> None:
        box[0], metrics = program(box[0], batch)
        jax.block_until_ready(metrics)

    run()
    return run, program, seconds


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of JAX says that the device's memory is used up."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


# --- whole trainings ----------------------------------------------------------------------------------------------


def train(name: str, small: bool, seconds: float, profile: str = "") -> None:
    """Run ``csbp_jax train`` for some seconds from its first step on, and read what it logged.

    ``digits`` is the preset; ``pictures`` is SEW-ResNet-34 in bfloat16 on JPEG files, which it decodes and crops.

    Args:
      profile: a folder, into which the trace of five steps is copied.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        options = ["--runs", str(folder / "runs"), "--name", "run", "--log-every", "1" if small else "10"]
        if name == "digits":
            line = ["digits", "--epochs", "10000", *options]
        else:
            _write_pictures(folder / "pictures", 8 if small else 100, 4 if small else 20)
            line = ["folder", *_pictures_options(folder / "pictures", small), *options]
        if profile:
            line += ["--profile", "10:5"]
        _run_for(["train", *line], folder / "runs" / "run", seconds, folder / "output.txt")
        rows = [row for row in read_rows(folder / "runs" / "run" / "metrics.jsonl") if row["kind"] == "train"]
        if profile:
            (traced,) = (folder / "runs" / "run").glob("profile")
            traced.rename(profile)
            emit(program=STEP, profile=profile, files=sum(file.is_file() for file in pathlib.Path(profile).rglob("*")))
            return
    timed = [row for row in rows if "examples_per_second" in row][1:]  # the first interval has the compilation
    if not timed:
        sys.exit("csbp_jax train: no second row of steps in the time allowed")
    means = {key: np.mean([row[key] for row in timed if key in row]) for key in ("examples_per_second", "waiting")}
    used = [row["utilisation"] for row in timed if "utilisation" in row]
    more = {"utilisation": float(np.mean(used))} if used else {}
    command = f"csbp_jax train {'digits' if name == 'digits' else 'folder, SEW-ResNet-34'}"
    emit(program=command, steps=timed[-1]["step"], **{key: float(mean) for key, mean in means.items()}, **more)


def _run_for(arguments: list[str], run: pathlib.Path, seconds: float, output: pathlib.Path) -> None:
    """Run a command of csbp_jax, and stop it some seconds after the first row of its log, as by Ctrl-C."""
    line = [sys.executable, "-m", "csbp_jax", *arguments]
    with open(output, "w") as log, subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log) as process:
        began: float | None = None
        while process.poll() is None:
            time.sleep(0.1)
            if began is None and any(row["kind"] == "train" for row in read_rows(run / "metrics.jsonl")):
                began = time.monotonic()
            if began is not None and time.monotonic() - began > seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
    if process.returncode not in (0, 42):
        sys.exit((output.read_text().strip().splitlines() or [f"exit code {process.returncode}"])[-1])


def _write_pictures(folder: pathlib.Path, different: int, copies: int) -> None:
    """Write JPEG files of noise in two classes, each picture several times."""
    for number, jpeg in enumerate(data_speed.photographs(different)):
        for copy in range(copies):
            file = folder / f"class{number % 2}" / f"{number}-{copy}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg)


def _pictures_options(folder: pathlib.Path, small: bool) -> list[str]:
    side = "32" if small else str(SIZE)
    options = ["--data.dir", str(folder), "--data.size", side, side, "--data.augment", "resized_crop", "flip"]
    options += ["--data.threads", str(min(16, os.cpu_count() or 1)), "--epochs", "10000"]
    network = ["--model.name", "sew_resnet34", "--model.precision", "bfloat16"]
    if small:
        return [*options, *network, "--model.width", "0.125", "--batch-size", "8"]
    return [*options, *network, "--batch-size", "128"]


def decoding(small: bool) -> None:
    """Decode and crop JPEG files by one to all threads of this host."""
    jpegs = list(data_speed.photographs(8 if small else 64))
    uniforms = np.random.default_rng(1).random((len(jpegs), augment.RESIZED_CROP_UNIFORMS), np.float32)
    indices = [number % len(jpegs) for number in range(len(jpegs) if small else 1024)]

    def decoded(index: int) -> None:
        pixels = decode.decode(jpegs[index], "photograph")
        height, width = pixels.shape[:2]
        augment.resize(pixels, augment.random_window(height, width, uniforms[index]), (SIZE, SIZE))

    threads = 1
    while threads <= (os.cpu_count() or 1):
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(decoded, indices))
        rate = len(indices) / (time.perf_counter() - began)
        emit(program="decode and resize a random window to 224", threads=threads, images_per_second=rate)
        threads *= 2


# --- sweeps -------------------------------------------------------------------------------------------------------


def sweep_forms(name: str, small: bool, members: int) -> None:
    """Time a member's step in each form of a sweep, with some members on each device, and with one."""
    for form, least in SWEEP_FORMS.items():
        if form != "as it is" and jax.default_backend() != "gpu":
            continue  # the forms are those of programs for GPUs
        with mock.patch.object(gpu_convolution, "LEAST", least):
            emit(network=name, form=form, members=members, **_members_ms(name, members, small))
    emit(network=name, form="as it is", members=1, **_members_ms(name, 1, small))


def _members_ms(name: str, on_each: int, small: bool) -> dict[str, Any]:
    """Return the milliseconds of a step a member, and the program that was timed."""
    config, count = configs.load(name), on_each * jax.device_count()
    splits: Any = data.load(config) if name == "digits" else _pictures_as_cifar(512 if small else 4096)
    settings = build.resolve(config, splits)
    group = CompiledGroup(settings, splits, member_mesh())
    keys = jnp.stack([jax.random.key(seed) for seed in range(count)])
    state = group.init(keys, group.hparams([settings] * count))
    if group.resident:
        steps, y = 5 if small else 20, np.asarray(splits["train"].y)
        rows = np.random.default_rng(0).integers(0, len(y), (count, steps, settings.batch_size)).astype(np.int32)
        order, x, box = {"rows": rows, "y": y[rows]}, group.resident.x, [state]

        def run() -> None:
            box[0], metrics = group.epoch(box[0], order, x)
            jax.block_until_ready(metrics)

        program = "CompiledGroup.epoch, the data on the device"
    else:
        steps, box = 1, [state]
        host: Any = next(data.train_batches(splits["train"], settings.batch_size, 0))
        batch = group.shard_batch({key: rows[None] for key, rows in host.items()}, axis=1)
        which = jnp.zeros(count, int)

        def run() -> None:
            box[0], metrics = group.step(box[0], which, batch)
            jax.block_until_ready(metrics)

        program = "CompiledGroup.step"
    run()
    return {"program": program, "ms_a_member": median_ms(run, small) / steps / count}


def _pictures_as_cifar(count: int) -> dict[str, Any]:
    """Random pictures as large as CIFAR's, cropped and flipped on the host."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (count, 32, 32, 3), np.uint8), draw.integers(0, 10, count).astype(np.int32)
    source = sources.ImageArraySource(x, y, 10, [(2, augment.crop), (1, augment.flip)])
    return dict.fromkeys(("train", "validation", "test"), source)


# --- forms of a step ----------------------------------------------------------------------------------------------


def step_forms(config: Config, name: str, small: bool) -> None:
    """Time the step of a network in each form of ``VARIANTS``, but those equal to the first, and count its memory."""
    for form, (fields, one_pass) in VARIANTS.items():
        platform = jax.default_backend()
        if form.startswith("batch norm") and (platform in one_pass) == (platform in batch_norm.ONE_PASS):
            continue  # as it is already
        with mock.patch.object(batch_norm, "ONE_PASS", one_pass):
            row = {"network": name, "batch": config.batch_size, "form": form, "program": STEP}
            try:
                run, program, seconds = step_of(config.replace(**fields))
                memory = program.memory_analysis()
                row |= {"ms": median_ms(run, small), "temporary_GB": memory.temp_size_in_bytes / 1e9}
                row |= {"compile_seconds": round(seconds, 1)}
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                row |= {"ms": None, "why": "out of memory"}
        emit(**row)


def devices(config: Config, name: str, small: bool) -> None:
    """Time the step over one to all devices, with as many examples for each."""
    for count in _doubled(jax.device_count()):
        run, _, _ = step_of(config.replace(batch_size=config.batch_size * count), count)
        ms = median_ms(run, small)
        emit(
            network=name,
            program=STEP,
            devices=count,
            ms=ms,
            examples_per_second=1e3 * config.batch_size * count / ms,
        )


def _doubled(most: int) -> Iterator[int]:
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


def compilation(config: Config, name: str) -> None:
    """Compile the step with an empty compilation cache, and again from it."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for cache in ("empty", "filled"):
            jax.clear_caches()
            _, _, seconds = step_of(config)
            emit(network=name, program=STEP, cache=cache, compile_seconds=seconds)
