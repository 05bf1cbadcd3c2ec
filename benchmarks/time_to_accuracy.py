"""Time to an accuracy on CIFAR-10's images, of this package and of SpikingJelly, eagerly and compiled.

    python -m benchmarks.time_to_accuracy [--network small | large] [--seeds 3] [--libraries csbp_jax spikingjelly ...]
        [--cores 0 1] [--data-dir data] [--peers .bench] [--out docs/checks/bench]

All train a network of ``NETWORKS`` on the same images, with the same splits, batch size, loss, optimiser, schedule,
augmentation and distribution of initial weights, pinned to the same cores. After each epoch both compute the accuracy
on the validation split; the clocks of a process begin with its start, so that imports, reading of data and compilation
are included (nothing is compiled before), and so is validation. The runs of a seed follow each other, in an order
drawn from the seed. Ours is ``csbp_jax train``, with its checks, metrics and checkpoints, under the allocator of the
Makefile, as is SpikingJelly's (peers/train_spikingjelly.py). In the end the convolutions of a step are timed alone, on
one core.

Writes time_to_accuracy.json after each run, and time_to_accuracy.md, or time_to_accuracy_large; runs that are in the
file are not repeated.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from benchmarks import convolutions, peers
from benchmarks.process import ROOT, TUNABLES, machine
from benchmarks.time_page import COMPILED, page
from csbp_jax import configs, data
from csbp_jax.cli.options import parse
from csbp_jax.config import Config, to_json
from csbp_jax.runtime.files import write_json
from csbp_jax.training.metrics_log import read_rows
from experiments import study

PRESET = "cifar10_quick_bp"
NETWORKS: dict[str, dict[str, list[Any]]] = {
    "small": {
        "model.features": [16, 32, 64, 128],
        "model.pool": ["max"],
        "data.augment": ["flip"],
        "epochs": [5],
        "optimizer.lr": [0.005],
    },
    "large": {
        "model.features": [32, 64, 192, 512],
        "model.pool": ["average"],
        "data.augment": ["crop", "flip"],
        "epochs": [5],
        "optimizer.lr": [0.003],
        "optimizer.weight-decay": [0.1],
        "loss.smoothing": [0.1],
    },
}
"""Options of ``csbp_jax train``, with which each is to reach 70 %."""
CONVOLUTION_ROUNDS = 9
LIBRARIES = ("csbp_jax", "spikingjelly", COMPILED)
NAMES = {"small": "time_to_accuracy", "large": "time_to_accuracy_large"}

Epochs = list[tuple[int, float]]
"""``(epoch, validation accuracy)`` of the epochs that have ended."""


def config(network: str) -> Config:
    """What both train."""
    return parse(configs.load(PRESET), words(network), "benchmarks.time_to_accuracy")


def words(network: str) -> list[str]:
    """The options of a network as words of a command line."""
    options = {**NETWORKS[network], "optimizer.warmup-epochs": [1], "chaos.taps": []}
    return [word for name, values in options.items() for word in (f"--{name}", *map(str, values))]


def ours(
    network: str, folder: pathlib.Path, seed: int, data_dir: pathlib.Path
) -> tuple[list[str], Callable[[], Epochs]]:
    """The command of a run of this package, and a function that reads the epochs that have ended."""
    options = [*words(network), f"--seed={seed}", f"--data-dir={data_dir.resolve()}", "--name=run"]

    def ended() -> Epochs:
        rows = read_rows(folder / "runs" / "run" / "metrics.jsonl")
        return [(row["epoch"], row["validation_accuracy"]) for row in rows if row["kind"] == "epoch"]

    return [sys.executable, "-m", "csbp_jax", "train", PRESET, *options], ended


def spikingjelly(
    network: str, folder: pathlib.Path, seed: int, data_dir: pathlib.Path, python: str, how: str
) -> tuple[list[str], Callable[[], Epochs]]:
    """The same for SpikingJelly, "eagerly" or "compiled", whose images and config are written to the folder first."""
    splits = data.load(config(network), data_dir)
    arrays = {f"{split}_{key}": getattr(splits[split], key) for split in ("train", "validation") for key in "xy"}
    np.savez(folder / "data.npz", **{name: a.astype(np.int64) if a.ndim == 1 else a for name, a in arrays.items()})
    (folder / "config.json").write_text(json.dumps(to_json(config(network))))

    def ended() -> Epochs:
        lines = (folder / "output.txt").read_text().split("\n")[:-1]
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return [(row["epoch"], row["accuracy"]) for row in rows]

    module = "benchmarks.peers.train_spikingjelly"
    return [python, "-m", module, str(folder / "config.json"), str(folder / "data.npz"), str(seed), how], ended


def run(
    command: Sequence[str], folder: pathlib.Path, ended: Callable[[], Epochs], count: int
) -> list[dict[str, float]]:
    """Run a command in a folder: ``{epoch, accuracy, wall, cpu}`` of each epoch, seconds from the start of the process.

    Raises:
      SystemExit: the command failed.
    """
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": TUNABLES,
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),  # where compiled programs are kept
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),
    }
    epochs: list[dict[str, float]] = []
    with open(folder / "output.txt", "w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        finished = False
        while not finished:
            clocks = {"wall": time.perf_counter() - began, "cpu": cpu_seconds(process.pid)}
            finished = process.poll() is not None
            with contextlib.suppress(FileNotFoundError):  # nothing is written yet
                epochs += [{"epoch": n, "accuracy": value, **clocks} for n, value in ended()[len(epochs) :]]
            time.sleep(0.1)
    if process.returncode or len(epochs) != count:
        raise SystemExit(
            f"{' '.join(command)}: ended after {len(epochs)} epochs\n{(folder / 'output.txt').read_text()}"
        )
    return epochs


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of those that it started, such as compilers."""
    process = psutil.Process(pid)
    total = 0.0
    for running in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile: its parent's time now has it
            total += sum(running.cpu_times()[:4])
    return total


