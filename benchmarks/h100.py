"""The neuron and training steps compiled for an H100 without one: kernels, loops, bytes. Compiled, never run.

    make h100        (python -m benchmarks.h100 [--out docs/results/bench] [--wheels .bench/h100])

JAX's CUDA plugin and NVIDIA's assembler are put into a folder of their own, once (some 600 MB), and used beside the JAX
that is installed; the compiler is told what an H100 is (h100_programs.py). Writes h100.json and h100.md.
``python -m benchmarks.h100 --page`` draws the page of an h100.json anew.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import h100_page
from csbp_jax.report import write_json

PUBLISHED = pathlib.Path(__file__).parent.parent / "docs" / "results" / "bench"
ASSEMBLER = "nvidia-cuda-nvcc-cu12==12.9.86"


def tell(message):
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def wheels(folder):
    """Puts the compiler for NVIDIA's GPUs into a folder, unless it is there."""
    jax = importlib.metadata.version("jax")
    wanted = [f"jax-cuda12-pjrt=={jax}", f"jax-cuda12-plugin=={jax}", ASSEMBLER]
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text().split() == wanted:
        return wanted
    tell(f"installing {', '.join(wanted)} into {folder} (once)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    done = subprocess.run([*pip, "--target", str(folder), *wanted], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"h100: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    mark.write_text("\n".join(wanted))
    return wanted


def compile_all(file, versions):
    """Runs within the environment that :func:`main` makes: with the wheels' folder on Python's path."""
    from benchmarks import h100_programs

    found = h100_programs.everything(tell)
    write_json(file, {"versions": versions.split(), "shape": ["16", "T", "62500"], **found})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=PUBLISHED)
    parser.add_argument("--wheels", type=pathlib.Path, default=pathlib.Path(".bench/h100"))
    parser.add_argument("--page", action="store_true", help="draw the page anew from h100.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out.resolve() / "h100.json"
    if not options.page:
        versions = wheels(options.wheels.resolve())
        # The devices are the CPU's: nothing here can run on a GPU.
        path = os.pathsep.join(filter(None, [str(options.wheels.resolve()), os.environ.get("PYTHONPATH")]))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        call = f"from benchmarks.h100 import compile_all; compile_all({str(file)!r}, {' '.join(versions)!r})"
        subprocess.run([sys.executable, "-c", call], check=True, env={**os.environ, **quiet, "PYTHONPATH": path})
    (options.out / "h100.md").write_text(h100_page.page(json.loads(file.read_text())))
    print((options.out / "h100.md").read_text())


if __name__ == "__main__":
    main()
