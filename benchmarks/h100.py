"""Compile the neuron and training steps for an H100, without one, and count kernels, loops and bytes.

    make h100        (python -m benchmarks.h100 [--out docs/checks/bench] [--wheels .bench/h100] [--only PART ...]
                      [--before CHECKOUT])

JAX's CUDA plugin and NVIDIA's assembler are installed into a folder of their own, once (some 600 MB), and used beside
the installed JAX; h100_device.py describes an H100 to the compiler. Nothing is run. Writes h100.json and h100.md;
``--only`` without a part only rewrites the page. ``--before`` compiles nothing but the training steps of an earlier
version of the package, whose checkout it names, for comparison.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import h100_page
from benchmarks.process import ROOT
from csbp_jax.runtime.files import write_json

PUBLISHED = pathlib.Path(__file__).parent.parent / "docs" / "checks" / "bench"
PARTS = ("neuron", "steps", "pooling", "members", "presets")
ASSEMBLER = "nvidia-cuda-nvcc-cu12==12.9.86"


def install(folder: pathlib.Path, wanted: list[str]) -> None:
    """Install packages without what they require into a folder, unless it has them."""
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text().split() == wanted:
        return
    print(f"installing {', '.join(wanted)} into {folder} (once)", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    done = subprocess.run([*pip, "--target", str(folder), *wanted], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{folder.name}: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    mark.write_text("\n".join(wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=PUBLISHED)
    parser.add_argument("--wheels", type=pathlib.Path, default=pathlib.Path(".bench/h100"))
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="without a part: only rewrite the page")
    parser.add_argument("--before", type=pathlib.Path, metavar="CHECKOUT", help="of the version to compare with")
    options = parser.parse_args()
    file, folder = options.out.resolve() / "h100.json", options.wheels.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    if options.only:
        jax = importlib.metadata.version("jax")
        install(folder, [f"jax-cuda12-pjrt=={jax}", f"jax-cuda12-plugin=={jax}", ASSEMBLER])
        # JAX's devices are the CPU's: no program can run on a GPU.
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        with tempfile.TemporaryDirectory() as code:
            # This version's programs, with the package of the version that is asked for.
            for name, root in (("benchmarks", ROOT), ("csbp_jax", options.before)):
                (pathlib.Path(code) / name).symlink_to((root or ROOT).resolve() / name)
            environment["PYTHONPATH"] = os.pathsep.join(map(str, (code, folder)))
            wanted = ["before=steps"] if options.before else [f"{part}={part}" for part in options.only]
            line = [sys.executable, "-P", "-m", "benchmarks.h100_programs", file, *wanted]
            done = subprocess.run(line, env={**os.environ, **environment})
        if done.returncode:
            sys.exit(done.returncode)
        if options.before:
            commit = ["git", "-C", options.before, "rev-parse", "--short", "HEAD"]
            content = json.loads(file.read_text())
            content["before_commit"] = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
            write_json(file, content)
    content = json.loads(file.read_text()) if file.exists() else {}
    if missing := [part for part in PARTS if part not in content]:
        sys.exit(f"{file}: no page before {', '.join(missing)} are compiled: --only {' '.join(missing)}")
    page = h100_page.page(content)
    (file.parent / "h100.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
