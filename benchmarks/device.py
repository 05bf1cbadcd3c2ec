"""Check and measure this package on a GPU or TPU, in at most 40 minutes, and write one page to send.

    make device        (python -m benchmarks.device [--out .bench/device] [--small] [--minutes 40] [--torch PYTHON])

Each measurement is a process of its own with a time of its own, so that one that hangs or needs too much memory leaves
the others alone; it is written to device.json as it ends, and the same command goes on with those that are missing or
broke. On a CPU all is small, and what only a GPU or TPU can show is not run. SpikingJelly is timed where torch and
spikingjelly are installed: by ``make device-peers`` before, in this environment, or in that of ``--torch``. Nothing is
downloaded.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import device_page
from benchmarks.process import ROOT
from csbp_jax.runtime.files import write_json

NETS = ("digits", "CNN7", "VGGSNN", "SEW-ResNet-34")
SWEPT = {"digits": 32, "cifar10_quick": 32}
"""Presets whose sweeps are timed, with their members on each device."""
LIMIT_OF_FIRST = 120
"""Seconds in which JAX must start and say what computes."""
Content = dict[str, Any]


class Part(NamedTuple):
    """A measurement: its name, the seconds that it may take, and its commands, each of which prints rows of JSON.

    missing: why it is not run here; empty if it is.
    """

    name: str
    seconds: int
    commands: Sequence[Sequence[str]]
    missing: str = ""


def ours(function: str, **arguments: Any) -> list[str]:
    """The command of a function of device_parts."""
    return [sys.executable, "-m", "benchmarks.device_parts", function, json.dumps(arguments)]


def plan(small: bool, on_cpu: bool, torch: str | None, folder: pathlib.Path) -> list[Part]:
    """The measurements in the order of what they decide; together they take less than 40 minutes."""
    no_device = "needs a GPU or TPU" if on_cpu else ""
    no_torch = "" if torch else "torch and spikingjelly are not installed here (make device-peers installs them)"
    seconds = 3 if small else 45
    parts = [
        Part("train: digits", 100, [ours("train", name="digits", small=small, seconds=seconds)]),
        Part("train: pictures", 200, [ours("train", name="pictures", small=small, seconds=seconds)]),
    ]
    for net, members in SWEPT.items():
        command = ours("sweep_forms", name=net, small=small, members=2 if small else members)
        parts.append(Part(f"sweep: {net}", 110, [command]))
    for net, limit in {"CNN7": 110, "SEW-ResNet-34": 200}.items():
        parts.append(Part(f"forms of the step: {net}", limit, [ours("step_forms", name=net, small=small)]))
    for net in ("digits", "CNN7"):
        parts.append(Part(f"numbers equal to the CPU's: {net}", 100, [ours("equal", name=net, small=small)]))
    parts.append(Part("resume with --deterministic", 120, [ours("resume", small=small)]))
    for net in NETS:
        for precision in ("bfloat16",) if net == "SEW-ResNet-34" else ("float32", "bfloat16"):
            command = ours("steps", name=net, precision=precision, small=small, seconds=45)
            missing = no_device if precision == "bfloat16" else ""
            parts.append(Part(f"steps: {net}, {precision}", 75 if net == "digits" else 90, [command], missing))
    file = str(folder / "CNN7.npz")
    peer = [str(torch), "-m", "benchmarks.peers.on_device", file]
    forms = [(mode, how) for mode in ("eager", "compile") for how in (("torch",) if on_cpu else ("triton", "torch"))]
    beside = [ours("beside", name="CNN7", file=file, small=small), *([*peer, *form] for form in forms)]
    parts.append(Part("beside SpikingJelly: CNN7", 160, beside, no_torch))
    profile = ours("train", name="digits", small=small, seconds=seconds, profile=str(folder / "profile"))
    parts.append(Part("profile of five steps: digits", 50, [profile]))
    parts.append(Part("decoding by threads", 40, [ours("decoding", small=small)]))
    parts.append(Part("one to all devices: CNN7", 70, [ours("devices", name="CNN7", small=small)]))
    parts.append(Part("compilation: CNN7", 50, [ours("compilation", name="CNN7", small=small)]))
    parts.append(Part("max pooling", 50, [ours("pooled", small=small)]))
    last = ours("equal", name="SEW-ResNet-34", small=small)
    return [*parts, Part("numbers equal to the CPU's: SEW-ResNet-34", 110, [last])]


def run(part: Part) -> Content:
    """Run the commands of a part, and return ``{status, why, seconds, rows}``."""
    began, rows = time.monotonic(), list[Content]()
    status, why = "measured", ""
    if part.missing:
        return {"status": "not run", "why": part.missing, "seconds": 0, "rows": []}
    # The CPU beside the device, for the numbers of reference; and the memory that one process may have.
    chosen = os.environ.get("JAX_PLATFORMS", "")
    platforms = {"JAX_PLATFORMS": f"{chosen},cpu"} if chosen and "cpu" not in chosen.split(",") else {}
    environment = {"XLA_CLIENT_MEM_FRACTION": "0.95", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **platforms}
    environment["JAX_TRACEBACK_FILTERING"] = "off"  # or the last line of an error would be about filtering
    for command in part.commands:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=errors, start_new_session=True
            )
            try:
                process.wait(part.seconds - (time.monotonic() - began))
            except subprocess.TimeoutExpired:
                status, why = "out of time", f"after {part.seconds} s"
            finally:  # with what it has started, also where this process is interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for file in (output, errors):
                file.seek(0)
            rows += [json.loads(line) for line in output if line.startswith("{") and line.endswith("}\n")]
            if status == "measured" and process.returncode:
                status, why = "broke", (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        if status != "measured":
            break
    verdicts = [row["passed"] for row in rows if "passed" in row]
    if status == "measured" and verdicts:
        status = "passed" if all(verdicts) else "failed"
    return {"status": status, "why": why, "seconds": round(time.monotonic() - began), "rows": rows}


def torch_python(named: str | None) -> str | None:
    """The Python that has torch and SpikingJelly, if there is one."""
    environment = pathlib.Path(os.environ.get("BENCH_PEERS", ROOT / ".bench"), "spikingjelly", "bin", "python")
    if named or environment.exists():
        return named or str(environment)
    return sys.executable if all(map(importlib.util.find_spec, ("torch", "spikingjelly"))) else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".bench/device"))
    parser.add_argument("--small", action="store_true", help="small nets and images; always on a CPU")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--torch", metavar="PYTHON", help="of an environment with torch and spikingjelly")
    parser.add_argument("--only", metavar="WORD", default="", help="parts in whose name this occurs")
    if arguments is None and sys.argv[1:] == ["--environment"]:
        arguments = shlex.split(os.environ.get("CSBP_ARGS", ""))  # as make has them
    options = parser.parse_args(arguments)
    began, folder = time.monotonic(), options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "device.json"
    first = run(Part("device", LIMIT_OF_FIRST, [ours("device", small=options.small)]))
    if not first["rows"]:
        sys.exit(f"JAX does not start here: {first['why']}")
    (device,) = first["rows"]
    on_cpu = device["platform"] == "cpu"
    small = options.small or on_cpu
    about = {"small": small, **{key: device[key] for key in ("kind", "count", "versions")}}
    content: Content = (
        json.loads(file.read_text()) if file.exists() else {"about": about, "device": device, "parts": {}}
    )
    if content["about"] != about:
        parser.error(f"--out: {file} is of {content['about']}, and here is {about}; give another folder")
    left = 0
    for part in plan(small, on_cpu, torch_python(options.torch), folder):
        known = content["parts"].get(part.name, {"status": "broke"})
        over = time.monotonic() - began + part.seconds > 60 * options.minutes
        if known["status"] not in ("broke", "not run") or options.only not in part.name:
            continue
        if over:
            left += 1
            continue
        print(f"{time.strftime('%H:%M:%S')} {part.name}", flush=True)
        content["parts"][part.name] = run(part)
        write_json(file, content)
        (folder / "device.md").write_text(device_page.page(content))
    print((folder / "device.md").read_text())
    print(
        f"{left} parts did not fit into {options.minutes:g} minutes; the same command goes on"
        if left
        else folder / "device.md"
    )


if __name__ == "__main__":
    main()