def missing(runs: Mapping[str, Any], seeds: int, libraries: Sequence[str] = LIBRARIES) -> Iterator[tuple[int, str]]:
    """``(seed, library)`` of the runs to be made: those of a seed one after the other, in an order drawn from it."""
    for seed in range(seeds):
        for name in random.Random(seed).sample(LIBRARIES, len(LIBRARIES)):
            if name in libraries and str(seed) not in runs.get(name, {}):
                yield seed, name


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, study.CHECKS / "bench", data_dir=True)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--libraries", choices=LIBRARIES, nargs="+", default=LIBRARIES)
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--peers", type=pathlib.Path, default=pathlib.Path(os.environ.get("BENCH_PEERS", ".bench")))
    options = parser.parse_args(arguments)
    usable = os.sched_getaffinity(0)
    if not usable.issuperset(options.cores) or len(set(options.cores)) < len(options.cores):
        cores = ", ".join(map(str, sorted(usable)))
        parser.error(f"--cores: name cores that this process may use, each once; they are {cores}")
    with study.one_line_errors(parser):
        measure(parser, options)


def measure(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Make the runs that are missing, and write the file and the page after each."""
    file = options.out / f"{NAMES[options.network]}.json"
    trained = config(options.network)
    settings = {
        "config": to_json(trained),
        "machine": machine(),
        "cores": len(options.cores),
        "peers": list(peers.REQUIREMENTS["spikingjelly"]),
    }
    content = study.resume(parser, file, settings, {"runs": {name: {} for name in LIBRARIES}})
    os.sched_setaffinity(0, options.cores)  # children inherit it
    python = peers.pythons(options.peers, only=["spikingjelly"]).get("spikingjelly")
    if python is None:
        raise SystemExit("SpikingJelly cannot be installed; the line above says why")
    said = f"--network {options.network} --seeds {options.seeds} --cores {' '.join(map(str, options.cores))}"
    command = f"python -m benchmarks.time_to_accuracy {said}"
    for seed, name in missing(content["runs"], options.seeds, options.libraries):
        print(f"{time.strftime('%H:%M:%S')} seed {seed}, {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            setting = options.network, pathlib.Path(folder), seed, pathlib.Path(options.data_dir)
            how = "compiled" if name == COMPILED else "eagerly"
            line, ended = ours(*setting) if name == "csbp_jax" else spikingjelly(*setting, python, how)
            load = os.getloadavg()[0]
            epochs = run(line, pathlib.Path(folder), ended, trained.epochs)
        content["runs"].setdefault(name, {})[str(seed)] = {
            "epochs": epochs,
            "load": round(load, 1),
            **study.provenance(command, ("jax", "jaxlib", "flax", "optax", "numpy")),
        }
        write_json(file, content)
        file.with_suffix(".md").write_text(page(content))
    if "convolutions" not in content:
        nets = {options.network: trained}
        made = study.provenance(command, ("jax", "jaxlib", "numpy"))
        content["convolutions"] = {"nets": convolutions.measure(nets, python, CONVOLUTION_ROUNDS), **made}
        write_json(file, content)
        file.with_suffix(".md").write_text(page(content))
    print(file.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
