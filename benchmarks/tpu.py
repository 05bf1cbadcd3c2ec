"""Compile training steps for TPU slices, without one, and count memory, operations, bytes and collectives.

    make tpu         (python -m benchmarks.tpu [--out docs/checks/bench] [--wheels .bench/tpu] [--only NET ...])

TPU's compiler (libtpu, some 650 MB) is installed into a folder of its own, once, and used beside the installed JAX.
Nothing is run. Writes tpu.json after each program, and tpu.md; programs that are in tpu.json are not compiled again.
``--only`` without a network only rewrites the page. ``--code`` also generates code, which takes some six times as long
and shows that the program compiles to the end; no count depends on it.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import tpu_page
from benchmarks.h100 import PUBLISHED, install

NETS = (
    "digits",
    "CNN7",
    "VGGSNN",
    "SEW-ResNet-18",
    "SEW-ResNet-34",
    "TEBN-ResNet-34",
    "SEW-ResNet-50",
    "Spikformer-8-512",
)
ON_FEW = {
    "small": ("v5e 2x2",),
    "large": ("v5e 2x2",),
    "ResNet-19": ("v5e 2x2",),
    "SEW-ResNet-34 with remat": ("v5e 2x2",),
    "SEW-ResNet-34 with a norm over all chips": ("v5e 2x2", "2 x v5e 2x2"),
    "SEW-ResNet-34 with a norm per slice": ("2 x v5e 2x2",),
    "SEW-ResNet-50 with a norm over all chips": ("v5p 2x2x1",),
    "SEW-ResNet-34 with overlap asked for": ("v5e 2x2", "v5p 2x2x1"),
}
"""Compiled for these slices only, in layout ``data``."""


def compiler() -> str:
    """The requirement of the compiler that belongs to the installed JAX."""
    requirements = importlib.metadata.requires("jax") or []
    return next(line.split(";")[0].strip() for line in requirements if line.startswith("libtpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=PUBLISHED)
    parser.add_argument("--wheels", type=pathlib.Path, default=pathlib.Path(".bench/tpu"))
    nets = (*NETS, *ON_FEW)
    parser.add_argument("--only", nargs="*", choices=nets, default=nets, help="without a network: only the page")
    parser.add_argument("--layouts", nargs="+", choices=("data", "zero1", "fsdp"), default=("data", "zero1", "fsdp"))
    parser.add_argument("--slices", nargs="+", choices=tpu_page.SLICES, default=list(tpu_page.SLICES))
    parser.add_argument("--code", action="store_true", help="also generate code")
    options = parser.parse_args()
    file, folder = options.out.resolve() / "tpu.json", options.wheels.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    if options.only:
        install(folder, [compiler()])
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        environment = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": path,
            "TPU_LIBRARY_PATH": str(folder / "libtpu" / "libtpu.so"),
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no device that two processes could want
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        wanted = itertools.product(options.only, options.slices, options.layouts)
        programs = json.loads(file.read_text())["programs"] if file.exists() else {}
        for net, name, layout in wanted:
            left_out = net in ON_FEW and (name not in ON_FEW[net] or layout != "data")
            if left_out or f"{net}, {name}, {layout}" in programs:
                continue
            print(f"{time.strftime('%H:%M:%S')} {net}, {name}, {layout}", flush=True)
            line = [sys.executable, "-m", "benchmarks.tpu_programs", file, net, name, layout]
            done = subprocess.run(line + ["--code"] * options.code, env={**os.environ, **environment})
            if done.returncode:
                sys.exit(done.returncode)
    if not file.exists():
        sys.exit(f"{file}: no page before a program is compiled; name a network after --only")
    page = tpu_page.page(json.loads(file.read_text()))
    (file.parent / "tpu.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
