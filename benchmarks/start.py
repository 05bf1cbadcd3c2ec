"""Time from the start of ``csbp_jax train digits`` to its first step's metrics, without and with the compilation cache.

python -m benchmarks.start        writes docs/checks/survival/starts.json
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata

from csbp_jax.runtime.files import write_json
from csbp_jax.training.metrics_log import read_rows

OUT = pathlib.Path("docs/checks/survival/starts.json")
STARTS = 7


def seconds(folder: str, **environment: str) -> float:
    """Wall seconds of a start on the CPU, with more environment variables."""
    line = [sys.executable, "-m", "csbp_jax", "train", "digits", "--runs", folder, "--name", "r", "--log-every", "1"]
    began = time.perf_counter()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    with subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL) as process:
        while not any(row["kind"] == "train" for row in read_rows(pathlib.Path(folder) / "r" / "metrics.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        elapsed = time.perf_counter() - began
        process.kill()
    return elapsed


def main() -> None:
    measured: dict[str, list[float]] = {"without": [], "first": [], "second": []}
    load = os.getloadavg()[0]
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            runs = iter(f"{folder}/{n}" for n in range(3))
            measured["without"].append(seconds(next(runs), JAX_ENABLE_COMPILATION_CACHE="false"))
            for name in ("first", "second"):
                measured[name].append(seconds(next(runs), XDG_CACHE_HOME=f"{folder}/cache"))
    versions = {package: metadata.version(package) for package in ("jax", "jaxlib")}
    origin = {**versions, "cores": os.cpu_count(), "load_average": load}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, {"about": origin, "seconds": measured})
    for name, values in measured.items():
        print(f"{name:8} {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")
    print(json.dumps(origin))


if __name__ == "__main__":
    main()
